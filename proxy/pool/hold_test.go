package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestHold_waiters_areServedInOrderAfterResume(t *testing.T) {
	for _, loops := range []int{1, 2} {
		inWorld(t, Config{Loops: loops, MaxConnections: 2}, func(t *testing.T, w *world) {
			p := w.target.Pool("db", "user")
			w.idle(p, 2)
			w.target.Hold("somebody wants it")
			require.False(t, p.Ready(0))
			late := []*session{w.session(11, 0), w.session(12, loops-1), w.session(13, 0)}
			for _, s := range late {
				s.acquire(p)
				w.pass(10 * time.Millisecond)
				require.Nil(t, s.conn, "nothing is granted")
			}
			require.Equal(t, 2, w.dialled(), "nothing is dialled")
			w.target.Resume(0)
			w.settle()
			require.NotNil(t, late[0].conn)
			require.NotNil(t, late[1].conn)
			require.Nil(t, late[2].conn)
			late[0].release()
			w.settle()
			require.NotNil(t, late[2].conn)
		})
	}
}

func TestHold_released_liesIdle(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		busy, waits := w.session(1, 0), w.session(2, 0)
		busy.acquire(p)
		w.settle()
		waits.acquire(p)
		w.target.Hold("somebody wants it")
		require.Equal(t, Idle, busy.release())
		w.settle()
		require.Nil(t, waits.conn)
		w.target.Resume(0)
		w.settle()
		require.NotNil(t, waits.conn)
	})
}

func TestHold_lastsTooLong_waitersAreToldWhy(t *testing.T) {
	inWorld(t, Config{Hold: 10 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.target.Hold("b is a standby")
		all := w.sessions(2)
		all[0].acquire(p)
		w.pass(4 * time.Second)
		all[1].acquire(p)
		w.pass(5900 * time.Millisecond)
		require.NoError(t, all[0].err)
		w.pass(200 * time.Millisecond)
		require.EqualError(t, all[0].err, "transactions are held: b is a standby")
		require.NoError(t, all[1].err)
		w.pass(4 * time.Second)
		require.Error(t, all[1].err)
		w.target.Resume(0)
		all[0].acquire(p)
		w.settle()
		require.NotNil(t, all[0].conn, "and served again afterwards")
	})
}

func TestHold_off_refusesAtOnce(t *testing.T) {
	inWorld(t, Config{Hold: -1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.target.Hold("no primary")
		s := w.session(1, 0)
		s.acquire(p)
		w.settle()
		require.Error(t, s.err)
	})
}

func TestHold_dialsInFlight_areCancelledAndBegunAnew(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		shared, private := w.session(1, 0), w.session(2, 0)
		shared.acquire(p)
		private.pool = p
		p.AcquirePrivate(&private.waiter, "own")
		w.settle()
		w.target.Hold("no primary")
		w.settle()
		require.Zero(t, p.Stats().Dialing)
		w.openGate()
		w.pass(time.Second)
		require.Nil(t, shared.conn)
		require.Nil(t, private.conn)
		w.target.Resume(20 * time.Millisecond)
		w.pass(20 * time.Millisecond)
		require.NotNil(t, shared.conn)
		require.NotNil(t, private.conn)
		require.Equal(t, "own", private.conn.private)
	})
}

func TestRecycle_grantedButNotTaken_isReplaced(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		busy, waits := w.session(1, 0), w.session(2, 0)
		busy.acquire(p)
		w.settle()
		old := busy.conn
		waits.acquire(p)
		busy.release() // granted; the loop has not taken it yet
		w.target.Recycle("another primary")
		w.settle()
		require.True(t, old.closed.Load())
		require.NotNil(t, waits.conn)
		require.NotSame(t, old, waits.conn)
	})
}
