package verify_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/admin"
	"pgsidecar/internal/pgtest"
	"pgsidecar/internal/verify"
)

// worked returns a status after so many transactions of up to 1, 10 and 100 ms, and errors.
func worked(fast, slow, slowest, errs uint64) func(*admin.Status) {
	return func(s *admin.Status) {
		s.Transaction = admin.Durations{Bounds: []float64{0.001, 0.01, 0.1}, Counts: []uint64{fast, slow, slowest, 0}}
		s.CheckoutWait = admin.Durations{Bounds: []float64{0.001}, Counts: []uint64{fast + slow + slowest, 0}}
		s.Errors = []admin.Error{{SQLState: "23505", Origin: "server", Count: errs}}
	}
}

// measure checks a proxy that does what happens between the two statuses.
func measure(t *testing.T, base *verify.Baseline, before, after func(*admin.Status)) (*verify.Report, verify.Baseline) {
	t.Helper()
	cluster := pgtest.Shared(t, 0)
	p := proxyOf(cluster, before)
	p.statuses = append(p.statuses, proxyOf(cluster, after).statuses...)
	cfg := config(p)
	cfg.Measure, cfg.Base, cfg.Tolerance = true, base, 0.5
	return check(t, cfg)
}

func TestTraffic_comparedWithTheBaseLine(t *testing.T) {
	report, base := measure(t, nil, worked(5000, 0, 0, 7), worked(6000, 0, 0, 17)) // 1 % errors, 1 ms.
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	requireResult(t, report, verify.CheckErrors, verify.Passed, "10 in 1000 transactions")
	requireResult(t, report, verify.CheckP99, verify.Passed, "transaction 990µs, wait 990µs")
	require.EqualValues(t, 1000, base.Traffic.Transactions())

	for name, test := range map[string]struct {
		before, after func(*admin.Status)
		errors, p99   verify.Outcome
	}{
		"as before":          {worked(0, 0, 0, 0), worked(2000, 0, 0, 20), verify.Passed, verify.Passed},
		"half as many again": {worked(0, 0, 0, 0), worked(2000, 0, 0, 32), verify.Passed, verify.Passed},
		"twice the errors":   {worked(0, 0, 0, 0), worked(2000, 0, 0, 40), verify.Failed, verify.Passed},
		"slower":             {worked(0, 0, 0, 0), worked(1900, 100, 0, 20), verify.Passed, verify.Failed},
		"one is slow":        {worked(0, 0, 0, 0), worked(1999, 0, 1, 20), verify.Passed, verify.Passed},
		"restarted between":  {func(s *admin.Status) { worked(9000, 0, 0, 90)(s); s.Uptime = 99 }, worked(2000, 0, 0, 20), verify.Passed, verify.Passed},
	} {
		t.Run(name, func(t *testing.T) {
			report, _ := measure(t, &base, test.before, test.after)
			require.Equal(t, test.errors, only(t, report, verify.CheckErrors).Outcome, "%v", report.Results)
			worst := verify.Passed
			for _, r := range report.Results {
				if r.Check == verify.CheckP99 && r.Outcome != verify.Passed {
					worst = r.Outcome
					require.Equal(t, "transaction", r.Subject)
				}
			}
			require.Equal(t, test.p99, worst)
		})
	}
}

func TestTraffic_tooLittle_saysNothing(t *testing.T) {
	report, base := measure(t, nil, worked(0, 0, 0, 0), worked(99, 0, 0, 0))
	requireResult(t, report, verify.CheckErrors, verify.Unknown, "99 transactions in 0s say nothing")
	report, _ = measure(t, &base, worked(0, 0, 0, 0), worked(1000, 0, 0, 0))
	requireResult(t, report, verify.CheckP99, verify.Unknown, "the base line has 99 transactions")
	require.Equal(t, verify.Unknown, report.Outcome())
}

func TestLoad_whatIsNoBaseLine_isRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "base.json")
	_, err := verify.Load(file)
	require.ErrorContains(t, err, "no such file")
	for text, want := range map[string]string{"{": "unexpected end", "{}": "format 0 instead of 1", `{"format": 2}`: "format 2 instead of 1"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		_, err = verify.Load(file)
		require.ErrorContains(t, err, want)
	}
}

func TestBinary_exitCodeOfCheck_decides(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		script string
		want   verify.Outcome
		text   string
	}{
		"accepts":       {`test "$*" = "check --config pgsidecar.yaml"`, verify.Passed, "accepts"},
		"refuses":       {"echo 'new_key: is not known' >&2; echo 'second' >&2; exit 2", verify.Failed, "new_key: is not known second"},
		"does not work": {"exit 127", verify.Unknown, "exit status 127"},
	} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+test.script+"\n"), 0o700))
		report := verify.NewReport(nil)
		verify.Binary(t.Context(), file, "pgsidecar.yaml", nil, report)
		requireResult(t, report, verify.CheckBinary, test.want, test.text)
	}
	report := verify.NewReport(nil)
	verify.Binary(t.Context(), filepath.Join(dir, "nowhere"), "", nil, report)
	requireResult(t, report, verify.CheckBinary, verify.Unknown, "no such file")
}
