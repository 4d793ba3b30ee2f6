package router

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// fakeProber observes what the test says.
type fakeProber struct {
	name     string
	latest   atomic.Pointer[probe.Observation]
	suspects atomic.Int32
	runs     atomic.Int32
	changed  func()
}

func (f *fakeProber) Run(ctx context.Context) {
	f.runs.Add(1)
	<-ctx.Done()
	f.runs.Add(-1)
}
func (f *fakeProber) Suspect()                   { f.suspects.Add(1) }
func (f *fakeProber) Latest() *probe.Observation { return f.latest.Load() }

func (f *fakeProber) see(c candidate) {
	f.latest.Store(c.seen)
	f.changed()
	synctest.Wait()
}

// fakeSource publishes what the test sends.
type fakeSource struct{ snapshots chan discover.Snapshot }

func (f fakeSource) Run(ctx context.Context, publish func(discover.Snapshot)) {
	for {
		select {
		case s := <-f.snapshots:
			publish(s)
		case <-ctx.Done():
			return
		}
	}
}

// scene is a router with fakes, in a bubble of synctest.
type scene struct {
	*Router
	t       *testing.T
	probers map[string]*fakeProber
	changes []*Topology
	log     bytes.Buffer
	source  fakeSource
}

func play(t *testing.T, config Config, f func(s *scene)) {
	synctest.Test(t, func(t *testing.T) {
		s := &scene{t: t, probers: make(map[string]*fakeProber), source: fakeSource{make(chan discover.Snapshot)}}
		config.Sources = append([]discover.Source{s.source}, config.Sources...)
		config.NewProber = s.newProber
		config.Changed = func(t *Topology) { s.changes = append(s.changes, t) }
		s.Router = New(config, slog.New(slog.NewTextHandler(&s.log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.Run(ctx); close(ended) }()
		f(s)
		stop()
		<-ended
		for _, p := range s.probers {
			require.Zero(t, p.runs.Load(), "%s is not probed any more", p.name)
		}
	})
}

func (s *scene) newProber(target discover.Target, changed func()) Prober {
	p := &fakeProber{name: target.Name, changed: changed}
	s.probers[target.Name] = p
	return p
}

func (s *scene) list(names ...string) {
	snapshot := discover.Snapshot{At: time.Now()}
	for _, name := range names {
		snapshot.Targets = append(snapshot.Targets, at(name))
	}
	s.publish(snapshot)
}

func (s *scene) publish(snapshot discover.Snapshot) {
	s.source.snapshots <- snapshot
	synctest.Wait()
}

func (s *scene) primary() string {
	if p := s.Topology().Accepted(); p != nil {
		return p.Name
	}
	return ""
}

func TestRouter_primaryLostAndStandbyPromoted_switches(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(primary("a", 1, 1000))
		s.probers["b"].see(standby("b"))
		require.Equal(s.t, "a", s.primary())
		first := s.Topology().Generation

		s.probers["a"].see(unwell("a", probe.Unreachable))
		require.Empty(s.t, s.primary())
		require.Contains(s.t, s.Topology().Why, "a cannot be probed")
		require.Positive(s.t, s.probers["b"].suspects.Load(), "the others are looked at often")
		time.Sleep(1500 * time.Millisecond)
		s.probers["b"].see(primary("b", 2, 1200, ended(1, 990)))
		topology := s.Topology()
		require.Equal(s.t, "b", s.primary())
		require.Greater(s.t, topology.Generation, first)
		require.Len(s.t, topology.Switches, 1)
		done := topology.Switches[0]
		require.Equal(s.t, Switch{
			From: "a", To: "b", Before: 1, Timeline: 2, At: done.At, Took: 1500 * time.Millisecond, Lost: 10,
		}, done)
		require.Contains(s.t, topology.Alarms[0], "without at least 10 bytes")

		s.probers["a"].see(primary("a", 1, 1000))
		require.Equal(s.t, "b", s.primary(), "the old primary has returned")
		require.Contains(s.t, s.Topology().Targets[0].Refusal, "a is an old primary")
		require.Len(s.t, s.changes, 4, "told: none yet, accepted, lost, switched")
	})
}

