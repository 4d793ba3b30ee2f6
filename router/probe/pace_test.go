package probe

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// scripted is a server whose answers are given.
type scripted struct {
	begun  time.Time
	breaks chan answer

	mu     sync.Mutex
	took   time.Duration
	reason Reason
	asked  []time.Duration // since begun
	told   int             // how many of those pass has returned
	closed int
}

func (s *scripted) ask(context.Context) *Observation {
	s.mu.Lock()
	s.asked = append(s.asked, time.Since(s.begun))
	took, reason := s.took, s.reason
	s.mu.Unlock()
	time.Sleep(took)
	return &Observation{At: time.Now(), Reason: reason}
}

func (s *scripted) answers(reason Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reason = reason
}

func (s *scripted) lost() <-chan answer { return s.breaks }

func (s *scripted) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

func (s *scripted) closings() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// inBubble runs a prober on a scripted server, in fake time.
func inBubble(t *testing.T, config Config, test func(p *Prober, s *scripted)) {
	t.Helper()
	connect, err := pgconn.ParseConfig("host=localhost")
	require.NoError(t, err)
	config.Connect = connect
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p, s := New(config), &scripted{begun: time.Now(), breaks: make(chan answer, 1)}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.run(ctx, s)
		}()
		test(p, s)
		cancel()
		<-ended
		require.Positive(t, s.closings())
	})
}

// pass lets time go by and returns when the probes happened since the last pass.
func (s *scripted) pass(d time.Duration) []time.Duration {
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	times := slices.Clone(s.asked[s.told:])
	s.told = len(s.asked)
	return times
}

func every(first, step, last time.Duration) (times []time.Duration) {
	for at := first; at <= last; at += step {
		times = append(times, at)
	}
	return times
}

const ms = time.Millisecond

func TestPace_healthyServerIsProbedEverySecond(t *testing.T) {
	inBubble(t, Config{}, func(_ *Prober, s *scripted) {
		s.mu.Lock()
		s.took = 30 * ms // The interval is from begin to begin.
		s.mu.Unlock()
		require.Equal(t, every(0, time.Second, 3*time.Second), s.pass(3500*ms))
	})
}

func TestPace_suspectServerIsProbedAtOnceAndUntilItIsWell(t *testing.T) {
	inBubble(t, Config{}, func(p *Prober, s *scripted) {
		s.pass(1050 * ms)
		s.answers(Timeout)
		p.Suspect()
		require.Equal(t, every(1050*ms, 100*ms, 5050*ms), s.pass(4050*ms))
		s.answers(OK)
		require.Equal(t, []time.Duration{5150 * ms, 6150 * ms, 7150 * ms}, s.pass(2500*ms))
	})
}

func TestPace_wellServerStaysSuspectForASecond(t *testing.T) {
	inBubble(t, Config{}, func(p *Prober, s *scripted) {
		s.pass(1050 * ms)
		p.Suspect()
		require.Equal(t, append(every(1050*ms, 100*ms, 2050*ms), 3050*ms), s.pass(2500*ms))
	})
}

func TestPace_suspectingAtEachChangeMakesNoLoop(t *testing.T) {
	var p atomic.Pointer[Prober]
	config := Config{Changed: func(*Observation) {
		if p := p.Load(); p != nil {
			p.Suspect()
		}
	}}
	inBubble(t, config, func(prober *Prober, s *scripted) {
		p.Store(prober)
		s.pass(1050 * ms) // The probe of second 1 suspects.
		require.Equal(t, every(1100*ms, 100*ms, 3000*ms), s.pass(2*time.Second-ms))
	})
}

func TestPace_manyCallsAreOneProbe(t *testing.T) {
	inBubble(t, Config{}, func(p *Prober, s *scripted) {
		s.pass(1050 * ms)
		for range 1000 {
			p.Suspect()
		}
		require.Equal(t, []time.Duration{1050 * ms}, s.pass(50*ms))
	})
}

