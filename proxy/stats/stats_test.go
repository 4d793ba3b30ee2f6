package stats_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/stats"
)

func TestHistogram_boundsAreInclusiveAndTheRestOverflows(t *testing.T) {
	var h stats.Histogram
	bounds := stats.Bounds()
	for _, b := range bounds {
		h.Observe(b)     // Belongs to the bucket of b,
		h.Observe(b + 1) // and this to the next.
	}
	h.Observe(-time.Second) // A clock that went back counts as zero.

	var d stats.Distribution
	h.AddTo(&d)
	require.EqualValues(t, 2*len(bounds)+1, d.Count())
	require.EqualValues(t, 2, d.Buckets[0], "the first bound and the negative duration")
	for i := 1; i < len(bounds); i++ {
		require.EqualValues(t, 2, d.Buckets[i], "bucket up to %s", bounds[i])
	}
	require.EqualValues(t, 1, d.Buckets[len(bounds)])
	var sum time.Duration
	for _, b := range bounds {
		sum += 2*b + 1
	}
	require.Equal(t, sum, d.Sum)
}

func TestLoop_totalsAreTheSumOverLoops(t *testing.T) {
	var a, b stats.Loop
	a.StatementsSimple.Add(3)
	b.StatementsSimple.Inc()
	b.BytesToServers.Add(7)
	a.Wait.Observe(time.Millisecond)
	b.Wait.Observe(time.Second)

	var totals stats.Totals
	a.AddTo(&totals)
	b.AddTo(&totals)
	require.EqualValues(t, 4, totals.StatementsSimple)
	require.EqualValues(t, 7, totals.BytesToServers)
	require.EqualValues(t, 2, totals.Wait.Count())
	require.Equal(t, time.Second+time.Millisecond, totals.Wait.Sum)
}

func TestLoop_observingAllocatesNothing(t *testing.T) {
	var l stats.Loop
	require.Zero(t, testing.AllocsPerRun(100, func() {
		l.StatementsSimple.Inc()
		l.Transaction.Observe(3 * time.Millisecond)
	}))
}

func TestLoop_readWhileWritten_neverGoesBack(t *testing.T) {
	var l stats.Loop
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 10_000 {
			l.Wait.Observe(time.Millisecond)
		}
	}()
	var last uint64
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		var d stats.Distribution
		l.Wait.AddTo(&d)
		require.GreaterOrEqual(t, d.Count(), last)
		last = d.Count()
	}
	require.EqualValues(t, 10_000, last)
}

func TestErrorCounts_manyCodes_staysBounded(t *testing.T) {
	var e stats.ErrorCounts
	for i := range 1000 {
		e.Add(fmt.Appendf(nil, "P%04d", i), stats.FromServer)
	}
	counts := e.Snapshot()
	require.LessOrEqual(t, len(counts), 301)
	var sum, other uint64
	for _, c := range counts {
		sum += c.Count
		if c.SQLState == "other" {
			other += c.Count
		}
	}
	require.EqualValues(t, 1000, sum, "none is lost")
	require.EqualValues(t, 700, other)
	require.Equal(t, "P0000", counts[0].SQLState)
}

func TestErrorCounts_notASQLState_countsAsOther(t *testing.T) {
	var e stats.ErrorCounts
	for _, state := range []string{"", "4200", "42p01", "42P0\xff", "42P012"} {
		e.Add([]byte(state), stats.FromServer)
	}
	e.Add([]byte("57P03"), stats.FromProxy)
	e.Add([]byte("57P03"), stats.FromServer)
	e.Add([]byte("57P03"), stats.FromServer)
	require.Equal(t, []stats.ErrorCount{
		{"57P03", stats.FromServer, 2}, {"57P03", stats.FromProxy, 1}, {"other", stats.FromServer, 5},
	}, e.Snapshot())
}

func TestErrorCounts_knownCode_allocatesNothing(t *testing.T) {
	var e stats.ErrorCounts
	state := []byte("23505")
	e.Add(state, stats.FromServer)
	require.Zero(t, testing.AllocsPerRun(100, func() { e.Add(state, stats.FromServer) }))
}

func TestLogins_eachOutcome_hasItsWordAndCount(t *testing.T) {
	var l stats.Logins
	words := map[string]bool{}
	for i := range l.Snapshot() {
		l.Add(stats.Outcome(i))
		words[stats.Outcome(i).String()] = true
	}
	for i, n := range l.Snapshot() {
		require.EqualValues(t, 1, n, stats.Outcome(i))
	}
	require.Len(t, words, len(l.Snapshot()))
	require.NotContains(t, words, "unknown")
}

func TestPhases_areInOrderAndNamed(t *testing.T) {
	for i, p := range stats.Phases() {
		require.EqualValues(t, i, p)
		require.NotEqual(t, "unknown", p.String())
	}
}

func BenchmarkHistogram_Observe(b *testing.B) {
	var h stats.Histogram
	for b.Loop() {
		h.Observe(900 * time.Microsecond)
	}
}

func BenchmarkCounter_Inc(b *testing.B) {
	var c stats.Counter
	for b.Loop() {
		c.Inc()
	}
}
