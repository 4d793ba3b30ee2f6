package pool

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestGrow_manyWaiters_dialsTwoAtATime(t *testing.T) {
	inWorld(t, Config{MaxConnections: 5}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		all := w.sessions(8)
		for _, s := range all {
			s.acquire(p)
		}
		w.settle()
		require.Equal(t, 2, w.dialled())
		require.Equal(t, 2, p.Stats().Dialing)
		w.openGate()
		w.settle()
		require.Equal(t, 5, w.dialled())
		require.EqualValues(t, 5, w.peak.Load())
		require.Equal(t, 3, p.Stats().Waiting)
	})
}

func TestGrow_fullOfIdle_evictsTheOneIdleLongest(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		held := w.fill(a, 3)
		for _, i := range []int{1, 0, 2} {
			held[i].release()
			w.pass(time.Millisecond)
		}
		s := w.session(9, 0)
		s.acquire(b)
		w.settle()
		require.NotNil(t, s.conn)
		require.True(t, w.conns[1].closed.Load())
		require.Equal(t, "evicted", w.conns[1].reason.Load())
		require.EqualValues(t, 3, w.peak.Load())
		require.Equal(t, 2, a.Stats().Idle)
	})
}

func TestGrow_idleInSeveralPools_evictsTheOneIdleLongest(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		a, b, c := w.target.Pool("a", "user"), w.target.Pool("b", "user"), w.target.Pool("c", "user")
		heldA, heldB, heldC := w.fill(a, 1)[0], w.fill(b, 1)[0], w.fill(c, 1)[0]
		for _, s := range []*session{heldB, heldA, heldC} {
			s.release()
			w.pass(time.Millisecond)
		}
		s := w.session(9, 0)
		s.acquire(w.target.Pool("d", "user"))
		w.settle()
		require.NotNil(t, s.conn)
		require.Equal(t, []int{1, 0, 1}, []int{a.Stats().Idle, b.Stats().Idle, c.Stats().Idle})
	})
}

func TestGrow_closingConnectionIsPromised_theNextWaiterEvicts(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		a := w.target.Pool("a", "user")
		held := w.fill(a, 3)
		held[0].release()
		held[1].release()
		closing := held[2].drop()
		closing.slot.Closing()
		first, second := w.session(8, 0), w.session(9, 0)
		first.acquire(w.target.Pool("b", "user"))
		w.settle()
		require.Nil(t, first.conn)
		require.Equal(t, 2, a.Stats().Idle, "what is closing will do for it")
		second.acquire(w.target.Pool("c", "user"))
		w.settle()
		require.NotNil(t, first.conn, "the older one gets what comes first")
		require.Equal(t, 1, a.Stats().Idle)
		closing.close()
		w.settle()
		require.NotNil(t, second.conn)
		require.Equal(t, 1, a.Stats().Idle)
	})
}

func TestGrow_hungryPool_leavesReleasesAloneThatCannotHelpIt(t *testing.T) {
	inWorld(t, Config{MaxPerDatabase: 1}, func(t *testing.T, w *world) {
		w.fill(w.target.Pool("a", "u"), 1)
		other := w.target.Pool("b", "u")
		holder := w.fill(other, 1)[0]
		hungry, younger := w.session(8, 0), w.session(9, 0)
		hungry.acquire(w.target.Pool("a", "v"))
		w.pass(time.Millisecond)
		younger.acquire(other)
		require.Equal(t, Give, holder.release())
		w.settle()
		require.NotNil(t, younger.conn)
	})
}

func TestGrow_fullOfLent_waitsForOneToClose(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		held := w.fill(a, 2)
		s := w.session(9, 0)
		s.acquire(b)
		w.settle()
		require.Nil(t, s.conn)
		held[0].abort()
		w.settle()
		require.NotNil(t, s.conn)
		require.EqualValues(t, 2, w.peak.Load())
	})
}

// A pool that always has waiters never has an idle connection to evict.
func TestGrow_hungryPool_getsTheSlotOfABusyOne(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		holder := w.fill(a, 1)[0]
		older, hungry, younger := w.session(2, 0), w.session(3, 0), w.session(4, 0)
		older.acquire(a)
		w.pass(time.Millisecond)
		hungry.acquire(b)
		w.pass(time.Millisecond)
		younger.acquire(a)
		require.Equal(t, Give, holder.release(), "the oldest waiter of all is in the same pool")
		w.settle()
		require.NotNil(t, older.conn)
		require.Equal(t, Close, older.release())
		w.settle()
		require.NotNil(t, hungry.conn)
		require.Nil(t, younger.conn)
		require.Equal(t, Close, hungry.release(), "and back")
		w.settle()
		require.NotNil(t, younger.conn)
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestGrow_oneHungryPool_closesOneConnectionOnly(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		held := w.fill(a, 3)
		hungry := w.session(10, 0)
		hungry.acquire(b)
		w.pass(time.Millisecond)
		for i := range 3 {
			w.session(20+i, 0).acquire(a)
		}
		verdicts := map[Verdict]int{}
		for _, s := range held {
			verdicts[a.releaseOnly(s)]++
		}
		require.Equal(t, map[Verdict]int{Close: 1, Give: 2}, verdicts)
		held[0].world.settle()
	})
}

