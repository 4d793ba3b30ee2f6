package loop

import (
	"os"

	"golang.org/x/sys/unix"
)

// Small writes wait for the end of the turn, when all are made one after the other: what is written wakes its reader, which
// may take the processor at once, and a reader that several connections lead to then finds more to do each time that it is
// woken. That saves a twentieth of the processor time of a transaction and more of its latency (docs/performance.md).
const (
	shortWrite = 4 << 10  // bytes; longer writes are made at once, behind what waits for the same connection
	outboxSize = 64 << 10 // bytes that wait at most; the next write is made at once then
)

// outbox is what the connections of a loop send at the end of the turn that is under way.
type outbox struct {
	letters []letter
	bytes   []byte // of all letters, one behind the other; its array stays
}

// letter is what one connection sends. The connection is nil when the letter has been sent ahead of the others.
type letter struct {
	conn     *Conn
	from, to int // in outbox.bytes
}

// take accepts a and b, if they are short and there is room.
func (o *outbox) take(c *Conn, a, b []byte) bool {
	from, to := len(o.bytes), len(o.bytes)+len(a)+len(b)
	if to-from > shortWrite || to > cap(o.bytes) {
		return false
	}
	o.bytes = append(append(o.bytes, a...), b...)
	c.flags |= queued
	if n := len(o.letters); n > 0 && o.letters[n-1].conn == c {
		o.letters[n-1].to = to
		return true
	}
	o.letters = append(o.letters, letter{c, from, to})
	return true
}

// sendAll sends all letters. Owners are told of what went wrong, and what they write then is sent too.
func (l *Loop) sendAll() {
	o := &l.outbox
	for i := 0; i < len(o.letters); i++ { //nolint:intrange // Some are added meanwhile.
		c := o.letters[i].conn
		if c == nil {
			continue
		}
		c.flags &^= queued
		if err := c.mail(i); err != nil {
			c.discard(i + 1)
			c.flags |= bounced
			c.fail()
		} else if c.tail != nil {
			c.owner.Stuck()
		}
	}
	clear(o.letters) // They would keep closed connections alive.
	o.letters, o.bytes = o.letters[:0], o.bytes[:0]
}

// Flush sends at once what waits for the end of the turn. An error means that the connection is dead.
func (c *Conn) Flush() error {
	if c.flags&queued == 0 {
		return nil
	}
	c.flags &^= queued
	for i := range c.loop.outbox.letters {
		if c.loop.outbox.letters[i].conn != c {
			continue
		}
		if err := c.mail(i); err != nil {
			c.discard(i + 1)
			return err
		}
	}
	return nil
}

// mail sends a letter of the connection, which is in the outbox no longer then.
func (c *Conn) mail(i int) error {
	o := &c.loop.outbox
	e := o.letters[i]
	o.letters[i].conn = nil
	if c.flags&failed != 0 {
		return os.NewSyscallError("write", unix.EPIPE)
	}
	return c.send(o.bytes[e.from:e.to], nil)
}

// discard drops the connection's letters from a place on.
func (c *Conn) discard(from int) {
	for i := range c.loop.outbox.letters[from:] {
		if e := &c.loop.outbox.letters[from+i]; e.conn == c {
			e.conn = nil
		}
	}
}
