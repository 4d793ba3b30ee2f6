package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAcquire_idleOnOwnLoop_lendsTheLastReleasedAtOnce(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		all := w.fill(p, 3)
		require.Equal(t, []int{0, 1, 2}, got(all))
		require.False(t, p.Ready(0))
		for _, i := range []int{0, 2, 1} {
			require.Equal(t, Idle, all[i].release())
		}
		require.True(t, p.Ready(0))
		for _, s := range all {
			s.acquire(p)
		}
		require.Equal(t, []int{1, 2, 0}, got(all))
		require.False(t, p.Ready(0))
		require.Equal(t, 3, w.dialled())
	})
}

func TestAcquire_idleOnOtherLoopOnly_movesIt(t *testing.T) {
	inWorld(t, Config{Loops: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		require.False(t, p.Ready(1))
		s := w.session(9, 1)
		s.acquire(p)
		require.True(t, s.waiter.Waiting())
		require.Nil(t, s.conn)
		w.settle()
		require.False(t, s.waiter.Waiting())
		require.Equal(t, 0, s.conn.id)
		require.Equal(t, 1, w.dialled())
		require.Equal(t, Idle, s.release())
		require.True(t, p.Ready(1))
	})
}

func TestAcquire_ownLoopAndOtherHaveIdle_prefersOwn(t *testing.T) {
	inWorld(t, Config{Loops: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		a, b := w.session(1, 0), w.session(2, 1)
		a.acquire(p)
		b.acquire(p)
		w.settle()
		b.release()
		pass := w.target.now()
		w.pass(time.Millisecond)
		require.Greater(t, w.target.now(), pass)
		a.release()
		mine := b.world.session(3, 1)
		mine.acquire(p)
		require.NotNil(t, mine.conn, "lent without a move")
		require.Equal(t, int32(1), mine.conn.loop.Load())
	})
}

func TestAcquire_allLent_waitersAreServedInOrder(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		queue := w.sessions(6)[1:]
		for _, s := range queue {
			s.acquire(p)
		}
		for _, s := range queue {
			require.Equal(t, Give, holder.release())
			w.settle()
			require.NotNil(t, s.conn, "session %d", s.id)
			require.Equal(t, 1, s.grants)
			holder = s
		}
		require.Equal(t, Idle, holder.release())
		require.Equal(t, 1, w.dialled())
	})
}

// A waiter that has given up was handed connections in another pool, which stalled it (Vitess #20310).
func TestAcquire_expiredWaiterGetsNothing(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		expired, next := w.session(2, 0), w.session(3, 0)
		expired.acquire(p)
		next.acquire(p)
		expired.cancel()
		require.False(t, expired.waiter.Waiting())
		holder.release()
		w.settle()
		require.Nil(t, expired.conn)
		require.Zero(t, expired.grants)
		require.NotNil(t, next.conn)
	})
}

// Check-then-wait once let a waiter starve (Vitess #17662): whatever comes between, somebody is served.
func TestAcquire_releaseBetweenGrantAndTake_losesNobody(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 2)
		a, b, c := w.session(3, 0), w.session(4, 0), w.session(5, 0)
		a.acquire(p)
		b.acquire(p)
		require.Equal(t, Give, held[0].release()) // to a, who has not taken it
		c.acquire(p)
		require.Equal(t, Give, held[1].release())
		w.settle()
		require.NotNil(t, a.conn)
		require.NotNil(t, b.conn)
		require.Nil(t, c.conn)
		a.release()
		w.settle()
		require.NotNil(t, c.conn)
	})
}

func TestAcquire_whileWaiting_panics(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.fill(p, 1)
		s := w.session(2, 0)
		s.acquire(p)
		require.Panics(t, func() { p.Acquire(&s.waiter) })
		s.cancel()
	})
}

func TestRelease_twice_panics(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		c := w.fill(p, 1)[0].drop()
		require.Equal(t, Idle, w.release(c, 0))
		require.Panics(t, func() { p.Release(c) })
		require.Equal(t, 1, p.Stats().Idle)
	})
}

func TestCancel_granted_returnsTheConnection(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		quitter, next := w.session(2, 0), w.session(3, 0)
		quitter.acquire(p)
		next.acquire(p)
		require.Equal(t, Give, holder.release())
		c := p.Cancel(&quitter.waiter) // before its loop comes to Take
		require.NotNil(t, c)
		require.Equal(t, Give, w.release(c.(*fakeConn), 0))
		w.settle()
		require.Nil(t, quitter.conn, "a late grant is no grant")
		require.NotNil(t, next.conn)
	})
}

func TestCancel_lateGrantMeetsNextAcquire_takesNothingTwice(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		s := w.session(2, 0)
		s.acquire(p)
		holder.release() // granted to s, announced
		c := p.Cancel(&s.waiter).(*fakeConn)
		s.acquire(p) // waits anew; the old announcement is still in its loop
		w.settle()
		require.Nil(t, s.conn)
		require.True(t, s.waiter.Waiting())
		require.Equal(t, Give, w.release(c, 0))
		w.settle()
		require.Equal(t, c, s.conn)
	})
}

func TestCancel_whileMoving_connectionGoesToTheNext(t *testing.T) {
	inWorld(t, Config{Loops: 2, MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		quitter, next := w.session(8, 1), w.session(9, 1)
		quitter.acquire(p) // sets the connection out from loop 0
		next.acquire(p)
		require.Nil(t, p.Cancel(&quitter.waiter), "it is still on the other loop")
		w.settle()
		require.Nil(t, quitter.conn)
		require.NotNil(t, next.conn)
	})
}