func TestRouter_sameServerReturns_isNoSwitch(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["b"].see(standby("b"))
		s.probers["a"].see(primary("a", 1, 1000))
		before := s.Topology().Generation
		s.probers["a"].see(unwell("a", probe.Refused))
		s.probers["a"].see(primary("a", 1, 1001))
		require.Equal(s.t, "a", s.primary())
		require.Equal(s.t, before, s.Topology().Generation)
		require.Empty(s.t, s.Topology().Switches)
	})
}

func TestRouter_alarm_isLoggedOnce(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(primary("a", 1, 1000))
		for range 3 {
			s.probers["b"].see(primary("b", 1, 1000))
		}
		require.Empty(s.t, s.primary())
		require.Equal(s.t, 1, strings.Count(s.log.String(), "level=ERROR"), "%s", &s.log)
		s.probers["b"].see(unwell("b", probe.Unreachable))
		require.Equal(s.t, "a", s.primary(), "goes on when only one is left")
		require.Empty(s.t, s.Topology().Alarms)
	})
}

func TestRouter_timeouts_areCountedInARow(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(primary("a", 1, 1000))
		for range 3 {
			s.probers["a"].see(unwell("a", probe.Timeout))
			require.Equal(s.t, "a", s.primary())
			s.probers["a"].see(primary("a", 1, 1000))
		}
		s.probers["a"].see(unwell("a", probe.Timeout))
		s.probers["a"].see(unwell("a", probe.Timeout))
		require.Empty(s.t, s.primary())
	})
}

func TestRouter_listChanges_whatStaysIsNotDisturbed(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		a := s.probers["a"]
		a.see(primary("a", 1, 1000))
		s.list("a", "c")
		require.Same(s.t, a, s.probers["a"])
		require.Zero(s.t, s.probers["b"].runs.Load())
		require.Equal(s.t, "a", s.primary())
		s.publish(discover.Snapshot{At: time.Now(), Targets: []discover.Target{at("a"), at("c")}, Err: context.DeadlineExceeded})
		require.Len(s.t, s.Topology().Targets, 2, "an error makes nothing forgotten")
		s.list("c")
		require.Empty(s.t, s.primary())
		s.probers["c"].see(primary("c", 2, 1500, ended(1, 1000)))
		require.Equal(s.t, "c", s.primary())
	})
}

func TestRouter_reload_keepsWhatIsKnown(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(primary("a", 3, 1000))
		kept := s.probers["a"]
		next := Config{Sources: []discover.Source{s.source}, NewProber: s.newProber, Writable: true}
		require.NoError(s.t, s.Reload(s.t.Context(), next))
		synctest.Wait()
		s.list("a", "b")
		require.Same(s.t, kept, s.probers["a"])
		require.Equal(s.t, "a", s.primary())
		next.Version = "other"
		require.NoError(s.t, s.Reload(s.t.Context(), next))
		synctest.Wait()
		s.list("a", "b")
		require.NotSame(s.t, kept, s.probers["a"])
		s.probers["a"].see(primary("a", 2, 5000))
		require.Empty(s.t, s.primary(), "timeline 3 has been seen")
	})
}

func TestRouter_authority_isHeardUnderItsOwnNames(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		patroni := fakeSource{make(chan discover.Snapshot)}
		next := Config{Sources: []discover.Source{s.source, patroni}, NewProber: s.newProber}
		require.NoError(s.t, s.Reload(s.t.Context(), next))
		synctest.Wait()
		s.list("a", "b")
		leader := at("b")
		leader.Name = "pg-1"
		patroni.snapshots <- discover.Snapshot{At: time.Now(), Authority: true, Leader: "pg-1", Targets: []discover.Target{leader}}
		synctest.Wait()
		s.probers["a"].see(primary("a", 1, 1000))
		require.Empty(s.t, s.primary())
		require.Contains(s.t, s.Topology().Targets[0].Refusal, "the authority says that b leads")
		s.probers["b"].see(primary("b", 2, 1000, ended(1, 1000)))
		require.Equal(s.t, "b", s.primary())
		require.Len(s.t, s.Topology().Targets, 2)
	})
}

