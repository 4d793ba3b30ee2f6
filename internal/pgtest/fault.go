package pgtest

import (
	"errors"
	"net"
	"sync"
	"time"
)

// ErrBroken is what the side that hits a fault gets from its own Read or Write.
var ErrBroken = errors.New("connection broken on purpose")

// Action is what happens to a connection once a Fault's byte has been reached.
type Action int

// The ways for a connection to fail.
const (
	// Nothing lets it live.
	Nothing Action = iota
	// Close ends it in an orderly way (FIN).
	Close
	// Reset tears it down (RST), as a crashed machine or a firewall does.
	Reset
	// Stall passes nothing more and keeps it open, as a hanging machine or a full disk does.
	Stall
)

// Fault says how one direction of a connection misbehaves. The zero value is a sound connection.
type Fault struct {
	// Chunk is the largest number of bytes passed on in one piece; zero means as many as there are.
	Chunk int
	// Pause follows each piece; it makes it likely that the receiver sees the pieces one by one.
	Pause time.Duration
	// BytesPerSecond limits the rate; zero means no limit.
	BytesPerSecond int
	// After is the number of bytes that pass before Then happens. Close and Reset happen as soon as that many have passed;
	// with zero, when the first byte is about to.
	After int64
	Then  Action
}

// BreakableConn is a connection with a Fault in either direction. As with any net.Conn, one goroutine reads and one writes;
// whoever made it closes it.
type BreakableConn struct {
	net.Conn
	read, write direction
	closed      chan struct{}
	closeOnce   sync.Once
}

// direction is the state of one direction; the goroutine that reads, or writes, has it to itself.
type direction struct {
	fault  Fault
	passed int64
}

// Break gives faults to a connection, which it takes over.
func Break(conn net.Conn, read, write Fault) *BreakableConn {
	return &BreakableConn{
		Conn:   conn,
		read:   direction{fault: read},
		write:  direction{fault: write},
		closed: make(chan struct{}),
	}
}

// Read reads what the fault lets through.
func (c *BreakableConn) Read(b []byte) (int, error) {
	n := c.read.allowed(len(b))
	if n == 0 && len(b) > 0 {
		return 0, c.fail(c.read.fault.Then)
	}
	n, err := c.Conn.Read(b[:n])
	if err != nil {
		return n, err
	}
	return n, c.pass(&c.read, n)
}

// Write writes in pieces, up to the byte at which the fault strikes.
func (c *BreakableConn) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		n := c.write.allowed(len(b) - written)
		if n == 0 {
			return written, c.fail(c.write.fault.Then)
		}
		n, err := c.Conn.Write(b[written : written+n])
		written += n
		if err != nil {
			return written, err
		}
		if err := c.pass(&c.write, n); err != nil {
			return written, err
		}
	}
	return written, nil
}

// allowed is how many of n bytes may pass in one piece; none when the fault is due.
func (d *direction) allowed(n int) int {
	if d.fault.Chunk > 0 {
		n = min(n, d.fault.Chunk)
	}
	if d.fault.Then != Nothing {
		n = int(min(int64(n), d.fault.After-d.passed))
	}
	return n
}

// pass counts n bytes, takes the time that they cost, and strikes if they were the last.
func (c *BreakableConn) pass(d *direction, n int) error {
	d.passed += int64(n)
	if due := d.passed >= d.fault.After; due && (d.fault.Then == Close || d.fault.Then == Reset) {
		return c.fail(d.fault.Then)
	}
	wait := d.fault.Pause
	if d.fault.BytesPerSecond > 0 {
		wait += time.Duration(n) * time.Second / time.Duration(d.fault.BytesPerSecond)
	}
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

// fail does what the fault says. A stalled direction blocks until someone closes the connection.
func (c *BreakableConn) fail(then Action) error {
	if then == Stall {
		<-c.closed
		return ErrBroken
	}
	if then == Reset {
		abort(c)
	}
	return errors.Join(ErrBroken, c.Close())
}

// CloseWrite ends the write direction alone, where the connection knows how to.
func (c *BreakableConn) CloseWrite() error { return closeWrite(c.Conn) }

// Close closes the connection and ends what stalls on it.
func (c *BreakableConn) Close() error {
	c.closeOnce.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// closeWrite sends a FIN while the other direction stays open, or closes a connection that cannot do that.
func closeWrite(conn net.Conn) error {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return conn.Close()
}

// abort makes the coming Close a reset on a TCP connection.
func abort(conn net.Conn) {
	if broken, ok := conn.(*BreakableConn); ok {
		conn = broken.Conn
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // The connection may be gone already.
	}
}
