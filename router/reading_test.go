package router

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/router/probe"
)

// asked is a candidate that was asked just now and has answered after a while.
func asked(c candidate, lsn probe.LSN, took time.Duration) candidate {
	o := *c.seen
	o.LSN, o.At, o.Took, o.Since = lsn, time.Now().Add(took), took, time.Now().Add(-time.Minute)
	c.seen = &o
	return c
}

// reading returns what is known of b.
func (s *scene) reading() *Reading { return s.Topology().Targets[1].Reading }

func TestReading_showsTheMomentThatItHasReplayed(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["b"].see(standby("b"))
		require.NotNil(t, s.reading(), "it can be read from, whatever it shows")
		require.Zero(t, s.reading().Shows)
		begun := time.Now()
		s.probers["a"].see(asked(primary("a", 1, 1000), 1000, time.Millisecond))
		s.probers["b"].see(asked(standby("b"), 999, time.Millisecond))
		require.Zero(t, s.reading().Shows, "no position is known that it has replayed")
		require.Equal(t, uint64(1), s.reading().Bytes)
		s.probers["b"].see(asked(standby("b"), 1000, time.Millisecond))
		require.Equal(t, begun, s.reading().Shows, "when the question was put, not when it was answered")
		require.Zero(t, s.reading().Bytes)

		time.Sleep(time.Second)
		second := time.Now()
		s.probers["a"].see(asked(primary("a", 1, 2000), 2000, time.Millisecond))
		require.Equal(t, begun, s.reading().Shows)
		require.Equal(t, time.Second, s.reading().Lag)
		s.probers["b"].see(asked(standby("b"), 1500, time.Millisecond))
		require.Equal(t, begun, s.reading().Shows)
		s.probers["b"].see(asked(standby("b"), 2000, time.Millisecond))
		require.Equal(t, second, s.reading().Shows)

		time.Sleep(time.Second)
		third := time.Now()
		s.probers["a"].see(asked(primary("a", 1, 2000), 2000, time.Millisecond))
		require.Equal(t, third, s.reading().Shows, "nothing has been written since")
	})
}

func TestReading_anotherTimeline_isNotCompared(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b", "c")
		s.probers["a"].see(asked(primary("a", 1, 1000), 1000, 0))
		s.probers["b"].see(asked(standby("b"), 5000, 0))
		s.probers["c"].see(standby("c"))
		require.NotZero(t, s.reading().Shows)
		s.probers["a"].see(unwell("a", probe.Unreachable))
		s.probers["c"].see(asked(primary("c", 2, 1200), 1200, 0))
		require.Equal(t, "c", s.primary())
		require.Zero(t, s.reading().Shows, "5000 of timeline 1 says nothing about timeline 2")
		followed := standby("b")
		followed.seen.Timeline = 2
		s.probers["b"].see(asked(followed, 5000, 0))
		require.NotZero(t, s.reading().Shows)
	})
}

func TestReading_tooFarBehind_isSaid(t *testing.T) {
	play(t, Config{MaxLagBytes: 100, MaxLag: 10 * time.Second}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(asked(primary("a", 1, 1000), 1000, 0))
		s.probers["b"].see(asked(standby("b"), 900, 0))
		require.Empty(t, s.reading().Behind)
		s.probers["b"].see(asked(standby("b"), 899, 0))
		require.Equal(t, "b is 101 bytes of WAL behind, more than reads.max_lag_bytes (100)", s.reading().Behind)
		s.probers["b"].see(asked(standby("b"), 1000, 0))
		require.Empty(t, s.reading().Behind)
		time.Sleep(11 * time.Second)
		s.probers["a"].see(asked(primary("a", 1, 1050), 1050, 0))
		require.Equal(t, "b is up to 11s behind, more than reads.max_lag (10s)", s.reading().Behind)
		require.NotNil(t, s.reading(), "its connections stay")
	})
}

func TestReading_onlyOfAStandbyOfTheClusterThatAnswers(t *testing.T) {
	play(t, Config{}, func(s *scene) {
		s.list("a", "b")
		s.probers["a"].see(asked(primary("a", 1, 1000), 1000, 0))
		s.probers["b"].see(asked(standby("b"), 1000, 0))
		require.NotNil(t, s.reading())
		shown := s.reading().Shows
		slow := unwell("b", probe.Timeout)
		s.probers["b"].see(slow)
		require.NotNil(t, s.reading(), "one probe in vain says nothing")
		require.Equal(t, shown, s.reading().Shows)
		s.probers["b"].see(unwell("b", probe.Timeout))
		require.Nil(t, s.reading(), "two do")
		s.probers["b"].see(unwell("b", probe.Full))
		require.Nil(t, s.reading(), "what was known is not true any more")
		s.probers["b"].see(asked(standby("b"), 1000, 0))
		require.NotNil(t, s.reading())
		s.probers["b"].see(unwell("b", probe.Full))
		require.NotNil(t, s.reading(), "it lives, and has no place for the probe")
		foreign := standby("b")
		foreign.seen.SystemID = another
		s.probers["b"].see(foreign)
		require.Nil(t, s.reading())
		s.probers["b"].see(asked(standby("b"), 1000, 0))
		s.probers["b"].see(primary("b", 2, 1000))
		require.Nil(t, s.reading(), "promoted")
	})
}

func TestPositions_manyOfThem_areThinnedOut(t *testing.T) {
	var p positions
	at := time.Now()
	for i := range 10 * keptPositions {
		p.take(&probe.Observation{Timeline: 1, LSN: probe.LSN(1000 + i), At: at.Add(time.Duration(i) * time.Second)})
		require.LessOrEqual(t, len(p.list), keptPositions)
	}
	for _, back := range []int{0, 1, 10, 100, 500} {
		lsn := probe.LSN(1000 + 10*keptPositions - 1 - back)
		moment := p.shown(lsn)
		exact := at.Add(time.Duration(10*keptPositions-1-back) * time.Second)
		require.False(t, moment.After(exact))
		require.Less(t, exact.Sub(moment), time.Duration(back/2+2)*time.Second, "%d back", back)
	}
	require.Zero(t, p.shown(999))
}