// releaseOnly releases without closing at once, as a loop does that has other things to do first.
func (p *Pool) releaseOnly(s *session) Verdict {
	c := s.drop()
	verdict, to := p.Release(c)
	switch verdict {
	case Close:
		s.world.loops[s.loop].post(c.close)
	case Give:
		to.Granted()
	case Idle:
	}
	return verdict
}

// A pool under load must not take a small pool's only connection between any two of its transactions.
func TestGrow_freshIdleOfASmallerPool_isSparedForAWhile(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		big, small := w.target.Pool("big", "user"), w.target.Pool("small", "user")
		w.fill(big, 2)
		w.idle(small, 1)
		s := w.session(9, 0)
		s.acquire(big)
		w.pass(evictAfter - time.Millisecond)
		require.Nil(t, s.conn)
		require.Equal(t, 1, small.Stats().Idle)
		w.pass(time.Millisecond)
		require.NotNil(t, s.conn)
		require.Equal(t, 0, small.Stats().Idle)
	})
}

func TestGrow_freshIdleOfASmallerPool_becomesIdleWhileOthersWait_isEvictedInTime(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3}, func(t *testing.T, w *world) {
		big, small := w.target.Pool("big", "user"), w.target.Pool("small", "user")
		w.fill(big, 2)
		holder := w.fill(small, 1)[0]
		s := w.session(9, 0)
		s.acquire(big)
		w.pass(time.Minute)
		holder.release()
		w.pass(evictAfter - time.Millisecond)
		require.Nil(t, s.conn)
		w.pass(time.Millisecond)
		require.NotNil(t, s.conn)
	})
}

func TestGrow_freshIdleOfALargerPool_isEvictedAtOnce(t *testing.T) {
	inWorld(t, Config{MaxConnections: 4}, func(t *testing.T, w *world) {
		a, b := w.target.Pool("a", "user"), w.target.Pool("b", "user")
		w.idle(a, 4)
		first, second := w.session(8, 0), w.session(9, 0)
		first.acquire(b)
		second.acquire(b)
		w.settle()
		require.NotNil(t, first.conn)
		require.NotNil(t, second.conn)
		require.Equal(t, 2, a.Stats().Idle)
	})
}

func TestGrow_freedSlot_goesToThePoolThatHasWaitedLongest(t *testing.T) {
	inWorld(t, Config{MaxConnections: 2, MaxPerDatabase: 1}, func(t *testing.T, w *world) {
		a, b, c := w.target.Pool("a", "user"), w.target.Pool("b", "user"), w.target.Pool("c", "user")
		heldA, heldB := w.fill(a, 1)[0], w.fill(b, 1)[0]
		blocked, second, third := w.session(6, 0), w.session(7, 0), w.session(8, 0)
		blocked.acquire(a) // the oldest, but its database is full
		w.pass(time.Millisecond)
		second.acquire(c)
		w.pass(time.Millisecond)
		third.acquire(b)
		heldB.abort()
		w.settle()
		require.NotNil(t, second.conn)
		require.Nil(t, blocked.conn)
		require.Nil(t, third.conn)
		heldA.abort()
		w.settle()
		require.NotNil(t, blocked.conn)
	})
}

func TestGrow_databaseFull_evictsInsideItOnly(t *testing.T) {
	inWorld(t, Config{MaxConnections: 4, MaxPerDatabase: 2}, func(t *testing.T, w *world) {
		mine, sibling, other := w.target.Pool("db", "a"), w.target.Pool("db", "b"), w.target.Pool("other", "a")
		w.idle(other, 2)
		w.pass(time.Minute) // idle longer, but of another database
		w.idle(sibling, 2)
		s := w.session(9, 0)
		s.acquire(mine)
		w.settle()
		require.NotNil(t, s.conn)
		require.Equal(t, 2, other.Stats().Idle)
		require.Equal(t, 1, sibling.Stats().Idle)
	})
}

