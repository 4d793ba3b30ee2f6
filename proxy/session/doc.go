// Package session is one client from its login to its end: the state machine that links it to a server for each
// transaction and moves the bytes between the two.
//
// It does not authenticate, dial or decide how many servers there are. Everything here runs on a loop: a Session, the
// Server it is linked to and the Worker they share belong to one loop's goroutine, and nothing else touches them. What
// other goroutines want is posted.
//
// The invariants:
//   - What a server will answer is in its reply queue before the request is written.
//   - A server is released only when its queue is settled, its status is idle, nothing of the client is half forwarded,
//     no cancel request is under way and the session is not pinned.
//   - A server whose state is not known is closed, never lent again.
package session
