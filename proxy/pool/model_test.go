package pool

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// walk is a random walk through everything that sessions, loops, dials, servers, operators and time can do, one step
// after another, so that a seed repeats it (but for jitter). After each step the invariants of the package are checked.
type walk struct {
	*world
	rnd      *rand.Rand
	loopsN   int
	pools    []*Pool
	sessions []*session
	open     map[*bound]int // at the last check
	done     int            // connections used
}

func TestPool_randomWalk_keepsItsInvariants(t *testing.T) {
	seeds := uint64(50)
	if more, err := strconv.ParseUint(os.Getenv("PGSIDECAR_POOL_SEEDS"), 10, 64); err == nil {
		seeds = more
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newWalk(t, seed).run(400) })
		})
	}
}

func newWalk(t *testing.T, seed uint64) *walk {
	k := &walk{rnd: rand.New(rand.NewPCG(seed, 1)), open: make(map[*bound]int)}
	k.loopsN = 1 + k.rnd.IntN(3)
	k.world = newWorld(t, k.config())
	k.manual = make(chan error)
	k.unsafe = func() bool { return k.rnd.IntN(10) == 0 }
	for _, name := range []string{"a u", "a v", "b u", "c w"} {
		k.pools = append(k.pools, k.target.Pool(name[:1], name[2:]))
	}
	for i := range 12 {
		k.sessions = append(k.sessions, k.session(i+1, k.rnd.IntN(k.loopsN)))
	}
	return k
}

func (k *walk) config() Config {
	return Config{
		Loops: k.loopsN, MaxConnections: 1 + k.rnd.IntN(6), MaxPerDatabase: k.rnd.IntN(4), MaxPerUser: k.rnd.IntN(4),
		MinConnections: k.rnd.IntN(2), DialParallel: k.rnd.IntN(4), IdleTimeout: time.Duration(k.rnd.IntN(20)) * time.Second,
		MaxLifetime: time.Duration(k.rnd.IntN(60)) * time.Second, Hold: time.Duration(k.rnd.IntN(4)-1) * time.Second,
		Databases: map[string]int{"a": k.rnd.IntN(4)}, Users: map[string]int{"u": k.rnd.IntN(4)},
	}
}

func (k *walk) run(steps int) {
	for range steps {
		k.step()
		synctest.Wait()
		k.check()
		if k.t.Failed() {
			return
		}
	}
	k.calm()
}

// one picks one of those that fit.
func one[T any](r *rand.Rand, all []T, fits func(T) bool) (T, bool) {
	for _, i := range r.Perm(len(all)) {
		if fits(all[i]) {
			return all[i], true
		}
	}
	var none T
	return none, false
}

func (k *walk) step() {
	switch n := k.rnd.IntN(100); {
	case n < 25:
		k.begin()
	case n < 30:
		if s, ok := one(k.rnd, k.sessions, func(s *session) bool { return s.waiter.Waiting() }); ok {
			s.cancel()
		}
	case n < 50:
		k.finish()
	case n < 75:
		if l, ok := one(k.rnd, k.loops, func(l *fakeLoop) bool { return len(l.tasks) > 0 }); ok {
			l.runOne()
		}
	case n < 90:
		k.answerDial()
	case n < 94:
		unused := func(c *fakeConn) bool { return !c.closed.Load() && c.owner.Load() == 0 && c.loop.Load() != noLoop }
		if c, ok := one(k.rnd, k.conns, unused); ok {
			c.die()
		}
	case n < 97:
		<-time.After(time.Duration(k.rnd.IntN(3000)) * time.Millisecond)
	default:
		[]func(){
			func() { k.target.Recycle("reconnect") },
			func() { k.target.Reconfigure(k.config()) },
			k.target.Retry,
		}[k.rnd.IntN(3)]()
	}
}

func (k *walk) begin() {
	s, ok := one(k.rnd, k.sessions, func(s *session) bool { return s.conn == nil && !s.waiter.Waiting() })
	if !ok {
		return
	}
	p := k.pools[k.rnd.IntN(len(k.pools))]
	if k.rnd.IntN(6) > 0 {
		s.acquire(p)
		return
	}
	s.pool, s.err = p, nil
	p.AcquirePrivate(&s.waiter, s.id)
}

func (k *walk) finish() {
	s, ok := one(k.rnd, k.sessions, func(s *session) bool { return s.conn != nil })
	if !ok {
		return
	}
	if id := s.conn.private; id != nil && id != s.id {
		k.t.Errorf("session %d got the private connection of %v", s.id, id)
	}
	k.done++
	switch k.rnd.IntN(10) {
	case 0:
		s.abort()
	case 1: // closed, but the socket takes its time
		c := s.drop()
		c.slot.Closing()
		k.loops[s.loop].post(c.close)
	default:
		k.checkOrder(s.conn.slot.pool, s.release)
	}
}

// checkOrder checks that with one loop the oldest waiter gets what is given.
func (k *walk) checkOrder(p *Pool, release func() Verdict) {
	k.target.mu.Lock()
	first := p.waiting[shared].front()
	k.target.mu.Unlock()
	if verdict := release(); verdict == Give && k.loopsN == 1 && first.state == waiterQueued {
		k.t.Errorf("a release has passed over the oldest waiter")
	}
}

func (k *walk) answerDial() {
	var err error
	switch k.rnd.IntN(10) {
	case 0:
		err = errRefused
	case 1:
		err = serverError([]string{"53300", "57P03", "28P01"}[k.rnd.IntN(3)])
	}
	select {
	case k.manual <- err:
	default: // There is none.
	}
}

