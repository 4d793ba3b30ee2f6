package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRun_idleTimeout_closesUnusedConnections(t *testing.T) {
	inWorld(t, Config{IdleTimeout: time.Minute}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 2)
		held[0].release()
		w.pass(30 * time.Second)
		held[1].release()
		w.pass(30 * time.Second)
		require.Equal(t, 1, p.Stats().Idle)
		require.Equal(t, "idle_timeout", w.conns[0].reason.Load())
		w.pass(30 * time.Second)
		require.Equal(t, 0, p.Stats().Idle)
		require.Zero(t, w.open.Load())
	})
}

func TestRun_idleTimeout_leavesMinConnections(t *testing.T) {
	inWorld(t, Config{IdleTimeout: time.Minute, MinConnections: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 5)
		w.pass(time.Hour / 2)
		require.Equal(t, 2, p.Stats().Idle)
		require.EqualValues(t, 3, p.Stats().Closed["idle_timeout"])
		require.EqualValues(t, 0, p.Stats().Closed["max_lifetime"])
	})
}

func TestRun_negativeTimes_closeNothing(t *testing.T) {
	inWorld(t, Config{IdleTimeout: -1, MaxLifetime: -1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 2)
		w.pass(2 * time.Hour)
		require.Equal(t, 2, p.Stats().Idle)
		w.idle(p, 1)
	})
}

func TestRun_maxLifetime_endsEachInTheLastTenth(t *testing.T) {
	inWorld(t, Config{MaxConnections: 50, MaxLifetime: 100 * time.Second, IdleTimeout: -1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 50)
		w.pass(90*time.Second - time.Millisecond)
		require.Equal(t, 50, p.Stats().Idle)
		w.pass(5 * time.Second)
		left := p.Stats().Idle
		require.Greater(t, left, 5, "they do not end together")
		require.Less(t, left, 45)
		w.pass(5*time.Second + 2*time.Millisecond)
		require.Equal(t, 0, p.Stats().Idle)
		require.EqualValues(t, 50, p.Stats().Closed["max_lifetime"])
	})
}

func TestRelease_pastMaxLifetime_closes(t *testing.T) {
	inWorld(t, Config{MaxLifetime: 100 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 2)
		w.pass(89 * time.Second)
		require.Equal(t, Idle, held[0].release())
		held[0].acquire(p)
		w.pass(11 * time.Second)
		require.Equal(t, Close, held[0].release())
		require.Equal(t, Close, held[1].release())
	})
}

func TestRun_minConnections_areKeptOnceThePoolHasServed(t *testing.T) {
	inWorld(t, Config{MinConnections: 3}, func(t *testing.T, w *world) {
		p, unused := w.target.Pool("db", "user"), w.target.Pool("other", "user")
		w.pass(time.Minute)
		require.Zero(t, w.dialled())
		w.idle(p, 1)
		w.pass(2 * time.Second)
		require.Equal(t, 3, p.Stats().Idle)
		require.Zero(t, unused.Stats().Opened)
		w.conns[0].die()
		w.pass(2 * time.Second)
		require.Equal(t, 3, p.Stats().Idle)
	})
}

func TestRun_minConnectionsAfterEverybodyGaveUp_areKept(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1, DialParallel: 1, MinConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		closing := w.fill(p, 1)[0].drop()
		closing.slot.Closing()
		s := w.session(9, 0)
		s.acquire(p) // is promised the slot
		s.cancel()
		closing.close()
		w.pass(2 * time.Second)
		require.Equal(t, 1, p.Stats().Idle)
	})
}

// PgBouncer evicted connections of other pools to satisfy min_pool_size (#648).
func TestRun_minConnections_evictNothing(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3, MinConnections: 2}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		w.idle(a, 1)
		w.idle(b, 1)
		w.pass(time.Minute)
		require.Equal(t, 3, a.Stats().Idle+b.Stats().Idle)
		require.EqualValues(t, 0, w.target.Stats().Closed["evicted"])
	})
}

func TestRun_minConnectionsOfOthers_makeRoomForWaiters(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2, MinConnections: 2}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		w.idle(a, 1)
		w.pass(time.Minute)
		require.Equal(t, 2, a.Stats().Idle)
		s := w.session(9, 0)
		s.acquire(b)
		w.settle()
		require.NotNil(t, s.conn)
	})
}

func TestRun_minConnectionsWhileServerIsDown_backsOff(t *testing.T) {
	inWorld(t, Config{MinConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		w.answer(fails(errRefused))
		w.conns[0].die()
		before := w.dialled()
		w.pass(10 * time.Minute)
		require.InDelta(t, 240, w.dialled()-before, 90)
		w.answer(nil)
		w.pass(6 * time.Second)
		require.Equal(t, 1, p.Stats().Idle)
	})
}

func TestRun_emptyPool_isForgotten(t *testing.T) {
	inWorld(t, Config{IdleTimeout: time.Minute, MaxPerDatabase: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		w.pass(5 * time.Minute)
		require.Empty(t, w.target.list)
		require.Empty(t, w.target.pools)
		require.Empty(t, w.target.databases)
		require.Empty(t, w.target.users)
		require.EqualValues(t, 1, w.target.Stats().Opened, "totals never fall")

		// A session that still knows the old pool meets the others in the new one.
		q := w.target.Pool("db", "user")
		require.NotSame(t, p, q)
		a, b := w.session(1, 0), w.session(2, 0)
		a.acquire(p)
		b.acquire(q)
		w.settle()
		require.Same(t, q, a.conn.slot.pool)
		require.Nil(t, b.conn, "one bound for both")
		a.release()
		w.settle()
		require.NotNil(t, b.conn)
	})
}

func TestRun_nothingOpen_sleeps(t *testing.T) {
	inWorld(t, Config{IdleTimeout: time.Minute}, func(t *testing.T, w *world) {
		w.idle(w.target.Pool("db", "user"), 1)
		w.pass(5 * time.Minute)
		w.target.mu.Lock()
		defer w.target.mu.Unlock()
		require.EqualValues(t, never, w.target.nextAt)
	})
}
