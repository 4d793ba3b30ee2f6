// Package loop runs event loops over non-blocking connections, plain and TLS: a connection costs no goroutine, no buffer
// and no lock while it is idle, and no allocation while bytes pass. It knows nothing of PostgreSQL, of pools or of what
// the bytes mean; it neither dials nor accepts nor shakes hands, which the slow path does with ordinary goroutines.
//
// The invariant is ownership. A Conn belongs to the one loop that it is attached to, and only that loop's goroutine (the
// one in Run) touches it: it alone reads, writes, arms timers and closes. Everybody else says what is to be done with
// Post. A descriptor therefore has one owner at a time, in this order:
//
//   - the net.Conn that was accepted or dialled, until Take;
//   - the Transport that Take or Detach returned, until Attach or its Close; whoever holds it must do one of the two, once;
//   - the Conn, until its Close, its Detach, or the end of Run, which closes what is still attached.
//
// Readiness is edge-triggered. An event sets a flag on the Conn that only a read which found less than it asked for takes
// back, so the owner may leave bytes in the kernel for as long as it likes (see Conn.Unread), and no read is wasted on
// finding out that there is nothing. The one thing that would fool the flag is TCP urgent data, which ends a read early;
// PostgreSQL's protocol has none, and a peer that sends it delays nobody but itself.
package loop
