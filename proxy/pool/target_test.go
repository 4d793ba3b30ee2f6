package pool

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTarget_zeroConfig_hasTheDefaults(t *testing.T) {
	c := Config{}.withDefaults()
	require.NotNil(t, c.Now)
	c.Now = nil
	require.Equal(t, Config{
		Loops: 1, MaxConnections: 20, IdleTimeout: 10 * time.Minute, MaxLifetime: time.Hour, Hold: 10 * time.Second,
		DialTimeout: 15 * time.Second, DialParallel: 2, BackoffMin: 50 * time.Millisecond, BackoffMax: 5 * time.Second,
	}, c)
}

func TestTarget_samePair_isOnePool(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		var group sync.WaitGroup
		found := make([]*Pool, 8)
		for i := range found {
			group.Go(func() { found[i] = w.target.Pool("db", "user") })
		}
		group.Wait()
		for _, p := range found {
			require.Same(t, found[0], p)
		}
		other := w.target.Pool("user", "db")
		require.NotSame(t, found[0], other)
		require.Equal(t, []*Pool{found[0], other}, slices.Collect(w.target.Pools()))
	})
}

func TestRecycle_replacesEveryConnection(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 3)
		held[1].release()
		w.target.Recycle("reconnect")
		w.settle()
		require.Equal(t, "reconnect", w.conns[1].reason.Load())
		require.True(t, w.conns[1].closed.Load())
		require.False(t, w.conns[0].closed.Load(), "lent ones go on until they are released")
		require.Equal(t, Close, held[0].release())
		next := w.session(9, 0)
		next.acquire(p)
		w.settle()
		require.Equal(t, Idle, next.release(), "a new one is not recycled")
		require.Equal(t, Close, held[2].release())
	})
}

func TestRecycle_dialInFlight_isBegunAnew(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		s, private := w.session(1, 0), w.session(2, 0)
		s.acquire(p)
		p.AcquirePrivate(&private.waiter, "mine")
		w.settle()
		require.Equal(t, 2, w.dialled())
		w.target.Recycle("reconnect")
		w.openGate()
		w.settle()
		require.NotNil(t, s.conn)
		require.NotNil(t, private.conn)
		require.Equal(t, "mine", private.conn.private)
		require.Equal(t, 4, w.dialled(), "no back-off")
		require.EqualValues(t, 2, w.peak.Load())
	})
}

func TestRecycle_dialSucceedsNevertheless_connectionIsDiscarded(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		once := sync.OnceFunc(func() { w.target.Recycle("reconnect") })
		w.answer(func(*Pool, any) error {
			once()
			return nil
		})
		s := w.session(1, 0)
		s.acquire(p)
		w.settle()
		require.Equal(t, 1, s.conn.id)
		require.True(t, w.conns[0].closed.Load())
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestRecycle_whileBackingOff_triesAtOnce(t *testing.T) {
	inWorld(t, Config{Hold: time.Hour}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(time.Minute)
		w.answer(nil)
		w.target.Recycle("new address")
		w.settle()
		require.NotNil(t, s.conn)
	})
}

func TestReconfigure_lowerLimit_closesIdleNowAndLentAtRelease(t *testing.T) {
	inWorld(t, Config{MaxConnections: 5}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 5)
		held[0].release()
		w.target.Reconfigure(Config{MaxConnections: 2})
		w.settle()
		require.True(t, w.conns[0].closed.Load())
		require.Equal(t, Close, held[1].release())
		require.Equal(t, Close, held[2].release())
		require.Equal(t, Idle, held[3].release())
		require.Equal(t, Idle, held[4].release())
		require.EqualValues(t, 3, p.Stats().Closed["limit"])
	})
}

func TestReconfigure_lowerDatabaseLimit_closesThereOnly(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		w.idle(a, 3)
		w.idle(b, 1)
		w.target.Reconfigure(Config{MaxPerDatabase: 1})
		w.settle()
		require.Equal(t, 1, a.Stats().Idle)
		require.Equal(t, 1, b.Stats().Idle)
		w.target.Reconfigure(Config{})
		w.idle(a, 3)
		require.Equal(t, 3, a.Stats().Idle)
	})
}