func TestPace_brokenConnectionIsProbedAtOnce(t *testing.T) {
	inBubble(t, Config{}, func(_ *Prober, s *scripted) {
		s.pass(1050 * ms)
		s.breaks <- answer{}
		require.Equal(t, []time.Duration{1050 * ms, 1150 * ms}, s.pass(150*ms))
		require.Equal(t, 1, s.closings())
		s.breaks <- answer{} // Again and again: not more often than a suspect server.
		require.Equal(t, []time.Duration{1250 * ms}, s.pass(100*ms))
	})
}

func TestPace_deadServerIsProbedQuicklyForAMinuteOnly(t *testing.T) {
	inBubble(t, Config{}, func(p *Prober, s *scripted) {
		s.pass(950 * ms)
		s.answers(Unreachable)
		s.pass(50 * ms) // The probe of second 1 finds it.
		require.Len(t, s.pass(time.Minute-ms), 599)
		require.Len(t, s.pass(10*time.Second), 10)
		p.Suspect()
		require.Len(t, s.pass(time.Minute-ms), 600)
		s.answers(OK)
		s.pass(2 * time.Second)
		s.answers(Unreachable)
		s.pass(time.Second)
		require.Len(t, s.pass(10*time.Second), 100)
	})
}

func TestJudgeLag_isNotLongerThanSinceTheStandbyHadNoArrears(t *testing.T) {
	begin := time.Now()
	after := begin.Add
	c := connection{}
	judge := func(o Observation) time.Duration {
		o.Standby = true
		c.judgeLag(&o)
		return o.Lag
	}
	require.Zero(t, judge(Observation{At: after(0), LSN: 5, Received: 5}))
	require.Equal(t, time.Second, judge(Observation{At: after(time.Second), LSN: 5, Received: 9, Lag: time.Hour}), "the primary was idle")
	require.Equal(t, ms, judge(Observation{At: after(2 * time.Second), LSN: 8, Received: 9, Lag: ms}), "the server knows better")
	require.Equal(t, 3*time.Second, judge(Observation{At: after(3 * time.Second), LSN: 8, Received: 9}), "the server does not know")
	require.Zero(t, judge(Observation{At: after(4 * time.Second), LSN: 9, Received: 9}))
	require.Equal(t, time.Second, judge(Observation{At: after(5 * time.Second), LSN: 9, Received: 10}))

	c = connection{}
	require.Equal(t, time.Hour, judge(Observation{At: after(0), LSN: 5, Received: 9, Lag: time.Hour}), "never seen without arrears")
	c = connection{}
	require.Zero(t, judge(Observation{At: after(0), LSN: 5, Received: 9}), "nothing is known yet")
	require.Equal(t, time.Second, judge(Observation{At: after(time.Second), LSN: 5, Received: 9}))
	require.Equal(t, time.Hour, judge(Observation{SystemID: 7, At: after(time.Second), LSN: 5, Received: 9, Lag: time.Hour}), "another cluster")
}

func TestParseHistory_linesAndNonsense(t *testing.T) {
	require.Equal(t, []TimelineSwitch{{Timeline: 1, At: 0x3000060}, {Timeline: 2, At: 0x1_00000000}},
		parseHistory("1\t0/3000060\tno recovery target specified\n\n# a comment\n2\t1/0\tbefore 2000-01-01\n"))
	for _, text := range []string{"", "x\t0/1\n", "1\n", "1\tnowhere\n", "99999999999\t0/1\n"} {
		require.Nil(t, parseHistory(text), text)
	}
}

func TestLSN_isReadAndWritten(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "16/B374D848": 0x16B374D848, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		l, err := ParseLSN(text)
		require.NoError(t, err)
		require.Equal(t, want, l)
		require.Equal(t, text, l.String())
	}
	for _, text := range []string{"", "1", "/", "1/", "/1", "g/1", "1/2/3", "100000000/0", "-1/0"} {
		_, err := ParseLSN(text)
		require.Error(t, err, text)
	}
}

func TestHeaderless_emptyPageIsNotAhead(t *testing.T) {
	require.Equal(t, LSN(0x2000), headerless(0x2018, 0x2000))
	require.Equal(t, LSN(0x1000000), headerless(0x1000028, 0x1000000))
	require.Equal(t, LSN(0x2050), headerless(0x2050, 0x2000))
	require.Equal(t, LSN(0x2118), headerless(0x2118, 0x2100))
}
