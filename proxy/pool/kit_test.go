package pool

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a target with fake loops, whose tasks run when the test says so, and a dialer that does as it is told. It
// lives in a synctest bubble.
type world struct {
	t      testing.TB
	target *Target
	loops  []*fakeLoop

	mu     sync.Mutex
	script func(p *Pool, private any) error // what dials answer; nil: success
	manual chan error                       // non-nil: dials wait here for their answer
	gate   chan struct{}                    // non-nil: dials wait for it to be closed
	conns  []*fakeConn                      // every connection ever made
	dials  []time.Time                      // when attempts began
	unsafe func() bool                      // non-nil: whether a connection dies when it is to be moved
	open   atomic.Int32                     // sockets that the server sees, dials included
	peak   atomic.Int32                     // the most there have been
}

func newWorld(t testing.TB, c Config) *world {
	t.Helper()
	w := &world{t: t}
	w.target = NewTarget(c, w)
	for i := range max(c.Loops, 1) {
		w.loops = append(w.loops, &fakeLoop{index: i})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.target.Run(ctx) })
	t.Cleanup(func() {
		w.openGate()
		w.target.Close()
		w.settle()
		cancel()
		running.Wait()
	})
	return w
}

// inWorld runs a test in a bubble with a world.
func inWorld(t *testing.T, c Config, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, c)) })
}

// settle lets everything happen that needs no more time.
func (w *world) settle() {
	for again := true; again; {
		synctest.Wait()
		again = false
		for _, l := range w.loops {
			again = l.runAll() || again
		}
	}
}

// pass lets time go by and what it brings. Loops run their tasks once a second at least.
func (w *world) pass(d time.Duration) {
	for ; d > 0; d -= time.Second {
		<-time.After(min(d, time.Second))
		w.settle()
	}
}

func (w *world) answer(script func(p *Pool, private any) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.script = script
}

// shutGate makes dials hang until openGate.
func (w *world) shutGate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gate = make(chan struct{})
}

func (w *world) openGate() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gate != nil {
		close(w.gate)
		w.gate = nil
	}
}

