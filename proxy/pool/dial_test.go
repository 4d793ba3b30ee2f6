package pool

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDial_causerGivesUp_connectionGoesToTheNext(t *testing.T) {
	inWorld(t, Config{MaxConnections: 1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		quitter, next := w.session(1, 0), w.session(2, 0)
		quitter.acquire(p)
		next.acquire(p)
		w.settle()
		quitter.cancel()
		w.openGate()
		w.settle()
		require.Nil(t, quitter.conn)
		require.NotNil(t, next.conn)
		require.Equal(t, 1, w.dialled())
	})
}

func TestDial_everybodyGivesUp_connectionIsAdoptedByTheQuietestLoop(t *testing.T) {
	inWorld(t, Config{Loops: 3}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		busy := []*session{w.session(1, 0), w.session(2, 2)}
		for _, s := range busy {
			s.acquire(p)
		}
		w.settle()
		w.shutGate()
		quitter := w.session(3, 0)
		quitter.acquire(p)
		w.settle()
		quitter.cancel()
		w.openGate()
		w.settle()
		require.Equal(t, 1, p.Stats().Idle)
		require.True(t, p.Ready(1))
	})
}

func TestDial_adoptedWhileSomebodyCame_isPassedOn(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		quitter := w.session(1, 0)
		quitter.acquire(p)
		w.settle()
		quitter.cancel()
		w.openGate()
		w.target.running.Wait() // dialled; the loop has not attached it yet
		late := w.session(2, 0)
		late.acquire(p)
		require.Nil(t, late.conn)
		w.settle()
		require.NotNil(t, late.conn)
		require.Equal(t, 1, w.dialled(), "what is on its way is enough")
	})
}

func TestDial_connectionServedSomebodyElseMeanwhile_staysInThePool(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		w.shutGate()
		s := w.session(2, 0)
		s.acquire(p)
		w.settle()
		holder.release()
		w.settle()
		require.Equal(t, 0, s.conn.id)
		w.openGate()
		w.settle()
		require.Equal(t, 1, p.Stats().Idle)
	})
}

func TestDial_timeout_endsTheAttempt(t *testing.T) {
	inWorld(t, Config{DialTimeout: time.Second, Hold: -1}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.shutGate()
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(time.Second)
		require.ErrorIs(t, s.err, ErrUnavailable)
		require.ErrorIs(t, s.err, context.DeadlineExceeded)
	})
}

// One failing login fails all waiters; there is not one login for each of them.
func TestDial_fatal_failsAllWaitersAtOnce(t *testing.T) {
	for _, code := range []string{"28P01", "28000", "3D000", "42501", "22023", "0A000", "3F000", "55000"} {
		t.Run(code, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				p := w.target.Pool("db", "user")
				w.answer(fails(fmt.Errorf("log in: %w", serverError(code))))
				w.shutGate()
				all := w.sessions(10)
				for _, s := range all {
					s.acquire(p)
				}
				w.openGate()
				w.settle()
				for _, s := range all {
					require.ErrorIs(t, s.err, serverError(code))
					require.NotErrorIs(t, s.err, ErrUnavailable)
					require.False(t, s.waiter.Waiting())
				}
				require.Equal(t, 2, w.dialled())
			})
		})
	}
}

// PgBouncer failed waiters although the pool had servers (#998).
func TestDial_fatalWithConnections_waitersGoOnWaiting(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		w.answer(fails(serverError("28P01")))
		s := w.session(2, 0)
		s.acquire(p)
		w.pass(time.Minute)
		require.NoError(t, s.err)
		holder.release()
		w.settle()
		require.NotNil(t, s.conn)
	})
}