// calm stops all trouble: whoever waits is served, and nothing is left in the end.
func (k *walk) calm() {
	k.manual, k.unsafe = nil, nil
	k.answer(nil)
	k.target.Reconfigure(Config{MaxConnections: 1 + k.rnd.IntN(3)})
	k.target.Recycle("calm") // also ends dials that hang
	waits := true
	for turn := 0; waits; turn++ {
		if turn > 100 {
			k.t.Fatalf("somebody still waits")
		}
		k.pass(10 * time.Millisecond)
		waits = false
		for _, s := range k.sessions {
			if s.conn != nil {
				s.release()
			}
			waits = waits || s.waiter.Waiting()
		}
		synctest.Wait()
		k.check()
	}
	k.settle()
	stats := k.target.Stats()
	require.Zero(k.t, stats.Lent+stats.Closing+stats.Waiting+stats.Dialing)
	require.EqualValues(k.t, stats.Idle, k.world.open.Load())
	require.Equal(k.t, stats.Opened, sum(stats.Closed)+uint64(stats.Idle))
	k.target.Close()
	k.settle()
	require.Zero(k.t, k.world.open.Load())
	require.Zero(k.t, k.target.all.open)
	require.Zero(k.t, k.target.all.closing)
	for _, n := range k.target.load {
		require.Zero(k.t, n)
	}
}

func sum(counts map[string]uint64) uint64 {
	var n uint64
	for _, v := range counts {
		n += v
	}
	return n
}

// check holds the target against the package's invariants.
func (k *walk) check() {
	t := k.target
	t.mu.Lock()
	defer t.mu.Unlock()
	k.checkBounds()
	k.checkConns()
	k.checkWaiters()
	k.checkNobodyForgotten()
}

// checkBounds: what is counted is what there is, and no bound grows past its limit.
func (k *walk) checkBounds() {
	t := k.target
	open, closing := make(map[*bound]int), make(map[*bound]int)
	idle := 0
	for _, p := range t.list {
		live := 0
		for _, b := range p.bounds {
			open[b] += p.slots()
			closing[b] += p.count[slotClosing]
		}
		for _, c := range k.conns {
			if c.slot.pool == p && !c.slot.private && usable(c.slot.state) == 1 {
				live++
			}
		}
		require.Equal(k.t, live, p.live)
		idle += p.count[slotIdle]
	}
	require.Equal(k.t, idle, t.idle)
	for b, n := range open {
		require.Equal(k.t, n, b.open)
		require.Equal(k.t, closing[b], b.closing)
		if b.max > 0 && n > b.max && n > k.open[b] {
			k.t.Errorf("%d connections where %d are allowed and %d were", n, b.max, k.open[b])
		}
	}
	k.open = open
	require.EqualValues(k.t, t.all.open, k.world.open.Load(), "sockets")
}

// checkConns: each connection has one owner, and the pool knows which.
func (k *walk) checkConns() {
	t := k.target
	load := make([]int, len(t.load))
	k.conns = slices.DeleteFunc(k.conns, func(c *fakeConn) bool {
		return c.slot.state == slotClosed && c.closed.Load()
	})
	for _, c := range k.conns {
		s := &c.slot
		if s.loop != noLoop {
			load[s.loop]++
		}
		owned := c.owner.Load() != 0
		switch s.state {
		case slotClosed:
			k.must(false, "has a slot no more, but is open")
		case slotIdle:
			k.must(!owned && !c.closed.Load() && s.loop == c.loop.Load() && s.link.linked(), "idle, but not free for use")
		case slotLent:
			k.must(owned, "lent to nobody")
		case slotGranted:
			k.must(!owned && s.waiter.slot == s && s.waiter.state == waiterGranted, "granted, but its waiter knows nothing")
		case slotMoving:
			k.must(!owned && (s.waiter == nil || s.waiter.slot == s && s.waiter.state == waiterMoving), "moving astray")
		case slotAdopting, slotClosing:
			k.must(!owned && s.waiter == nil, "adopted or closing, but somebody has it")
		}
	}
	require.Equal(k.t, load, t.load)
}

// must is require.True without its cost.
func (k *walk) must(is bool, otherwise string) {
	if !is {
		k.t.Errorf("connection: %s", otherwise)
	}
}

// checkWaiters: each waiter is where its state says, and queues are in order.
func (k *walk) checkWaiters() {
	queued := 0
	for _, s := range k.sessions {
		w := &s.waiter
		require.Equal(k.t, w.Waiting(), w.state != waiterNone)
		require.Equal(k.t, w.state == waiterQueued, w.link.linked())
		if w.state == waiterQueued {
			queued++
		}
		if w.state == waiterDialing {
			require.Same(k.t, w, w.dial.waiter)
		}
		if s.conn != nil {
			require.False(k.t, w.Waiting())
		}
	}
	for _, p := range k.target.list {
		for kind := range demands {
			queued -= p.waiting[kind].n
			last := int64(-1)
			for w := range p.waiting[kind].all() {
				require.GreaterOrEqual(k.t, w.since, last)
				last = w.since
			}
		}
		require.Equal(k.t, p.waiters() > 0, p.link.linked())
		if p.waiting[shared].n > 0 {
			require.Zero(k.t, p.count[slotIdle], "a waiter beside an idle connection")
		}
	}
	require.Zero(k.t, queued)
}

// checkNobodyForgotten: nothing more can be done for anybody, unless Run is about to, or whoever closes a connection is.
func (k *walk) checkNobodyForgotten() {
	t := k.target
	if t.nextAt <= t.now() || t.all.closing > 0 {
		return
	}
	dials, later := t.dials.n, len(t.after)
	t.serve(t.now())
	require.Equal(k.t, dials, t.dials.n, "a dial was due")
	require.Len(k.t, t.after, later, "an eviction was due")
}