func TestCancel_whileMoving_nobodyWaits_connectionIsAdopted(t *testing.T) {
	inWorld(t, Config{Loops: 2, MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		quitter := w.session(8, 1)
		quitter.acquire(p)
		quitter.cancel()
		w.settle()
		require.Equal(t, 1, p.Stats().Idle)
		require.Equal(t, 1, w.dialled())
	})
}

func TestMove_connectionDies_waiterKeepsItsPlace(t *testing.T) {
	inWorld(t, Config{Loops: 2, MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		first, second := w.session(8, 1), w.session(9, 1)
		first.acquire(p)
		second.acquire(p)
		w.conns[0].die() // before loop 0 comes to the move
		w.settle()
		require.NotNil(t, first.conn)
		require.Equal(t, 1, first.conn.id)
		require.Nil(t, second.conn)
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestMove_connectionIsBreaking_waiterNeedNotWaitForItsEnd(t *testing.T) {
	inWorld(t, Config{Loops: 2, MaxConnections: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		s := w.session(9, 1)
		s.acquire(p)
		w.conns[0].slot.Closing()
		w.target.running.Wait()
		w.loops[1].runAll()
		require.NotNil(t, s.conn)
		require.Equal(t, 1, s.conn.id)
		w.conns[0].close()
	})
}

func TestMove_connectionDiesWhileAnotherBecomesIdle_waiterGetsThat(t *testing.T) {
	inWorld(t, Config{Loops: 2}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		held := w.fill(p, 2)
		held[0].release()
		s := w.session(9, 1)
		s.acquire(p)
		held[1].release() // nobody is queued: it stays idle on loop 0
		w.conns[0].die()
		w.settle()
		require.Equal(t, 1, s.conn.id)
		require.Equal(t, 2, w.dialled())
	})
}

func TestGrant_connectionDiesBeforeTake_waiterGetsAnother(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		first, second := w.session(2, 0), w.session(3, 0)
		first.acquire(p)
		second.acquire(p)
		holder.release()
		w.conns[0].die() // the loop sees the hangup before it comes to Take
		w.settle()
		require.NotNil(t, first.conn)
		require.Equal(t, 1, first.conn.id)
		require.Nil(t, second.conn)
	})
}

func TestRelease_oldestWaiterOnOtherLoop_isPassedOverWhileItHasHardlyWaited(t *testing.T) {
	for name, tc := range map[string]struct {
		waited time.Duration
		moves  bool
	}{
		"hardly": {preferOwnLoop - time.Microsecond, false},
		"long":   {preferOwnLoop, true},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{Loops: 2, MaxConnections: 1}, func(t *testing.T, w *world) {
				p := w.target.Pool("db", "user")
				holder := w.fill(p, 1)[0]
				far, near := w.session(2, 1), w.session(3, 0)
				far.acquire(p)
				near.acquire(p)
				w.pass(tc.waited)
				require.Equal(t, Give, holder.release())
				w.settle()
				require.Equal(t, tc.moves, far.conn != nil)
				require.Equal(t, !tc.moves, near.conn != nil)
			})
		})
	}
}

func TestRelease_callerDetachesForAWaiterOfItsOwnLoop_doesNoHarm(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		s := w.session(2, 0)
		s.acquire(p)
		c := holder.drop()
		verdict, to := p.Release(c)
		require.Equal(t, Give, verdict)
		c.detach(0)
		to.Granted()
		w.settle()
		require.Equal(t, c, s.conn)
	})
}

func TestMoveFailed_connectionIsStillClosing_keepsItsSlot(t *testing.T) {
	inWorld(t, Config{Loops: 2, MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		s := w.session(2, 1)
		s.acquire(p)
		w.conns[0].slot.Closing() // Terminate has been written
		w.conns[0].slot.MoveFailed()
		w.loops[0].tasks = nil // that was the move
		w.settle()
		require.Nil(t, s.conn)
		require.Equal(t, 1, w.dialled())
		w.conns[0].close()
		w.settle()
		require.NotNil(t, s.conn)
	})
}

// Closing idle connections held their places while their replacements were dialled in another pool (Vitess #20080).
func TestClose_freesSlotBeforeRedial(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		next := w.session(2, 0)
		next.acquire(p)
		c := holder.drop()
		c.slot.Closing()
		w.settle()
		require.Equal(t, 1, w.dialled(), "a closing connection still has its slot")
		require.Equal(t, 1, p.Stats().Closing)
		c.close()
		w.settle()
		require.NotNil(t, next.conn)
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestClosed_manyTimes_freesOneSlot(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		c := w.fill(p, 1)[0].drop()
		c.close()
		c.slot.MoveFailed()
		c.slot.Closed()
		c.slot.Closing()
		a, b := w.session(2, 0), w.session(3, 0)
		a.acquire(p)
		b.acquire(p)
		w.settle()
		require.NotNil(t, a.conn)
		require.Nil(t, b.conn)
	})
}

// A dead idle server is replaced before a client sees it.
func TestClosing_idle_isNotLentAgain(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 2)
		w.conns[1].die()
		s := w.session(9, 0)
		s.acquire(p)
		require.Equal(t, 0, s.conn.id)
		require.EqualValues(t, 1, p.Stats().Closed["lost"])
	})
}