func TestDial_unreachable_waitersHoldUntilItHeals(t *testing.T) {
	for name, err := range map[string]error{
		"refused":                errRefused,
		"starting up":            serverError("57P03"), // killed all waiters in PgBouncer (#946)
		"too many clients":       serverError("53300"),
		"connection failure":     serverError("08006"),
		"no SQLSTATE in reality": serverError(""),
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				p := w.target.Pool("db", "user")
				w.answer(fails(err))
				all := w.sessions(3)
				for _, s := range all {
					s.acquire(p)
				}
				w.pass(9 * time.Second)
				for _, s := range all {
					require.NoError(t, s.err)
				}
				w.answer(nil)
				w.target.Retry()
				w.settle()
				for _, s := range all {
					require.NotNil(t, s.conn)
				}
			})
		})
	}
}

func TestDial_unreachableForHold_failsAllWaiters(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		early, late := w.session(1, 0), w.session(2, 0)
		early.acquire(p)
		w.pass(2 * time.Second)
		late.acquire(p)
		w.pass(999 * time.Millisecond)
		require.NoError(t, early.err)
		w.pass(time.Millisecond)
		for _, s := range []*session{early, late} {
			require.ErrorIs(t, s.err, ErrUnavailable)
			require.ErrorIs(t, s.err, errRefused)
		}
	})
}

func TestDial_unreachableAfterHold_newWaiterGetsOneFreshAttempt(t *testing.T) {
	inWorld(t, Config{Hold: 30 * time.Second, BackoffMax: time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(30 * time.Second)
		require.ErrorIs(t, s.err, ErrUnavailable)
		for range 3 {
			before := w.dialled()
			s.acquire(p)
			for s.err == nil {
				w.pass(time.Millisecond)
			}
			require.ErrorIs(t, s.err, ErrUnavailable)
			require.Equal(t, before+1, w.dialled())
		}
		w.answer(nil)
		s.acquire(p)
		w.target.Retry()
		w.settle()
		require.NotNil(t, s.conn)
	})
}

func TestDial_failureIsOldNews_newWaiterHasAllOfHold(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(3 * time.Second)
		before := w.dialled()
		w.pass(5 * time.Second)
		require.Equal(t, before, w.dialled(), "nobody waits")
		s.acquire(p)
		w.settle()
		require.Equal(t, before+1, w.dialled(), "no back-off")
		w.pass(2999 * time.Millisecond)
		require.NoError(t, s.err)
		w.pass(time.Millisecond)
		require.ErrorIs(t, s.err, ErrUnavailable)
	})
}

func TestDial_hangsAfterHold_newWaiterFailsAfterHold(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second, DialTimeout: time.Minute}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		w.session(1, 0).acquire(p)
		w.pass(3 * time.Second)
		w.shutGate()
		s := w.session(2, 0)
		s.acquire(p)
		w.pass(2999 * time.Millisecond)
		require.NoError(t, s.err)
		w.pass(time.Millisecond)
		require.ErrorIs(t, s.err, ErrUnavailable)
	})
}

func TestDial_failsWhileConnectionsWork_holdBeginsWithTheLastOfThem(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		holder := w.fill(p, 1)[0]
		w.answer(fails(serverError("53300")))
		s := w.session(2, 0)
		s.acquire(p)
		w.pass(time.Minute)
		require.NoError(t, s.err)
		w.answer(fails(errRefused))
		holder.abort()
		w.pass(2999 * time.Millisecond)
		require.NoError(t, s.err)
		w.pass(time.Millisecond)
		require.ErrorIs(t, s.err, ErrUnavailable)
	})
}

func TestDial_failing_backsOffWithOneAttemptAtATime(t *testing.T) {
	inWorld(t, Config{Hold: time.Hour}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		for _, s := range w.sessions(5) {
			s.acquire(p)
		}
		w.pass(10 * time.Minute)
		require.Equal(t, w.dials[0], w.dials[1], "two to begin with")
		ceiling := 50 * time.Millisecond
		var waited time.Duration
		for i := 2; i < len(w.dials); i++ {
			pause := w.dials[i].Sub(w.dials[i-1])
			require.Positive(t, pause)
			require.LessOrEqual(t, pause, ceiling+time.Millisecond, "attempt %d", i)
			ceiling = min(2*ceiling, 5*time.Second)
			waited += pause
		}
		// Full jitter waits half the ceiling on average, so that there are about 240 attempts; 10 deviations are allowed.
		require.InDelta(t, 240, len(w.dials), 90)
		require.Greater(t, waited, 9*time.Minute)
	})
}