// Dial implements Dialer.
func (w *world) Dial(ctx context.Context, p *Pool, private any) (Conn, error) {
	w.mu.Lock()
	gate, script, manual := w.gate, w.script, w.manual
	w.dials = append(w.dials, time.Now())
	w.mu.Unlock()
	now := w.open.Add(1)
	for peak := w.peak.Load(); now > peak && !w.peak.CompareAndSwap(peak, now); peak = w.peak.Load() {
	}
	if manual != nil {
		script = func(*Pool, any) error {
			select {
			case err := <-manual:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			w.open.Add(-1)
			return nil, ctx.Err()
		}
	}
	if script != nil {
		if err := script(p, private); err != nil {
			w.open.Add(-1)
			return nil, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &fakeConn{world: w, id: len(w.conns), private: private}
	c.loop.Store(noLoop)
	w.conns = append(w.conns, c)
	return c, nil
}

func (w *world) dialled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dials)
}

// fakeLoop is a queue of tasks.
type fakeLoop struct {
	index  int
	posted chan<- struct{} // non-nil: gets a token with each task if it has room
	mu     sync.Mutex
	tasks  []func()
}

func (l *fakeLoop) post(task func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tasks = append(l.tasks, task)
	select {
	case l.posted <- struct{}{}:
	default:
	}
}

// runOne runs the oldest task, if there is one.
func (l *fakeLoop) runOne() bool {
	l.mu.Lock()
	if len(l.tasks) == 0 {
		l.mu.Unlock()
		return false
	}
	task := l.tasks[0]
	l.tasks = l.tasks[1:]
	l.mu.Unlock()
	task()
	return true
}

func (l *fakeLoop) runAll() bool {
	ran := false
	for l.runOne() {
		ran = true
	}
	return ran
}

// fakeConn checks that one loop and one session at a time have it.
type fakeConn struct {
	slot    Slot
	world   *world
	id      int
	private any
	loop    atomic.Int32 // the loop it is attached to
	owner   atomic.Int64 // the session that has it; 0: none
	closed  atomic.Bool
	reason  atomic.Value // what Evict was told
}

func (c *fakeConn) Slot() *Slot { return &c.slot }

func (c *fakeConn) Evict(reason string) {
	c.reason.Store(reason)
	loop := c.loop.Load()
	if loop == noLoop {
		c.close()
		return
	}
	c.world.loops[loop].post(c.close)
}

// close is what the owner does; nobody may be using the connection.
func (c *fakeConn) close() {
	if c.owner.Load() != 0 {
		c.world.t.Errorf("connection %d closed while session %d has it", c.id, c.owner.Load())
	}
	if c.closed.CompareAndSwap(false, true) {
		c.world.open.Add(-1)
	}
	c.slot.Closed()
}

// die is what the loop does when the server has closed an unused connection.
func (c *fakeConn) die() {
	c.slot.Closing()
	c.close()
}

func (c *fakeConn) Move(to Grantee) {
	loop := c.loop.Load()
	if loop == noLoop {
		c.world.t.Errorf("move of connection %d, which is on no loop", c.id)
		return
	}
	c.world.loops[loop].post(func() {
		if c.closed.Load() {
			c.slot.MoveFailed()
			return
		}
		c.detach(int(loop))
		to.Granted()
	})
}

func (c *fakeConn) Adopt(loop int) {
	c.world.loops[loop].post(func() {
		c.attach(loop)
		c.world.release(c, loop)
	})
}

func (c *fakeConn) attach(loop int) {
	if !c.loop.CompareAndSwap(noLoop, int32(loop)) {
		c.world.t.Errorf("connection %d attached to loop %d while on %d", c.id, loop, c.loop.Load())
	}
}

func (c *fakeConn) detach(loop int) {
	if !c.loop.CompareAndSwap(int32(loop), noLoop) {
		c.world.t.Errorf("connection %d detached from loop %d while on %d", c.id, loop, c.loop.Load())
	}
}

// release does what a loop does with a clean connection.
func (w *world) release(c *fakeConn, loop int) Verdict {
	if on := c.loop.Load(); on != int32(loop) {
		w.t.Errorf("connection %d released by loop %d while on %d", c.id, loop, on)
	}
	verdict, to := c.slot.pool.Release(c)
	switch verdict {
	case Idle:
	case Close:
		c.close()
	case Give:
		if _, moves := to.(*Slot); moves {
			if w.unsafe != nil && w.unsafe() {
				c.close()
				break
			}
			c.detach(loop)
		}
		to.Granted()
	}
	return verdict
}

// session is a client that acquires and releases.
type session struct {
	world  *world
	id     int64
	loop   int
	pool   *Pool
	waiter Waiter
	conn   *fakeConn
	err    error
	grants int // Granted calls
}

func (w *world) session(id, loop int) *session {
	s := &session{world: w, id: int64(id), loop: loop}
	s.waiter.Init(s, loop)
	return s
}

// sessions makes n of them, numbered from 1, on loop 0.
func (w *world) sessions(n int) []*session {
	all := make([]*session, n)
	for i := range all {
		all[i] = w.session(i+1, 0)
	}
	return all
}

func (s *session) Granted() { s.world.loops[s.loop].post(s.take) }

func (s *session) take() {
	s.grants++
	c, err := s.waiter.Take()
	if err != nil {
		s.err = err
		return
	}
	if c != nil {
		s.use(c)
	}
}

// use takes a connection over.
func (s *session) use(c Conn) {
	f := c.(*fakeConn)
	if f.closed.Load() {
		s.world.t.Errorf("session %d got connection %d, which is closed", s.id, f.id)
	}
	if !f.owner.CompareAndSwap(0, s.id) {
		s.world.t.Errorf("session %d got connection %d, which session %d has", s.id, f.id, f.owner.Load())
	}
	if f.loop.Load() == noLoop {
		f.attach(s.loop)
	}
	if on := f.loop.Load(); on != int32(s.loop) {
		s.world.t.Errorf("session %d on loop %d got connection %d on loop %d", s.id, s.loop, f.id, on)
	}
	if s.conn != nil {
		s.world.t.Errorf("session %d has two connections", s.id)
	}
	s.conn = f
}

func (s *session) acquire(p *Pool) {
	s.pool, s.err = p, nil
	if c, ok := p.Acquire(&s.waiter); ok {
		s.use(c)
	}
}

func (s *session) drop() *fakeConn {
	c := s.conn
	s.conn = nil
	if !c.owner.CompareAndSwap(s.id, 0) {
		s.world.t.Errorf("session %d had connection %d, which session %d has", s.id, c.id, c.owner.Load())
	}
	return c
}

func (s *session) release() Verdict {
	return s.world.release(s.drop(), s.loop)
}

// abort is what a session does whose client has gone in a transaction.
func (s *session) abort() { s.drop().die() }

// cancel gives up and releases what has been granted already.
func (s *session) cancel() {
	if c := s.pool.Cancel(&s.waiter); c != nil {
		s.use(c)
		s.release()
	}
}

// serverError is what PostgreSQL answers to a login.
type serverError string

func (e serverError) Error() string    { return "server says " + string(e) }
func (e serverError) SQLState() string { return string(e) }

var errRefused = errors.New("connection refused")

func fails(err error) func(*Pool, any) error {
	return func(*Pool, any) error { return err }
}

// got is the sessions' connections by number; -1 for those without.
func got(all []*session) []int {
	ids := make([]int, len(all))
	for i, s := range all {
		ids[i] = -1
		if s.conn != nil {
			ids[i] = s.conn.id
		}
	}
	return ids
}

// fill has n sessions hold connections of p, dialled one after the other.
func (w *world) fill(p *Pool, n int) []*session {
	all := w.sessions(n)
	for _, s := range all {
		s.acquire(p)
		w.settle()
		require.NotNil(w.t, s.conn, "session %d: %v", s.id, s.err)
	}
	return all
}

// idle leaves n idle connections in p.
func (w *world) idle(p *Pool, n int) {
	for _, s := range w.fill(p, n) {
		s.release()
	}
}