func TestRouter_appointedTarget_isAcceptedAndNobodyElseIs(t *testing.T) {
	play(t, Config{MaxLost: 1}, func(s *scene) {
		s.list("a", "b", "c")
		s.probers["a"].see(primary("a", 1, 1000))
		end := s.Appoint("b", 900) // Nobody's transactions are behind that.
		synctest.Wait()
		require.Equal(s.t, "a", s.primary(), "until b is one")
		s.probers["a"].see(unwell("a", probe.Unreachable))
		s.probers["c"].see(primary("c", 2, 1000, ended(1, 1000)))
		require.Empty(s.t, s.primary())
		require.Contains(s.t, s.Topology().Targets[2].Refusal, "says that b leads")
		s.probers["b"].see(primary("b", 2, 950, ended(1, 900)))
		require.Equal(s.t, "b", s.primary())
		require.Empty(s.t, s.Topology().Alarms, "what the old primary wrote behind that was nobody's")
		end()
		synctest.Wait()
		require.Empty(s.t, s.primary(), "two are writable, and nobody has appointed one")
	})
}

func TestRouter_primaryUnderAnotherName_isNoSwitch(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(running(primary("a", 1, 1000), "x"))
		s.probers["b"].see(running(primary("b", 1, 1000), "x"))
		require.Equal(s.t, "a", s.primary())
		require.Equal(s.t, "a", s.Topology().Targets[1].SameAs)
		first := s.Topology().Generation
		s.list("b")
		require.Equal(s.t, "b", s.primary())
		require.Equal(s.t, first, s.Topology().Generation, "its connections are as good as before")
		require.Equal(s.t, "b", s.changes[len(s.changes)-1].Accepted().Name, "new ones are dialled by the name that there is")

		s.list("b", "c")
		s.probers["c"].see(running(primary("c", 1, 1000), "x"))
		s.probers["b"].see(unwell("b", probe.Unreachable))
		require.Equal(s.t, "c", s.primary())
		require.Greater(s.t, s.Topology().Generation, first, "what has led there by the other name is lost")
	})
}

func TestRouter_drainedTarget_isNoPrimaryUntilItIsRestored(t *testing.T) {
	for _, lenient := range []bool{false, true} {
		play(t, Config{Lenient: lenient}, func(s *scene) {
			s.list("a")
			s.probers["a"].see(primary("a", 1, 1000))
			before := s.Topology().Generation
			require.Error(s.t, s.Drain("b"))
			require.Error(s.t, s.Restore("a"))
			require.NoError(s.t, s.Drain("a"))
			synctest.Wait()
			require.Empty(s.t, s.primary())
			require.True(s.t, s.Topology().Targets[0].Drained)
			prober := s.probers["a"]
			time.Sleep(time.Second)
			prober.see(primary("a", 1, 1001))
			require.Same(s.t, prober, s.probers["a"], "it is not dialled anew for that")
			require.NoError(s.t, s.Restore("a"))
			synctest.Wait()
			require.Equal(s.t, "a", s.primary())
			require.Equal(s.t, before, s.Topology().Generation)
		})
	}
}

func TestRouter_aloneAndDemoted_isDialledAnewByItsName(t *testing.T) {
	play(t, Config{Lenient: true}, func(s *scene) {
		s.list("a")
		require.Equal(s.t, "a", s.primary(), "before any probe")
		old := s.probers["a"]
		old.see(primary("a", 1, 1000))
		before := s.Topology().Generation
		time.Sleep(time.Second)
		old.see(standby("a"))
		require.Empty(s.t, s.primary())
		require.NotSame(s.t, old, s.probers["a"])
		s.probers["a"].see(primary("a", 2, 1100, ended(1, 1000)))
		require.Equal(s.t, "a", s.primary())
		require.Greater(s.t, s.Topology().Generation, before)
	})
}