func TestDial_succeeds_resetsTheBackoff(t *testing.T) {
	inWorld(t, Config{Hold: time.Hour}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(time.Minute)
		w.answer(nil)
		w.pass(5 * time.Second)
		require.NotNil(t, s.conn)
		w.answer(fails(errRefused))
		s.abort()
		before := w.dialled()
		s.acquire(p)
		w.pass(52 * time.Millisecond)
		require.GreaterOrEqual(t, w.dialled()-before, 2)
	})
}

func TestDial_serverHeals_isFoundWithoutRetry(t *testing.T) {
	inWorld(t, Config{Hold: time.Minute}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		w.pass(30 * time.Second)
		w.answer(nil)
		w.pass(5 * time.Second)
		require.NotNil(t, s.conn)
	})
}

func TestRetry_serverStillDown_doesNotProlongHold(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		s.acquire(p)
		for range 3 {
			w.pass(time.Second)
			w.target.Retry()
			w.settle()
		}
		require.ErrorIs(t, s.err, ErrUnavailable)
	})
}

func TestDialPrivate_serverRefuses_errorGoesOnlyToItsWaiter(t *testing.T) {
	for _, code := range []string{"22023", "28P01", "53300"} {
		t.Run(code, func(t *testing.T) {
			inWorld(t, Config{}, func(t *testing.T, w *world) {
				p := w.target.Pool("db", "user")
				w.answer(func(_ *Pool, private any) error {
					if private == "bad" {
						return serverError(code)
					}
					return nil
				})
				bad, good, other := w.session(1, 0), w.session(2, 0), w.session(3, 0)
				p.AcquirePrivate(&bad.waiter, "bad")
				p.AcquirePrivate(&good.waiter, "good")
				other.acquire(p)
				w.settle()
				require.ErrorIs(t, bad.err, serverError(code))
				require.NotNil(t, good.conn)
				require.NotNil(t, other.conn)
				require.Equal(t, 3, w.dialled(), "no back-off for the others")
			})
		})
	}
}

func TestDialPrivate_unreachable_holdsLikeTheOthers(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		p.AcquirePrivate(&s.waiter, "mine")
		w.pass(2 * time.Second)
		require.NoError(t, s.err)
		w.answer(nil)
		w.target.Retry()
		w.settle()
		require.Equal(t, "mine", s.conn.private)
	})
}

func TestDialPrivate_unreachableForHold_fails(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.answer(fails(errRefused))
		s := w.session(1, 0)
		p.AcquirePrivate(&s.waiter, "mine")
		w.pass(3 * time.Second)
		require.ErrorIs(t, s.err, ErrUnavailable)
	})
}

func TestDialPrivate_unreachableWhileOthersAreServed_failsAfterHold(t *testing.T) {
	inWorld(t, Config{Hold: 3 * time.Second}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		w.fill(p, 1)
		w.answer(fails(errRefused))
		waiting, s := w.session(2, 0), w.session(3, 0)
		waiting.acquire(p)
		w.pass(time.Minute)
		for range 20 {
			before, begin := w.dialled(), time.Now()
			s.err = nil
			p.AcquirePrivate(&s.waiter, "mine")
			for s.err == nil {
				w.pass(time.Millisecond)
			}
			require.ErrorIs(t, s.err, ErrUnavailable)
			if w.dialled() == before { // The pause was longer than Hold.
				require.InDelta(t, 3*time.Second, time.Since(begin), float64(2*time.Millisecond))
			}
		}
		require.NoError(t, waiting.err)
	})
}

func TestDialPrivate_connectionDiesBeforeTake_isDialledAgain(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		s := w.session(1, 0)
		p.AcquirePrivate(&s.waiter, "mine")
		w.target.running.Wait() // granted, not taken
		w.conns[0].die()
		w.settle()
		require.Equal(t, 1, s.conn.id)
		require.Equal(t, "mine", s.conn.private)
	})
}