func TestGrow_userFull_evictsInsideItOnly(t *testing.T) {
	inWorld(t, Config{MaxConnections: 4, MaxPerUser: 2}, func(t *testing.T, w *world) {
		mine, sibling, other := w.target.Pool("a", "u"), w.target.Pool("b", "u"), w.target.Pool("a", "other")
		w.idle(other, 2)
		w.pass(time.Minute)
		w.idle(sibling, 2)
		s := w.session(9, 0)
		s.acquire(mine)
		w.settle()
		require.NotNil(t, s.conn)
		require.Equal(t, 2, other.Stats().Idle)
		require.Equal(t, 1, sibling.Stats().Idle)
	})
}

func TestGrow_databaseFullOfLent_evictsNothingElsewhere(t *testing.T) {
	inWorld(t, Config{MaxConnections: 3, MaxPerDatabase: 2}, func(t *testing.T, w *world) {
		mine, sibling, other := w.target.Pool("db", "a"), w.target.Pool("db", "b"), w.target.Pool("other", "a")
		w.idle(other, 1)
		w.fill(sibling, 2)
		w.session(9, 0).acquire(mine)
		w.pass(time.Minute)
		require.Equal(t, 1, other.Stats().Idle)
	})
}

func TestGrow_databaseAndUserFull_evictsOneOfEach(t *testing.T) {
	inWorld(t, Config{MaxPerDatabase: 1, MaxPerUser: 1}, func(t *testing.T, w *world) {
		mine, sameDatabase, sameUser := w.target.Pool("db", "u"), w.target.Pool("db", "v"), w.target.Pool("x", "u")
		w.idle(sameDatabase, 1)
		w.idle(sameUser, 1)
		s := w.session(9, 0)
		s.acquire(mine)
		w.settle()
		require.NotNil(t, s.conn)
		require.EqualValues(t, 2, w.target.Stats().Closed["evicted"])
	})
}

func TestAcquirePrivate_alwaysDialsAndIsClosedAtRelease(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		s := w.session(9, 0)
		s.pool = p
		p.AcquirePrivate(&s.waiter, "startup parameters")
		w.settle()
		require.Equal(t, 1, s.conn.id)
		require.Equal(t, "startup parameters", s.conn.private)
		require.Equal(t, 1, p.Stats().Private)
		require.Equal(t, Close, s.release())
		require.EqualValues(t, 1, p.Stats().Closed["private"])
		require.Equal(t, 1, p.Stats().Idle)
	})
}

func TestAcquirePrivate_full_evictsAnIdleOneOfItsOwnPool(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.idle(p, 1)
		s := w.session(9, 0)
		p.AcquirePrivate(&s.waiter, nil)
		w.settle()
		require.Equal(t, 1, s.conn.id)
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestAcquirePrivate_fullOfLent_waitsInTheSameOrder(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		before, lone, after := w.session(2, 0), w.session(3, 0), w.session(4, 0)
		before.acquire(p)
		w.pass(time.Millisecond)
		p.AcquirePrivate(&lone.waiter, nil)
		w.pass(time.Millisecond)
		after.acquire(p)
		require.Equal(t, Give, holder.release())
		w.settle()
		require.Equal(t, Close, before.release())
		w.settle()
		require.NotNil(t, lone.conn)
		require.Nil(t, after.conn)
		lone.release()
		w.settle()
		require.NotNil(t, after.conn)
		require.EqualValues(t, 1, w.peak.Load())
	})
}

func TestAcquirePrivate_cancelledWhileDialing_connectionIsLentToNobody(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		quitter := w.session(1, 0)
		p.AcquirePrivate(&quitter.waiter, nil)
		w.settle()
		require.Nil(t, p.Cancel(&quitter.waiter))
		w.openGate()
		w.settle()
		s := p.Stats()
		require.Zero(t, s.Idle+s.Lent+s.Dialing+s.Closing)
		require.Nil(t, quitter.conn)
		require.Zero(t, quitter.grants)
	})
}

func TestAcquirePrivate_cancelledWhileDialing_isNoFailure(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		quitter, next := w.session(1, 0), w.session(2, 0)
		p.AcquirePrivate(&quitter.waiter, nil)
		w.settle()
		p.Cancel(&quitter.waiter)
		w.settle()
		w.openGate()
		next.acquire(p)
		w.settle()
		require.NotNil(t, next.conn, "no back-off")
	})
}

func TestAcquirePrivate_cancelledWhenDialIsThrough_connectionIsClosed(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		quitter := w.session(1, 0)
		w.answer(func(*Pool, any) error { // The server has just answered when the client gives up.
			p.Cancel(&quitter.waiter)
			return nil
		})
		p.AcquirePrivate(&quitter.waiter, nil)
		w.settle()
		require.Nil(t, quitter.conn)
		require.True(t, w.conns[0].closed.Load())
		require.EqualValues(t, 1, p.Stats().Closed["abandoned"])
		require.Zero(t, w.open.Load())
	})
}