func TestReconfigure_limitOfOneDatabaseOrUser_goesBeforeTheGeneralOne(t *testing.T) {
	general := Config{MaxPerDatabase: 2, MaxPerUser: 4}
	own := general
	own.Databases, own.Users = map[string]int{"a": 3, "b": 0}, map[string]int{"v": 1}
	inWorld(t, own, func(t *testing.T, w *world) {
		a, b, v := w.target.Pool("a", "u"), w.target.Pool("b", "u"), w.target.Pool("c", "v")
		counts := func() [3]int { return [3]int{a.Stats().Idle, b.Stats().Idle, v.Stats().Idle} }
		limits := func(p *Pool) [2]int { return [2]int{p.Stats().MaxPerDatabase, p.Stats().MaxPerUser} }
		w.idle(a, 3)
		w.idle(v, 1)
		blocked := w.session(9, 0)
		held := w.fill(v, 1)[0]
		blocked.acquire(v)
		w.settle()
		require.Nil(t, blocked.conn)
		held.release()
		w.settle()
		blocked.release()
		require.Equal(t, [3]int{3, 0, 1}, counts())
		require.Equal(t, [2]int{3, 4}, limits(a))
		require.Equal(t, [2]int{2, 4}, limits(b), "0 says nothing")
		require.Equal(t, [2]int{2, 1}, limits(v))

		w.target.Reconfigure(general)
		w.settle()
		require.Equal(t, [3]int{2, 0, 1}, counts())
		w.target.Reconfigure(own)
		w.idle(a, 3)
		require.Equal(t, [3]int{3, 0, 1}, counts())
	})
}

func TestReconfigure_dialInFlightAboveTheLimit_isDiscarded(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.fill(p, 1)
		w.shutGate()
		s := w.session(9, 0)
		s.acquire(p)
		w.settle()
		w.target.Reconfigure(Config{MaxConnections: 1})
		w.openGate()
		w.settle()
		require.Nil(t, s.conn)
		require.EqualValues(t, 1, w.open.Load())
		require.EqualValues(t, 1, p.Stats().Closed["limit"])
	})
}

func TestReconfigure_higherLimit_servesWaiters(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.fill(p, 1)
		s := w.session(9, 0)
		s.acquire(p)
		w.target.Reconfigure(Config{MaxConnections: 2})
		w.settle()
		require.NotNil(t, s.conn)
	})
}

func TestReconfigure_shorterLifetime_holdsForOpenConnections(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		w.pass(time.Minute)
		w.target.Reconfigure(Config{MaxLifetime: 30 * time.Second})
		w.settle()
		require.EqualValues(t, 1, p.Stats().Closed["max_lifetime"])
	})
}

func TestClose_endsWaitersDialsAndConnections(t *testing.T) {
	inWorld(t, Config{MaxConnections: 4}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 2)
		held[0].release()
		w.shutGate()
		private, waiting, shared := w.session(5, 0), w.session(6, 0), w.session(7, 0)
		p.AcquirePrivate(&private.waiter, nil)
		shared.acquire(p) // takes the idle one
		waiting.acquire(p)
		w.settle()
		require.Equal(t, 2, p.Stats().Dialing)
		w.target.Close()
		w.target.Close()
		w.settle()
		require.ErrorIs(t, private.err, ErrClosed)
		require.ErrorIs(t, waiting.err, ErrClosed)
		require.Equal(t, Close, held[1].release())
		require.Equal(t, Close, shared.release())
		late := w.session(8, 0)
		late.acquire(p)
		w.settle()
		require.ErrorIs(t, late.err, ErrClosed)
		require.Zero(t, w.open.Load())
	})
}

func TestStats_countsWhatThereIs(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3, MaxPerUser: 3}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 3)
		s := w.session(9, 0)
		s.acquire(p)
		w.pass(time.Second)
		w.session(10, 0).acquire(p)
		w.pass(time.Second)
		held[0].drop().slot.Closing()
		got := p.Stats()
		require.EqualValues(t, 1, got.Closed["lost"])
		got.Closed = nil
		want := Stats{
			Database: "db", User: "user", Lent: 2, Closing: 1, Waiting: 2, OldestWait: 2 * time.Second,
			MaxConnections: 3, MaxPerUser: 3, Opened: 3, Acquires: 5, Waits: 5,
		}
		require.Equal(t, want, got)
		all := w.target.Stats()
		all.Closed, want.Database, want.User = nil, "", ""
		require.Equal(t, want, all)
		w.conns[0].close()
	})
}
