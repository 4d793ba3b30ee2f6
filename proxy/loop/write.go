package loop

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Write writes b by one system call, a short one at the end of the turn (see Flush). What the socket does not take is copied
// to a tail that the loop writes when it can; Drained follows. An error means that the connection is dead; that of a write
// at the end of the turn comes as a hangup.
func (c *Conn) Write(b []byte) error { return c.Write2(b, nil) }

// Write2 writes a and then b as one Write would.
func (c *Conn) Write2(a, b []byte) error {
	switch {
	case c.loop == nil:
		return net.ErrClosed
	case c.flags&failed != 0:
		return os.NewSyscallError("write", unix.EPIPE)
	case len(a)+len(b) == 0:
		return nil
	case c.socket != nil:
		return c.writeTLS(a, b)
	}
	return c.submit(a, b)
}

// submit gives a and b to the outbox, if it takes them, and else to the socket.
func (c *Conn) submit(a, b []byte) error {
	if c.tail == nil && c.loop.outbox.take(c, a, b) {
		return nil
	}
	if err := c.Flush(); err != nil {
		return err
	}
	return c.send(a, b)
}

// Blocked reports whether a tail is pending. Its owner must not read from where the bytes come from meanwhile.
func (c *Conn) Blocked() bool { return c.tail != nil }

// Pending returns the length of the tail in bytes.
func (c *Conn) Pending() int {
	if c.tail == nil {
		return 0
	}
	return len(c.tail.rest())
}

// writeTLS makes records of a and b and sends them by one system call.
func (c *Conn) writeTLS(a, b []byte) error {
	_, err := c.socket.tls.Write(a)
	if err == nil && len(b) > 0 {
		_, err = c.socket.tls.Write(b)
	}
	if werr := c.flushRecords(); werr != nil {
		return werr
	}
	return err
}

// flushRecords sends what crypto/tls has written during the call that is under way (see Socket.Write).
func (c *Conn) flushRecords() error {
	l := c.loop
	if len(l.records) == 0 {
		return nil
	}
	err := c.submit(l.records, nil)
	l.records = l.records[:0]
	if cap(l.records) > 4*len(l.scratch) {
		l.records = nil
	}
	return err
}

// send gives a and b to the socket, behind the tail if there is one.
func (c *Conn) send(a, b []byte) error {
	if c.tail != nil {
		c.tail.append(a, b)
		return nil
	}
	n, errno := c.writeSocket(a, b)
	if errno != 0 && errno != unix.EAGAIN {
		return os.NewSyscallError("write", errno)
	}
	left := len(a) + len(b) - n
	if left == 0 {
		return nil
	}
	c.tail = c.loop.newTail(left)
	if n < len(a) {
		c.tail.append(a[n:], b)
	} else {
		c.tail.append(b[n-len(a):], nil)
	}
	return c.watch()
}

// writeSocket makes the system call; either part may be empty.
func (c *Conn) writeSocket(a, b []byte) (int, unix.Errno) {
	c.loop.writes.Add(1)
	switch {
	case len(b) == 0:
		return write(c.fd, a)
	case len(a) == 0:
		return write(c.fd, b)
	}
	return writev(c.fd, &c.loop.poller.spans, a, b)
}

// watch makes the poller report when the socket can be written. It stays so until an event finds no tail (see writable),
// so that a stream to a slow peer does not pay for it each time.
func (c *Conn) watch() error {
	if c.flags&watching != 0 {
		return nil
	}
	c.flags |= watching
	return os.NewSyscallError("epoll_ctl", c.loop.poller.modify(c.event()))
}

// writable writes the tail, as the poller has reported that there is room.
func (c *Conn) writable() {
	if c.tail == nil {
		if c.flags&watching != 0 {
			c.flags &^= watching
			_ = c.loop.poller.modify(c.event()) // At worst it goes on reporting.
		}
		return
	}
	n, errno := c.writeSocket(c.tail.rest(), nil)
	switch {
	case errno == unix.EAGAIN:
		return
	case errno != 0:
		c.fail()
	case n < len(c.tail.rest()):
		c.tail.sent += n
	default:
		c.dropTail()
		if c.flags&finishing != 0 {
			_ = c.shutdown() // A peer that is gone already is found by reading.
		}
		c.owner.Drained()
	}
}

// fail tells the owner of a failure to write that no call of its own can return: Read will, after what is left to read.
func (c *Conn) fail() {
	c.dropTail()
	c.flags |= failed | unread
	c.owner.Readable(true)
}

func (c *Conn) dropTail() {
	c.loop.recycle(c.tail)
	c.tail = nil
}

// tail is what a connection still has to write.
type tail struct {
	buf  []byte
	sent int // How much of buf has been written.
}

func (t *tail) rest() []byte { return t.buf[t.sent:] }

// append adds a and b, after making room from what has been sent if that is most of the buffer.
func (t *tail) append(a, b []byte) {
	if t.sent > len(t.buf)/2 {
		t.buf = t.buf[:copy(t.buf, t.rest())]
		t.sent = 0
	}
	t.buf = append(append(t.buf, a...), b...)
}

// A loop keeps a few tails of blocked connections for the next ones, so that a stream to a slow peer does not allocate.
// Short ones are not worth it: a spare would hold on to more than it serves.
const (
	maxSpare  = 8
	shortTail = 4 << 10
)

// newTail returns an empty tail for that many bytes.
func (l *Loop) newTail(size int) *tail {
	if n := len(l.spare); n > 0 && size > shortTail {
		t := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return t
	}
	return &tail{buf: make([]byte, 0, size)}
}

// recycle takes back a tail that nobody needs any more; it may be nil.
func (l *Loop) recycle(t *tail) {
	if t == nil || cap(t.buf) <= shortTail || cap(t.buf) > 2*len(l.scratch) || len(l.spare) == maxSpare {
		return
	}
	t.buf, t.sent = t.buf[:0], 0
	l.spare = append(l.spare, t)
}
