package drain_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/drain"
	"pgsidecar/proxy/stats"
)

// fake is a proxy whose clients the test moves.
type fake struct {
	start time.Time

	mu      sync.Mutex
	entered []entry
	emptied time.Time
	last    chan struct{} // Closed when the last client has left.
	cutAt   time.Duration // After start; 0: never.
}

type entry struct {
	phase stats.Phase
	after time.Duration
}

func (f *fake) Enter(phase stats.Phase) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.entered = append(f.entered, entry{phase, time.Since(f.start)})
}

func (f *fake) Emptied() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.emptied
}

func (f *fake) Shutdown(ctx context.Context) error {
	select {
	case <-f.last:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		f.cutAt = time.Since(f.start)
		f.mu.Unlock()
		return ctx.Err()
	}
}

// client lets a client be there, or leave.
func (f *fake) client(there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.emptied = time.Time{}
	if !there {
		f.emptied = time.Now()
	}
}

// scene is a life that runs in a bubble of its own time.
type scene struct {
	*fake
	life *drain.Life
	gone context.CancelFunc // The proxy has ended.
	done chan struct{}      // Run has returned.

	report drain.Report
	err    error
}

func in(t *testing.T, test func(t *testing.T, s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{fake: &fake{start: time.Now(), last: make(chan struct{})}, done: make(chan struct{})}
		s.life = drain.New(s.fake, slog.New(slog.DiscardHandler))
		ctx, gone := context.WithCancel(t.Context())
		s.gone = gone
		go func() {
			defer close(s.done)
			s.report, s.err = s.life.Run(ctx)
		}()
		test(t, s)
		gone()
		<-s.done
		s.life.Terminate(drain.Config{}) // Is not waited for in vain.
	})
}

// at lets the test go on d after the start, when everything that was due has happened.
func (s *scene) at(d time.Duration) {
	<-time.After(d - time.Since(s.start))
	synctest.Wait()
}

func (s *scene) phases() []entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entered
}

var (
	native  = drain.Config{Timeout: 5 * time.Second}
	classic = drain.Config{Linger: 20 * time.Second, MinLinger: 5 * time.Second, Quiet: 3 * time.Second, Timeout: 7 * time.Second}
)

func TestNative_drainsAtOnceAndEndsWithTheLastClient(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(true)
		s.at(time.Second)
		s.life.Terminate(native)
		require.Equal(t, []entry{{stats.Draining, time.Second}}, s.phases(), "heard when the call returns")
		s.at(3 * time.Second)
		close(s.last)
		s.at(4 * time.Second)
		s.gone()
		<-s.done
		require.NoError(t, s.err)
		require.Equal(t, drain.Report{Drained: 2 * time.Second}, s.report)
		require.Zero(t, s.cutAt)
	})
}

func TestNative_deadline_cuts(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.life.Terminate(native)
		s.at(time.Minute - time.Second)
		require.Equal(t, 5*time.Second, s.cutAt)
		<-s.done
		require.ErrorIs(t, s.err, drain.ErrStuck, "the proxy did not end in three more seconds")
		require.Equal(t, drain.Report{Drained: 5 * time.Second, Late: true}, s.report)
	})
}

// PgBouncer's #1473 and #1468.
func TestSecondSignal_forcesInEveryPhase(t *testing.T) {
	for name, config := range map[string]drain.Config{"draining": native, "lingering": classic} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, s *scene) {
				s.client(true)
				s.life.Terminate(config)
				s.at(2 * time.Second)
				s.life.Terminate(config)
				synctest.Wait()
				require.Equal(t, 2*time.Second, s.cutAt)
				s.gone()
				<-s.done
				require.True(t, s.report.Forced)
				require.False(t, s.report.Late)
			})
		})
	}
}

func TestDrainByRequest_neitherLingersNorIsTheFirstOfTwo(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.life.Drain(classic)
		s.life.Drain(classic)
		s.life.Terminate(classic)
		synctest.Wait()
		require.Equal(t, []entry{{stats.Draining, 0}}, s.phases())
		require.Zero(t, s.cutAt)
		s.life.Terminate(classic)
		synctest.Wait()
		s.gone()
		<-s.done
		require.True(t, s.report.Forced)
	})
}

func TestNotice_onlyMovesServing(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.life.Notice()
		s.life.Notice()
		s.at(time.Hour)
		require.Equal(t, []entry{{stats.Noticed, 0}}, s.phases(), "it is no end by itself")
		s.life.Terminate(native)
		s.life.Notice()
		require.Equal(t, []entry{{stats.Noticed, 0}, {stats.Draining, time.Hour}}, s.phases())
	})
}

func TestClassic_withoutClients_staysForMinLinger(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(false)
		s.at(time.Minute)
		s.life.Terminate(classic)
		s.at(2 * time.Minute)
		require.Equal(t, []entry{{stats.Lingering, time.Minute}, {stats.Draining, time.Minute + 5*time.Second}}, s.phases())
	})
}

func TestClassic_clientThatComesAndGoesBetweenTwoLooks_beginsTheQuietTimeAnew(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(false)
		s.life.Terminate(classic)
		s.at(4999 * time.Millisecond)
		s.client(true)
		s.client(false)
		s.at(10 * time.Second)
		require.Equal(t, []entry{{stats.Lingering, 0}, {stats.Draining, 7999 * time.Millisecond}}, s.phases())
	})
}

func TestClassic_clientThatLeavesLate_isFollowedByTheQuietTime(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(true)
		s.life.Terminate(classic)
		s.at(9050 * time.Millisecond)
		require.Len(t, s.phases(), 1)
		s.client(false)
		s.at(13 * time.Second)
		require.Equal(t, []entry{{stats.Lingering, 0}, {stats.Draining, 12050 * time.Millisecond}}, s.phases())
	})
}

func TestClassic_clientThatNeverLeaves_isDrainedAtTheLingerDeadline(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(true)
		s.life.Terminate(classic)
		s.at(28 * time.Second)
		require.Equal(t, []entry{{stats.Lingering, 0}, {stats.Draining, 20 * time.Second}}, s.phases())
		require.Equal(t, 27*time.Second, s.cutAt)
		s.gone()
		<-s.done
		require.Equal(t, drain.Report{Lingered: 20 * time.Second, Drained: 7 * time.Second, Late: true}, s.report)
	})
}

func TestClassic_drainByRequest_endsTheLinger(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.client(true)
		s.life.Terminate(classic)
		s.at(time.Second)
		s.life.Drain(classic)
		require.Equal(t, []entry{{stats.Lingering, 0}, {stats.Draining, time.Second}}, s.phases())
		s.at(30 * time.Second)
		require.Equal(t, 8*time.Second, s.cutAt)
	})
}

func TestProxyEndsByItself_runReturns(t *testing.T) {
	in(t, func(t *testing.T, s *scene) {
		s.at(time.Second)
		s.gone()
		<-s.done
		require.NoError(t, s.err)
		require.Equal(t, drain.Report{}, s.report)
	})
}
