package pool

// Grantee is told that its waiter has been decided.
type Grantee interface {
	// Granted is called from any goroutine, never under the lock. It only schedules a task on the grantee's loop, which
	// calls Waiter.Take there.
	Granted()
}

// Waiter is a session's place in a pool. It is embedded by value in the session and used again for every acquire, one at
// a time. The session's loop goroutine calls its methods; the pool changes it under the target's lock.
type Waiter struct {
	grantee Grantee
	pool    *Pool // non-nil from Acquire to Take or Cancel; only the session's loop reads or writes it

	link  link[Waiter] // in the pool's queue while waiterQueued
	slot  *Slot        // waiterMoving, waiterGranted: the connection assigned
	dial  *dial        // a private waiter's own dial
	err   error        // waiterGranted without a slot: why there is none
	since int64        // when it was queued; its place in the order
	loop  int32
	state waiterState
}

type waiterState uint8

const (
	waiterNone    waiterState = iota
	waiterQueued              // in its pool's queue
	waiterMoving              // assigned to a slot that is still on another loop
	waiterDialing             // private: its dial is in flight
	waiterGranted             // decided: slot or err is set; Take or Cancel is next
)

// Init prepares a waiter for the session g on the given loop. A session that has moved to another loop calls it again.
func (w *Waiter) Init(g Grantee, loop int) {
	*w = Waiter{grantee: g, loop: int32(loop)}
}

// Waiting reports whether an acquire is under way, that is, whether Cancel is due before the session ends.
func (w *Waiter) Waiting() bool { return w.pool != nil }

// mustBeFree catches a session that acquires twice: it would lose a connection.
func (w *Waiter) mustBeFree() {
	if w.pool != nil {
		panic("pool: acquire with a waiter that is still waiting")
	}
}

// Take fetches what Granted announced: the connection, or why there is none (ErrClosed, ErrUnavailable around the dial's
// error, or the server's own error). The connection is on the session's loop or on none, and then the session attaches
// it. Nil and nil mean that nothing has been decided: Granted came late, for an acquire that was cancelled, or the
// connection has died in the meantime and the waiter has its old place again. The session then goes on as before.
func (w *Waiter) Take() (Conn, error) {
	p := w.pool
	if p == nil {
		return nil, nil
	}
	t := p.target
	t.mu.Lock()
	defer t.unlock()
	if w.state != waiterGranted {
		return nil, nil
	}
	if s := w.slot; s != nil && s.generation != t.generation {
		s.evict(reasonRecycled, reasonRecycled.String()) // It was recycled on its way; w has its old place again.
		return nil, nil
	}
	return w.leave()
}

// leave ends a granted wait and makes its connection the session's.
func (w *Waiter) leave() (Conn, error) {
	s, err := w.slot, w.err
	w.reset()
	if s == nil {
		return nil, err
	}
	s.waiter = nil
	s.become(slotLent)
	return s.conn, nil
}

// reset makes the waiter ready for the next acquire.
func (w *Waiter) reset() {
	w.pool, w.slot, w.dial, w.err, w.state = nil, nil, nil, nil, waiterNone
}

// grant decides w: it gets s. The caller sees to it that the grantee is told.
func (w *Waiter) grant(s *Slot) {
	w.state, w.slot, s.waiter = waiterGranted, s, w
	s.settle(int(w.loop))
	s.become(slotGranted)
}

// expect assigns s, which is still on another loop, to w.
func (w *Waiter) expect(s *Slot) {
	w.state, w.slot, s.waiter = waiterMoving, s, w
	s.become(slotMoving)
}

func (w *Waiter) demand() demand {
	if w.dial != nil {
		return private
	}
	return shared
}

// refuse decides w: there is no connection for it, because of err.
func (w *Waiter) refuse(err error) {
	w.state, w.err = waiterGranted, err
}
