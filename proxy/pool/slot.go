package pool

import "time"

// Conn is a server connection as the pool sees it. A dialled connection is on no loop until somebody attaches it: the
// session that it is granted to, or the loop that Adopt names. From then on only that loop uses and closes it.
type Conn interface {
	// Slot is the pool's bookkeeping, embedded by value in the connection. One slot serves one connection, once.
	Slot() *Slot
	// Evict asks the owning loop to close the connection, and closes it at once when no loop has attached it yet.
	// Slot().Closed() follows. Called once at most, from any goroutine, never under the lock, only while nobody uses the
	// connection; when that has closed meanwhile, there is nothing to do.
	Evict(reason string)
	// Move asks the owning loop to detach the idle connection and then to call to.Granted(); when the connection has
	// died meanwhile, Slot().MoveFailed(). Called from any goroutine, never under the lock.
	Move(to Grantee)
	// Adopt asks the given loop to attach the connection, which is on no loop, and then to Release it. It is there
	// because a dial outlives the client that caused it, so that a connection may arrive that nobody waits for.
	Adopt(loop int)
}

// Slot is a connection's place under the bound, taken when its dial begins and given back by Closed. Everything in it is
// guarded by the target's lock.
type Slot struct {
	pool       *Pool
	conn       Conn
	waiter     *Waiter    // slotMoving, slotGranted: who gets it
	link       link[Slot] // in its loop's idle ring while slotIdle
	created    int64
	idleSince  int64
	generation uint32  // Target.generation when its dial began
	jitter     float32 // how much of the last tenth of MaxLifetime it does without: [0, 1)
	loop       int32   // the loop it is on or goes to; -1: none
	state      slotState
	private    bool // dialled for one waiter: never lent to another
}

type slotState uint8

const (
	slotClosed   slotState = iota // has no place under the bound: not dialled yet, or gone
	slotIdle                      // in the idle ring of its loop
	slotMoving                    // being detached from its loop; then it is granted to its waiter, if that still waits
	slotAdopting                  // on its way to a loop, which will release it
	slotGranted                   // its waiter has been told and has not taken it yet
	slotLent                      // a session has it
	slotClosing                   // of no more use, yet still counted

	slotStates = int(slotClosing) + 1
)

// Closing says that the connection is broken or being closed. It still counts against the bound, and its owner calls
// Closed in the end. A waiter to which it was assigned, but which has not taken it, has its place in the queue again.
// Any later call does nothing. Called on the connection's loop.
func (s *Slot) Closing() {
	if s.pool == nil {
		return
	}
	t := s.pool.target
	t.mu.Lock()
	defer t.unlock()
	s.retire(reasonLost)
	t.serve(t.now()) // The waiter that it was assigned to may need another.
}

// Closed says that the connection is gone, socket and all. Its slot is free, and whoever has waited longest and may grow
// gets a dial. Any later call does nothing.
func (s *Slot) Closed() {
	if s.pool == nil {
		return
	}
	t := s.pool.target
	t.mu.Lock()
	defer t.unlock()
	if s.state == slotClosed {
		return
	}
	s.retire(reasonLost)
	s.become(slotClosed)
	s.settle(noLoop)
	for _, b := range s.pool.bounds {
		b.open--
		b.closing--
	}
	t.serve(t.now())
}

// MoveFailed answers Conn.Move for a connection that has died meanwhile: what Closing does, if that has not come first.
// Closed follows, unless it has been called already.
func (s *Slot) MoveFailed() { s.Closing() }

// Granted makes the slot the Grantee of its own move, so that the pool learns when the old loop has let go: the waiter
// may have given up meanwhile, and until this moment nobody else may touch the connection.
func (s *Slot) Granted() {
	t := s.pool.target
	t.mu.Lock()
	if s.state != slotMoving {
		t.unlock()
		return
	}
	w := s.waiter
	if w == nil {
		s.adopt()
		t.unlock()
		return
	}
	w.grant(s)
	grantee := w.grantee // The waiter may be another's as soon as the lock is free.
	t.unlock()
	grantee.Granted()
}

// adopt sends a connection that nobody waits for to the loop with the fewest.
func (s *Slot) adopt() {
	t := s.pool.target
	loop := t.quietestLoop()
	s.settle(loop)
	s.become(slotAdopting)
	t.later(func() { s.conn.Adopt(loop) })
}

// retire takes the connection out of use. A waiter that has not taken it yet waits on.
func (s *Slot) retire(why reason) {
	if s.state == slotClosing || s.state == slotClosed {
		return
	}
	w := s.waiter
	s.waiter = nil
	s.condemn(why)
	if w != nil {
		s.pool.requeue(w)
	}
}

// condemn counts the connection as closing.
func (s *Slot) condemn(why reason) {
	s.become(slotClosing)
	for _, b := range s.pool.bounds {
		b.closing++
	}
	s.pool.totals.closed[why]++
}

// evict closes a connection that no session has. detail is what its owner is told.
func (s *Slot) evict(why reason, detail string) {
	s.retire(why)
	s.pool.target.later(func() { s.conn.Evict(detail) })
}

// unfit says why the connection must not be lent once more.
func (s *Slot) unfit(now int64) (reason, bool) {
	t := s.pool.target
	switch {
	case t.closed:
		return reasonPoolClosed, true
	case s.private:
		return reasonPrivate, true
	case s.generation != t.generation:
		return reasonRecycled, true
	case now >= s.expires(t.config.MaxLifetime):
		return reasonLifetime, true
	case s.pool.over():
		return reasonLimit, true
	}
	return 0, false
}

// expires is when the connection has reached its share of the lifetime.
func (s *Slot) expires(lifetime time.Duration) int64 {
	if lifetime < 0 {
		return never
	}
	return s.created + int64(lifetime) - int64(float64(lifetime)/10*float64(s.jitter))
}

// become changes the state and keeps what is counted by it.
func (s *Slot) become(to slotState) {
	p := s.pool
	if s.state == slotIdle {
		p.idle[s.loop].remove(s)
	}
	p.count[s.state]--
	p.count[to]++
	if !s.private {
		p.alive(usable(to) - usable(s.state))
	}
	s.state = to
	if to == slotIdle {
		p.idle[s.loop].push(s)
	}
}

// usable is 1 for the states of a connection that waiters may hope for.
func usable(state slotState) int {
	if state == slotClosed || state == slotClosing {
		return 0
	}
	return 1
}

// settle notes the loop that the connection is on or goes to.
func (s *Slot) settle(loop int) {
	load := s.pool.target.load
	if s.loop >= 0 {
		load[s.loop]--
	}
	if loop >= 0 {
		load[loop]++
	}
	s.loop = int32(loop)
}
