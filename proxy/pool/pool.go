// Package pool bounds the server connections to each target and shares them among sessions: acquire, release, waiters,
// lifetimes. It knows no sockets, no loops and no protocol.
//
// What always holds, at every moment that the lock is free:
//
//  1. Dialling, idle, lent, private and closing connections together never exceed MaxConnections, nor those of one
//     database or user their limits. A slot is taken before its dial begins and given back when the socket is gone.
//  2. A connection has exactly one owner: its dial, the idle ring of one loop, one session, or whoever closes it.
//  3. A waiter that has given up is never handed a connection.
//  4. Idle connections are LIFO per loop, waiters FIFO per pool (but see preferOwnLoop, which matters with several loops
//     only).
//  5. No pool has both an idle connection and a waiter that could use it; no waiter is left without a dial in flight, a
//     closing connection, or a lent one that its release would pass on, while there is room or an idle connection that
//     may be evicted. So nothing is polled and no wake-up is lost.
//  6. A dead connection's slot is free before its replacement is dialled.
//  7. Nothing blocks under the lock. Connections and grantees are called after it has been let go (Target.later).
//
// One lock a target guards its pools, slots and waiters, because the bound spans pools. Exported methods take it;
// unexported ones expect it to be held, unless they say otherwise.
package pool

import (
	"errors"
	"math"
	"sync/atomic"
)

const (
	never  = math.MaxInt64 // a time that does not come
	noLoop = -1
)

// ErrClosed is what waiters get from a target that has been closed.
var ErrClosed = errors.New("pool is closed")

// ErrUnavailable wraps the last dial's error when Hold has passed and the pool has no connection.
var ErrUnavailable = errors.New("server is unavailable")

// demand tells the two kinds of waiters apart.
type demand uint8

const (
	shared  demand = iota // any connection of the pool will do
	private               // a fresh one of its own
	demands
)

// Pool holds the connections of one database and user of a target. It is made by Target.Pool; nobody closes it.
type Pool struct {
	target         *Target
	database, user string
	bounds         [3]*bound // the target's, the database's, the user's

	idle    []idleRing // by loop
	waiting [demands]ring[Waiter]
	link    link[Pool] // in Target.waiting while anybody waits here

	count   [slotStates]int // slots by state; slotClosed is not meaningful
	live    int             // shared connections that waiters may hope for: idle, lent and on their way
	dialing [demands]int
	failure failure
	growth  growth
	totals  totals

	served  bool  // has had a connection: MinConnections holds
	retired bool  // no longer the target's pool of that name
	emptyAt int64 // when the reaper first found it without connections and waiters; 0: not so
}

// idleRing is the idle connections on one loop, the last one used in front. n is read without the lock.
type idleRing struct {
	slots ring[Slot]
	n     atomic.Int32
}

func (r *idleRing) push(s *Slot) {
	r.slots.pushFront(&s.link, s)
	r.n.Store(int32(r.slots.n))
	s.pool.target.idle++
}

func (r *idleRing) remove(s *Slot) {
	r.slots.remove(&s.link)
	r.n.Store(int32(r.slots.n))
	s.pool.target.idle--
}

// Verdict is what the caller of Release does with the connection.
type Verdict uint8

const (
	// Idle leaves it attached to its loop, unused. Its Evict or Move may be called even before Release returns.
	Idle Verdict = iota
	// Close has the caller close it and call Slot.Closed.
	Close
	// Give has assigned it to a waiter. The caller calls Granted of the Grantee that came with the verdict, after it has
	// detached the connection; it need not detach it when it knows the Grantee for one of its own loop. When that goes
	// wrong, it closes the connection and calls Slot.Closed instead.
	Give
)

// Acquire lends a connection. When one is idle on the waiter's loop, it is lent at once. Otherwise w is queued, or an
// idle connection of another loop sets out for it, and Granted of its grantee will be called. Called on w's loop.
func (p *Pool) Acquire(w *Waiter) (Conn, bool) {
	w.mustBeFree()
	t := p.target
	t.mu.Lock()
	p = p.current()
	p.totals.acquires++
	if s := p.idle[w.loop].slots.front(); s != nil && t.held == nil {
		s.become(slotLent)
		t.mu.Unlock()
		return s.conn, true
	}
	p.totals.waits++
	w.pool = p
	if s := p.idleElsewhere(); s != nil && t.held == nil {
		w.expect(s)
		t.mu.Unlock()
		s.conn.Move(s)
		return nil, false
	}
	p.queue(w)
	t.unlock()
	return nil, false
}

// AcquirePrivate asks for a fresh connection for w alone, as session mode and replication need it: the Dialer gets what
// is passed here, and Release will answer Close. w waits in the same order as the others for a slot, and Granted of its
// grantee will be called when the connection is there. Called on w's loop.
func (p *Pool) AcquirePrivate(w *Waiter, what any) {
	w.mustBeFree()
	t := p.target
	t.mu.Lock()
	defer t.unlock()
	p = p.current()
	p.totals.acquires++
	p.totals.waits++
	w.pool = p
	w.dial = &dial{kind: private, private: what, waiter: w}
	p.queue(w)
}

