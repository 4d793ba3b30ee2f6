package loop

import "golang.org/x/sys/unix"

// Unreceived tells, when something that the peer has sent has been read (its end counts), whether the peer's TCP had received
// nothing of the last bytes written when it sent that. They were written by one Write, and are n bytes.
//
// Each TCP segment acknowledges all that its sender has received until then. So what is still not acknowledged when a segment has
// come was not there when that segment was sent. false means that it is not known: the acknowledgment may have come
// separately. Other sockets than TCP never tell.
func (c *Conn) Unreceived(n int) bool {
	if c.loop == nil || n <= 0 || c.tail != nil {
		return false
	}
	if domain, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain == unix.AF_UNIX {
		return false
	}
	// With TLS the kernel holds more than n bytes; no segment is so short that the difference would cover it.
	unacknowledged, err := unix.IoctlGetInt(int(c.fd), unix.SIOCOUTQ)
	return err == nil && unacknowledged >= n
}

// Unsend drops what has been written in this turn and waits for its end. It reports whether there was something.
func (c *Conn) Unsend() bool {
	if c.flags&queued == 0 {
		return false
	}
	c.flags &^= queued
	c.discard(0)
	return true
}

// Bounced tells whether what was written last could not be sent at the end of its turn. Whether a part of it was, if it was
// several writes, is not known.
func (c *Conn) Bounced() bool { return c.flags&bounced != 0 }
