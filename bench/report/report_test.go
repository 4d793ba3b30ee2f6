package report

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/bench/load"
)

// noisy is a load whose machine was slow in the second round, for both contenders alike.
func noisy() Load {
	return Load{
		Name: "simple-32", Title: "simple protocol", Contenders: []string{"direct", "other", "ours"}, Subject: "ours", Base: "other",
		Goals: []Goal{
			{Metric: load.TPS, Ratio: true, AtLeast: true, Limit: 1.15},
			{Metric: load.CPU, Ratio: true, Limit: 0.9},
			{Metric: load.Mallocs, Limit: 0.1},
			{Metric: load.Syscalls, Limit: 4.5},
		},
		Rounds: []Round{
			{"direct": {load.TPS: 200}, "other": {load.TPS: 100, load.CPU: 10}, "ours": {load.TPS: 120, load.CPU: 11, load.Mallocs: 0}},
			{"direct": {load.TPS: 20}, "other": {load.TPS: 10, load.CPU: 20}, "ours": {load.TPS: 12, load.CPU: 19, load.Mallocs: 0.01}},
			{"direct": {load.TPS: 210}, "other": {load.TPS: 110, load.CPU: 10}, "ours": {load.TPS: 143, load.CPU: 9.5, load.Mallocs: 0.02}},
			{"other": {load.TPS: 50}},
		},
	}
}

func TestLoad_ratios_areOfTheSameRound(t *testing.T) {
	l := noisy()
	ratio, found := median(l.ratios("ours", "other", load.TPS))
	require.True(t, found)
	require.InDelta(t, 1.2, ratio, 1e-9)
	require.Len(t, l.ratios("ours", "direct", load.TPS), 3, "a round without ours has no ratio")
}

func TestMedian_evenAndOdd_isTheMiddle(t *testing.T) {
	figures := []float64{4, 1, 3}
	odd, found := median(figures)
	require.True(t, found)
	require.InDelta(t, 3, odd, 0)
	require.Equal(t, []float64{4, 1, 3}, figures, "the rounds keep their order")
	even, _ := median([]float64{4, 1, 3, 2})
	require.InDelta(t, 2.5, even, 0)
	_, found = median(nil)
	require.False(t, found)
}

func TestLoad_verdict_ofEveryKind(t *testing.T) {
	l := noisy()
	verdicts := make([]string, len(l.Goals))
	for i, g := range l.Goals {
		verdicts[i] = l.verdict(g)
	}
	require.Equal(t, []string{"met", "MISSED", "met", "not measured"}, verdicts)
}

func TestReport_table_showsFiguresRatiosAndGoals(t *testing.T) {
	r := Report{
		Contenders: []Contender{{Name: "ours", Version: "v1"}}, Absent: []string{"another: not found"}, Loads: []Load{noisy()},
	}
	r.Loads[0].Failures = []string{"ours: connection lost"}
	var text strings.Builder
	require.NoError(t, r.WriteTable(&text))
	table := text.String()
	require.Regexp(t, `transactions/s +200 +75 +120 +1\.20 +0\.60 +>= 1\.15x +met`, table)
	require.Regexp(t, `CPU, us +- +10\.0 +11\.0 +0\.95 +- +<= 0\.9x +MISSED`, table)
	require.Regexp(t, `simple protocol +transactions/s +>= 1\.15x +1\.20 +1\.20 to 1\.30 +met`, table)
	require.Contains(t, table, "Sat out: another: not found")
	require.Contains(t, table, "FAILED: ours: connection lost")
	require.NotContains(t, table, "MB/s", "a metric that nobody has takes no line")
	require.True(t, r.Failed())
}