// Cancel gives up waiting. It returns the connection that had been granted already, or nil; the caller releases it, after
// attaching it when it is on no loop yet. A grant that another goroutine is about to announce may still arrive: Take then
// answers nil and nil. A waiter that does not wait is left alone. Called on w's loop.
func (p *Pool) Cancel(w *Waiter) Conn {
	p = w.pool
	if p == nil {
		return nil
	}
	t := p.target
	t.mu.Lock()
	defer t.unlock()
	switch w.state {
	case waiterGranted:
		c, _ := w.leave()
		return c
	case waiterQueued:
		p.dequeue(w)
	case waiterMoving:
		w.slot.waiter = nil
	case waiterDialing:
		w.dial.abandon()
	case waiterNone:
	}
	w.reset()
	return nil
}

// Ready reports, without the lock, whether an Acquire from that loop would probably be served at once.
func (p *Pool) Ready(loop int) bool {
	return p.idle[loop].n.Load() > 0 && !p.target.holding.Load()
}

// Release takes back a connection that is clean and attached to the caller's loop. It goes to the waiter that is next,
// unless it has to be closed. Called on the connection's loop, once for each time that it was lent or adopted.
func (p *Pool) Release(c Conn) (Verdict, Grantee) {
	s := c.Slot()
	p = s.pool
	t := p.target
	t.mu.Lock()
	defer t.unlock()
	switch s.state {
	case slotLent, slotAdopting:
	case slotClosing, slotClosed:
		return Close, nil
	case slotIdle, slotMoving, slotGranted:
		panic("pool: release of a connection that is not lent")
	}
	now := t.now()
	if why, ok := s.unfit(now); ok {
		s.retire(why)
		return Close, nil
	}
	w := p.nextWaiter(int(s.loop), now)
	if t.needy && t.yields(s, w) {
		s.retire(reasonEvicted)
		return Close, nil
	}
	if w == nil {
		s.idleSince = now
		s.become(slotIdle)
		t.serve(now) // Another pool may want its slot.
		return Idle, nil
	}
	p.dequeue(w)
	if w.loop == s.loop {
		w.grant(s)
		return Give, w.grantee
	}
	w.expect(s)
	return Give, s // The waiter is told when this loop has let go.
}

// current is the pool, or the one that has taken its place if it has been retired.
func (p *Pool) current() *Pool {
	if p.retired {
		p = p.target.pool(p.database, p.user)
	}
	p.emptyAt = 0
	return p
}

// idleElsewhere picks an idle connection from the loop that has the most of them.
func (p *Pool) idleElsewhere() *Slot {
	var most *idleRing
	for i := range p.idle {
		if r := &p.idle[i]; r.slots.n > 0 && (most == nil || r.slots.n > most.slots.n) {
			most = r
		}
	}
	if most == nil {
		return nil
	}
	return most.slots.front()
}

// queue puts w at the end and does what can be done for it.
func (p *Pool) queue(w *Waiter) {
	t := p.target
	if t.closed {
		t.refuse(w, ErrClosed)
		return
	}
	now := t.now()
	w.since = now
	p.failure.welcome(p, now)
	p.enqueue(w, false)
	if t.held != nil {
		p.expire(now)
	}
	t.serve(now)
}

// enqueue puts w at the end, or in front of all that came no earlier when it returns after its connection was lost.
func (p *Pool) enqueue(w *Waiter, returns bool) {
	q := &p.waiting[w.demand()]
	w.state, w.slot = waiterQueued, nil
	if returns {
		q.pushBefore(&w.link, w, func(x *Waiter) bool { return x.since >= w.since })
	} else {
		q.pushBack(&w.link, w)
	}
	if !p.link.linked() {
		p.target.waiting.pushBack(&p.link, p)
	}
}

// dequeue takes w out of the queue if it is there.
func (p *Pool) dequeue(w *Waiter) {
	if w.state != waiterQueued {
		return
	}
	p.waiting[w.demand()].remove(&w.link)
	if p.waiters() == 0 {
		p.target.waiting.remove(&p.link)
		p.growth = growth{}
	}
}

// requeue serves w anew, in its old place, after the connection that it was to have has been lost.
func (p *Pool) requeue(w *Waiter) {
	t := p.target
	if t.closed {
		t.refuse(w, ErrClosed)
		return
	}
	if w.demand() == shared && t.held == nil {
		if s := p.idle[w.loop].slots.front(); s != nil {
			w.grant(s)
			t.later(w.grantee.Granted)
			return
		}
		if s := p.idleElsewhere(); s != nil {
			w.expect(s)
			t.later(func() { s.conn.Move(s) })
			return
		}
	}
	p.enqueue(w, true)
}

func (p *Pool) waiters() int { return p.waiting[shared].n + p.waiting[private].n }

// nextWaiter is who gets a connection that is on the given loop: the oldest, or the oldest of that loop while the oldest of all
// has hardly waited.
func (p *Pool) nextWaiter(loop int, now int64) *Waiter {
	first := p.waiting[shared].front()
	if p.target.held != nil {
		return nil
	}
	if first == nil || loop == noLoop || first.loop == int32(loop) || now-first.since >= int64(preferOwnLoop) {
		return first
	}
	for w := range p.waiting[shared].all() {
		if w.loop == int32(loop) {
			return w
		}
	}
	return first
}

// alive keeps the number of shared connections. When the last one goes while dials fail, Hold begins.
func (p *Pool) alive(change int) {
	p.live += change
	if change < 0 && p.live == 0 {
		p.failure.bereave(p)
	}
}
