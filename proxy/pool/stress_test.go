package pool

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stress runs sessions on real goroutines, one a loop, as fast as they can, for the race detector and the owner's
// compare-and-swap in fakeConn.
type stress struct {
	*world
	pools   []*Pool
	pending sync.WaitGroup // sessions that have rounds left
	served  atomic.Int64
}

// stressLoop runs a fakeLoop's tasks until told to stop.
type stressLoop struct {
	*fakeLoop
	wake chan struct{}
	stop chan struct{}
}

func (l *stressLoop) run() {
	for {
		for l.runOne() {
		}
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
	}
}

func TestPool_realGoroutines_noConnectionIsLentTwice(t *testing.T) {
	const sessions, rounds, limit = 24, 400, 5
	x := &stress{world: &world{t: t, unsafe: func() bool { return rand.IntN(20) == 0 }}}
	x.script = func(*Pool, any) error {
		if rand.IntN(10) == 0 {
			return errRefused
		}
		return nil
	}
	x.target = NewTarget(Config{
		Loops: 3, MaxConnections: limit, MaxPerUser: 4, MinConnections: 1, Hold: time.Minute,
		BackoffMin: time.Microsecond, BackoffMax: time.Millisecond, MaxLifetime: 20 * time.Millisecond,
	}, x.world)
	var running, reaper sync.WaitGroup
	stop := make(chan struct{})
	for i := range 3 {
		l := &stressLoop{fakeLoop: &fakeLoop{index: i}, wake: make(chan struct{}, 1), stop: stop}
		l.posted = l.wake
		x.loops = append(x.loops, l.fakeLoop)
		running.Go(l.run)
	}
	reaper.Go(func() { x.target.Run(t.Context()) })
	for _, name := range []string{"a u", "b u", "c w"} {
		x.pools = append(x.pools, x.target.Pool(name[:1], name[2:]))
	}
	for i := range sessions {
		x.pending.Add(1)
		s := &stressSession{session: x.session(i+1, i%3), stress: x, rounds: rounds}
		s.waiter.Init(s, s.loop)
		x.loops[s.loop].post(s.next)
	}
	x.pending.Wait()
	x.target.Close()
	reaper.Wait()
	close(stop)
	running.Wait()
	for _, l := range x.loops {
		l.runAll()
	}
	require.Zero(t, x.open.Load())
	require.LessOrEqual(t, x.peak.Load(), int32(limit))
	require.Zero(t, x.target.Stats().Lent+x.target.Stats().Closing+x.target.Stats().Idle)
	require.Greater(t, x.served.Load(), int64(sessions*rounds/2))
}

// stressSession acquires and releases until it has no rounds left. All its methods but Granted run on its loop.
type stressSession struct {
	*session
	stress *stress
	rounds int
	turn   int // numbers the acquires, so that a task for an earlier one does nothing
}

func (s *stressSession) post(task func()) { s.world.loops[s.loop].post(task) }

func (s *stressSession) Granted() {
	s.post(func() {
		if s.waiter.Waiting() {
			s.take()
			if s.conn != nil || s.err != nil {
				s.settled()
			}
		}
	})
}

func (s *stressSession) next() {
	if s.rounds == 0 {
		s.stress.pending.Done()
		return
	}
	s.rounds--
	s.turn++
	p := s.stress.pools[rand.IntN(len(s.stress.pools))]
	s.pool, s.err = p, nil
	switch rand.IntN(60) {
	case 0:
		s.world.target.Recycle("stress")
	case 1:
		s.world.target.Retry()
	case 2, 3, 4:
		p.AcquirePrivate(&s.waiter, s.id)
	default:
		s.acquire(p)
	}
	switch turn := s.turn; {
	case s.conn != nil:
		s.settled()
	case !s.waiter.Waiting():
		s.post(s.next)
	case rand.IntN(8) == 0:
		s.post(func() {
			if s.turn == turn && s.waiter.Waiting() {
				s.cancel()
				s.post(s.next)
			}
		})
	}
}

// settled uses what has been acquired, for a while in which others run.
func (s *stressSession) settled() {
	if s.err != nil {
		s.err = nil
		s.post(s.next)
		return
	}
	s.turn++
	s.stress.served.Add(1)
	s.post(func() {
		c := s.conn
		switch {
		case rand.IntN(20) == 0:
			s.abort()
		case s.release() == Idle && rand.IntN(20) == 0 && !c.closed.Load() && c.loop.Load() == int32(s.loop):
			c.die() // The server closes it. It may already be on its way elsewhere.
		}
		s.post(s.next)
	})
}
