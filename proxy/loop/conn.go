package loop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Owner is told of what happens to a connection, on the loop's goroutine.
type Owner interface {
	// Readable says that bytes, the end or an error may be read. With hangup the peer has closed its side, or the
	// connection has failed; bytes may precede the end all the same. A hangup may be told more than once.
	Readable(hangup bool)
	// Drained says that the tail which a Write left has been written.
	Drained()
	// Stuck says that a Write at the end of a turn has left a tail.
	Stuck()
}

// Conn is a connection on a loop, embedded by value in what owns it; the zero value is a closed one. The loop's goroutine
// alone may use it. The owner attaches it, reads, writes and closes; the loop closes it only when Run ends.
type Conn struct {
	loop   *Loop // Nil while not attached.
	owner  Owner
	socket *Socket // Nil without TLS.
	kept   []byte
	tail   *tail
	fd     int32
	gen    uint32
	peer   peer
	flags  flags
}

type flags uint8

const (
	unread    flags = 1 << iota // The socket may have bytes or its end: no read has found less than it asked for since the last event.
	hungUp                      // The peer has closed its side or the connection has failed: unread stays set.
	held                        // The tls.Conn may hold bytes that it has read already.
	watching                    // The poller reports when the socket can be written.
	failed                      // A write has failed behind the owner's back.
	queued                      // The outbox may hold bytes for the peer.
	finishing                   // The peer is to be told of the end behind the tail.
	bounced                     // What the outbox held for the peer could not be written.
)

// Attach gives a connection to the loop, which tells o of events from now on; when something can be read already,
// Readable will be called. An error leaves t with the caller. The Conn must not be attached anywhere.
func (l *Loop) Attach(c *Conn, t Transport, o Owner) error {
	if c.loop != nil {
		return errors.New("attach connection: it is attached already")
	}
	if t.peer.kind == nobody {
		return errors.New("attach connection: the transport is empty")
	}
	*c = Conn{loop: l, owner: o, socket: t.socket, kept: t.kept, tail: t.tail, fd: t.fd, peer: t.peer}
	if c.tail != nil {
		c.flags |= watching
	}
	l.register(c)
	if err := l.poller.add(c.event()); err != nil {
		l.conns[c.fd] = nil
		*c = Conn{}
		return fmt.Errorf("attach connection: %w", err)
	}
	if c.socket != nil {
		c.socket.conn = c
		l.poked = append(l.poked, event{fd: c.fd, gen: c.gen, readable: true}) // The tls.Conn may hold bytes already.
	}
	return nil
}

// Detach takes the connection off its loop, for another loop or another process. Kept bytes and a pending tail travel with
// the Transport.
func (c *Conn) Detach() Transport {
	_ = c.Flush() // Whoever attaches it next finds the failure too.
	t := Transport{socket: c.socket, kept: c.kept, tail: c.tail, fd: c.fd, peer: c.peer}
	c.loop.poller.remove(c.fd)
	if c.socket != nil {
		c.socket.conn, c.socket.fd = nil, c.fd
	}
	c.forget()
	return t
}

// Close writes what waits for the end of the turn, as far as the socket takes it, closes the connection and drops what is kept and pending; no callback follows. With TLS the peer is told, if that
// takes no waiting. Closing again does nothing.
func (c *Conn) Close() {
	if c.loop == nil {
		return
	}
	l := c.loop
	_ = c.Flush()
	if c.socket != nil {
		_ = c.socket.tls.Close() // Leaves the alert in l.records, and the descriptor alone.
		if c.tail == nil && len(l.records) > 0 {
			l.writes.Add(1)
			_, _ = write(c.fd, l.records)
		}
		l.records = l.records[:0]
		c.socket.conn, c.socket.fd = nil, -1
	}
	l.recycle(c.tail)
	_ = unix.Close(int(c.fd))
	c.forget()
}

// CloseWrite tells the peer that nothing more will be written, once what is pending has been.
func (c *Conn) CloseWrite() error {
	if c.loop == nil {
		return net.ErrClosed
	}
	if c.socket != nil {
		if err := c.socket.tls.CloseWrite(); err != nil {
			return fmt.Errorf("close TLS for writing: %w", err)
		}
		if err := c.flushRecords(); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return err
	}
	if c.tail != nil {
		c.flags |= finishing
		return nil
	}
	return c.shutdown()
}

func (c *Conn) shutdown() error {
	return os.NewSyscallError("shutdown", unix.Shutdown(int(c.fd), unix.SHUT_WR))
}

// Attached reports whether the connection is on a loop: attached, and neither closed nor detached since.
func (c *Conn) Attached() bool { return c.loop != nil }

// IsTLS reports whether the connection is encrypted.
func (c *Conn) IsTLS() bool { return c.socket != nil }

// Loop returns the loop that the connection is attached to, or nil.
func (c *Conn) Loop() *Loop { return c.loop }

// Remote returns the peer's address, also when the connection has been closed. It is not valid for a unix socket.
func (c *Conn) Remote() netip.AddrPort { return c.peer.addrPort() }

// forget ends the life of an attached connection. The peer's address stays, for the log.
func (c *Conn) forget() {
	c.loop.conns[c.fd] = nil
	*c = Conn{peer: c.peer}
}

// event returns what the poller has to know about the connection.
func (c *Conn) event() event {
	return event{fd: c.fd, gen: c.gen, writable: c.flags&watching != 0}
}
