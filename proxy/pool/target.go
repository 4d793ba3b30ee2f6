package pool

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// Target bounds all connections to one PostgreSQL, over all its pools. Run looks after what time brings; whoever made
// the target calls Run once, in a goroutine of its own, and Close at the end.
type Target struct {
	dialer  Dialer
	wake    chan struct{}  // one token: Run shall look at nextAt again
	done    chan struct{}  // closed by Close
	running sync.WaitGroup // dials
	holding atomic.Bool    // held, without the lock

	mu         sync.Mutex // guards all below, and every pool, slot and waiter; nothing blocks under it
	config     Config
	closed     bool
	held       *HeldError // nothing is granted or dialled; nil: it is not so
	heldAt     int64      // since when
	generation uint32     // raised by Recycle
	pools      map[poolKey]*Pool
	list       []*Pool // the same, in the order in which they were made
	all        bound
	databases  map[string]*bound
	users      map[string]*bound
	dials      ring[dial] // in flight
	waiting    ring[Pool] // pools with waiters
	load       []int      // connections by loop
	idle       int        // idle connections of all pools
	needy      bool       // some pool's growth says so
	evictAt    int64      // when a connection that was too fresh to be evicted for a waiter no longer is
	nextAt     int64      // when Run wakes
	reaping    bool       // Run is awake and will look at nextAt by itself
	gone       totals     // of pools that have been retired
	after      []func()   // to be called as soon as the lock has been let go
}

type poolKey struct{ database, user string }

// NewTarget makes a target without connections; d makes them when they are asked for.
func NewTarget(c Config, d Dialer) *Target {
	c = c.withDefaults()
	t := &Target{
		dialer:    d,
		wake:      make(chan struct{}, 1),
		done:      make(chan struct{}),
		config:    c,
		pools:     make(map[poolKey]*Pool),
		databases: make(map[string]*bound),
		users:     make(map[string]*bound),
		load:      make([]int, c.Loops),
		evictAt:   never,
		nextAt:    never,
	}
	t.all.max = c.all()
	return t
}

// Pool finds the pool of that database and user, or makes it. The pool may be kept for as long as anybody likes.
func (t *Target) Pool(database, user string) *Pool {
	t.mu.Lock()
	defer t.unlock()
	p := t.pool(database, user)
	p.emptyAt = 0
	return p
}

// Pools yields the pools there are now, in the order in which they were made.
func (t *Target) Pools() iter.Seq[*Pool] {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Values(slices.Clone(t.list))
}

// Reconfigure puts new limits and times in force. Idle connections above a lowered limit are closed now, lent ones when
// they are released. Loops and Now stay as they are.
func (t *Target) Reconfigure(c Config) {
	t.mu.Lock()
	defer t.unlock()
	c.Loops, c.Now = t.config.Loops, t.config.Now
	t.config = c.withDefaults()
	t.all.max = t.config.all()
	for name, b := range t.databases {
		b.max = t.config.perDatabase(name)
	}
	for name, b := range t.users {
		b.max = t.config.perUser(name)
	}
	for t.trim() {
	}
	now := t.now()
	t.serve(now)
	t.alarm(now)
}

// trim evicts the connection that has been idle longest of those above a limit, if there is one.
func (t *Target) trim() bool {
	var victim *Slot
	for _, p := range t.list {
		if !p.over() {
			continue
		}
		for i := range p.idle {
			if s := p.idle[i].slots.back(); s != nil && (victim == nil || s.idleSince < victim.idleSince) {
				victim = s
			}
		}
	}
	if victim == nil {
		return false
	}
	victim.evict(reasonLimit, reasonLimit.String())
	return true
}

// Recycle has every connection replaced: idle ones are closed now, lent ones when they are released, and dials in flight
// are cancelled and begun anew. why is what the owners of the idle ones are told.
func (t *Target) Recycle(why string) {
	t.mu.Lock()
	defer t.unlock()
	t.generation++
	for _, p := range t.list {
		p.failure = failure{}
	}
	t.empty(reasonRecycled, why)
	t.serve(t.now())
}

// Retry ends the pauses between failing dials, for whoever has seen the server alive. Hold runs on.
func (t *Target) Retry() {
	t.mu.Lock()
	defer t.unlock()
	for _, p := range t.list {
		p.failure.delay, p.failure.retryAt = 0, 0
	}
	now := t.now()
	t.serve(now)
	t.alarm(now) // For MinConnections.
}

// empty closes all idle connections and cancels all dials.
func (t *Target) empty(why reason, detail string) {
	for _, p := range t.list {
		for i := range p.idle {
			for s := range p.idle[i].slots.all() {
				s.evict(why, detail)
			}
		}
	}
	for d := range t.dials.all() {
		d.cancel()
	}
}

// Close ends the target: waiters get ErrClosed, idle connections are closed now and lent ones when they are released. It
// waits for the dials in flight, but not for connections to close, and may be called again.
func (t *Target) Close() {
	t.close()
	t.running.Wait()
}

func (t *Target) close() {
	t.mu.Lock()
	defer t.unlock()
	if t.closed {
		return
	}
	t.closed = true
	close(t.done)
	for p := range t.waiting.all() {
		p.refuseAll(shared, ErrClosed)
		p.refuseAll(private, ErrClosed)
	}
	t.empty(reasonPoolClosed, reasonPoolClosed.String())
}

// pool finds or makes.
func (t *Target) pool(database, user string) *Pool {
	key := poolKey{database, user}
	if p := t.pools[key]; p != nil {
		return p
	}
	p := &Pool{
		target: t, database: database, user: user, idle: make([]idleRing, t.config.Loops),
		bounds: [3]*bound{
			&t.all,
			share(t.databases, database, t.config.perDatabase(database)),
			share(t.users, user, t.config.perUser(user)),
		},
	}
	t.pools[key] = p
	t.list = append(t.list, p)
	t.alarm(t.now() + int64(tick))
	return p
}

// share finds or makes the bound of that name for one more pool.
func share(bounds map[string]*bound, name string, limit int) *bound {
	b := bounds[name]
	if b == nil {
		b = &bound{max: limit}
		bounds[name] = b
	}
	b.pools++
	return b
}

// retire forgets a pool that has long been empty. Whoever still holds it is sent to its successor by Pool.current.
func (t *Target) retire(p *Pool) {
	p.retired = true
	delete(t.pools, poolKey{p.database, p.user})
	t.list = slices.DeleteFunc(t.list, func(q *Pool) bool { return q == p })
	if p.bounds[1].pools--; p.bounds[1].pools == 0 {
		delete(t.databases, p.database)
	}
	if p.bounds[2].pools--; p.bounds[2].pools == 0 {
		delete(t.users, p.user)
	}
	t.gone.add(&p.totals)
}

// quietestLoop is the one with the fewest connections.
func (t *Target) quietestLoop() int {
	quietest := 0
	for loop, n := range t.load {
		if n < t.load[quietest] {
			quietest = loop
		}
	}
	return quietest
}

func (t *Target) now() int64 { return t.config.Now() }

// refuse decides w, which is in no queue, and has its grantee told.
func (t *Target) refuse(w *Waiter, err error) {
	w.refuse(err)
	t.later(w.grantee.Granted)
}

// later has f called as soon as the lock is free: connections and grantees are never called under it.
func (t *Target) later(f func()) { t.after = append(t.after, f) }

// unlock lets go of the lock and makes the calls that have been put off.
func (t *Target) unlock() {
	after := t.after
	t.after = nil
	t.mu.Unlock()
	for _, f := range after {
		f()
	}
}
