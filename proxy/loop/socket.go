package loop

import (
	"crypto/tls"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is the connection to build a tls.Conn on that is to move to a loop later. Until Take it is nothing but the
// connection that it was made of, for the slow path's blocking calls; from then on it works on the loop's descriptor and
// blocks no more, and whoever made it must not use it, nor the tls.Conn, any longer.
type Socket struct {
	nc   net.Conn  // Nil after Take.
	tls  *tls.Conn // The connection over this one; set by Take.
	conn *Conn     // Where it is attached; nil on the way.
	fd   int32     // The descriptor on the way; -1 when closed.
	peer peer
}

// NewSocket returns a Socket over nc and owns nc from now on.
func NewSocket(nc net.Conn) *Socket { return &Socket{nc: nc, fd: -1} }

// take moves the socket under c from the slow path to a Transport.
func (s *Socket) take(c *tls.Conn) (Transport, error) {
	t, err := Take(s.nc)
	if err != nil {
		return Transport{}, err
	}
	s.nc, s.tls, s.fd, s.peer = nil, c, t.fd, t.peer
	t.socket = s
	return t, nil
}

// Read implements net.Conn. On a loop it returns ErrWouldBlock rather than wait.
func (s *Socket) Read(p []byte) (int, error) {
	switch {
	case s.nc != nil:
		return s.nc.Read(p)
	case s.conn != nil:
		return s.conn.readSocket(p)
	}
	return 0, net.ErrClosed
}

// Write implements net.Conn. On a loop it only collects: whatever made crypto/tls write ends with Conn.flushRecords, so
// that the records of one call are one system call. It never fails then, and never writes a part.
func (s *Socket) Write(p []byte) (int, error) {
	switch {
	case s.nc != nil:
		return s.nc.Write(p)
	case s.conn != nil:
		l := s.conn.loop
		l.records = append(l.records, p...)
		return len(p), nil
	case s.fd >= 0: // Transport.Close: an alert that nobody waits for.
		_, _ = write(s.fd, p)
		return len(p), nil
	}
	return 0, net.ErrClosed
}

// Close implements net.Conn. On a loop it leaves the descriptor to Conn.Close, which is what got here.
func (s *Socket) Close() error {
	switch {
	case s.nc != nil:
		return s.nc.Close()
	case s.conn != nil || s.fd < 0:
		return nil
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(int(fd))
}

// LocalAddr implements net.Conn. It is nil once the socket has left the slow path.
func (s *Socket) LocalAddr() net.Addr {
	if s.nc != nil {
		return s.nc.LocalAddr()
	}
	return nil
}

// RemoteAddr implements net.Conn.
func (s *Socket) RemoteAddr() net.Addr {
	switch {
	case s.nc != nil:
		return s.nc.RemoteAddr()
	case s.peer.kind == local:
		return &net.UnixAddr{Net: "unix"}
	}
	return net.TCPAddrFromAddrPort(s.peer.addrPort())
}

// SetDeadline implements net.Conn. A loop has timers instead.
func (s *Socket) SetDeadline(t time.Time) error {
	if s.nc != nil {
		return s.nc.SetDeadline(t)
	}
	return nil
}

// SetReadDeadline implements net.Conn. A loop has timers instead.
func (s *Socket) SetReadDeadline(t time.Time) error {
	if s.nc != nil {
		return s.nc.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn. A loop has timers instead; crypto/tls calls this when it closes.
func (s *Socket) SetWriteDeadline(t time.Time) error {
	if s.nc != nil {
		return s.nc.SetWriteDeadline(t)
	}
	return nil
}
