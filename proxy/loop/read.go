package loop

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ErrWouldBlock is returned by Conn.Read when there is nothing new. To crypto/tls it is a temporary network error, after
// which a tls.Conn can be read again: it keeps the part of a record that it has and does not remember the error.
var ErrWouldBlock net.Error = wouldBlockError{}

type wouldBlockError struct{}

func (wouldBlockError) Error() string   { return "nothing to read without waiting" }
func (wouldBlockError) Timeout() bool   { return false }
func (wouldBlockError) Temporary() bool { return true }

// Read returns the kept bytes and new ones behind them, in a buffer that belongs to the loop: it is valid until the next
// Read on this loop or the end of the callback, and may be changed until then. Any error leaves the kept bytes kept:
// ErrWouldBlock says that there is nothing new, io.EOF and all others that nothing will come.
func (c *Conn) Read() ([]byte, error) {
	if c.loop == nil {
		return nil, net.ErrClosed
	}
	if !c.Unread() {
		return nil, ErrWouldBlock
	}
	l, k := c.loop, len(c.kept)
	buf, own := c.space()
	n, err := c.fill(buf[k:])
	if n == 0 {
		return nil, err
	}
	c.kept, l.lent = nil, nil
	if own {
		l.lent = buf
	}
	return buf[:k+n], nil
}

// Unread reports whether a Read may yield something: the last event has not been read out.
func (c *Conn) Unread() bool { return c.flags&(unread|held) != 0 }

// Keep copies bytes that the owner cannot use yet, to be returned by the next Read in front of new ones. It replaces what
// was kept; Keep(nil) forgets it. What the last Read returned stays valid.
func (c *Conn) Keep(b []byte) {
	switch {
	case c.loop == nil || len(b) == 0:
		c.kept = nil
	case c.loop.big(len(b)) && sameArray(b, c.loop.lent):
		c.kept = b // It is in a buffer of this connection's own already.
	default:
		c.kept = make([]byte, len(b))
		copy(c.kept, b)
	}
}

// Kept returns how many bytes are kept.
func (c *Conn) Kept() int { return len(c.kept) }

// big reports whether that many kept bytes leave too little of the scratch buffer to read into.
func (l *Loop) big(kept int) bool { return kept > len(l.scratch)/2 }

// space returns a buffer that begins with the kept bytes: the loop's scratch, or one of the connection's own that doubles
// as a message grows over several reads.
func (c *Conn) space() (buf []byte, own bool) {
	l, k := c.loop, len(c.kept)
	if !l.big(k) {
		copy(l.scratch, c.kept)
		return l.scratch, false
	}
	if cap(c.kept)-k < len(l.scratch)/2 {
		grown := make([]byte, k, 2*max(k, cap(c.kept)))
		copy(grown, c.kept)
		c.kept = grown
	}
	return c.kept[:cap(c.kept)], true
}

// fill reads into p, which is not empty. It returns either bytes or an error.
func (c *Conn) fill(p []byte) (int, error) {
	if c.socket != nil {
		return c.fillTLS(p)
	}
	return c.readSocket(p)
}

// readSocket reads what is in the socket, by one system call. Less than asked for means that it is empty now; after a
// hangup only the end itself says so.
func (c *Conn) readSocket(p []byte) (int, error) {
	if c.flags&unread == 0 {
		return 0, ErrWouldBlock
	}
	c.loop.reads.Add(1)
	n, errno := read(c.fd, p)
	switch {
	case errno == unix.EAGAIN && c.flags&failed != 0:
		return 0, os.NewSyscallError("read", unix.EPIPE)
	case errno == unix.EAGAIN:
		c.flags &^= unread
		return 0, ErrWouldBlock
	case errno != 0:
		return 0, os.NewSyscallError("read", errno)
	case n == 0:
		return 0, io.EOF
	case n < len(p) && c.flags&(hungUp|failed) == 0:
		c.flags &^= unread
	}
	return n, nil
}

// fillTLS decrypts records until p is full or the socket empty. When p is full, the tls.Conn may hold more.
func (c *Conn) fillTLS(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.socket.tls.Read(p[n:])
		n += m
	}
	switch {
	case err == nil:
		c.flags |= held
	case errors.Is(err, ErrWouldBlock):
		c.flags &^= held
	default:
		c.flags |= held // The tls.Conn remembers the error; it is for the Read that finds nothing else.
	}
	if werr := c.flushRecords(); werr != nil && n == 0 { // An alert, or the answer to a KeyUpdate.
		err = werr
	}
	if n > 0 {
		err = nil
	}
	return n, err
}

// sameArray reports whether two slices end in the same array at the same place, whatever their beginnings and lengths.
func sameArray(a, b []byte) bool {
	return cap(a) > 0 && cap(b) > 0 && &a[:cap(a)][cap(a)-1] == &b[:cap(b)][cap(b)-1]
}
