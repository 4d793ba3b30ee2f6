package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// TestSoak_pgbench_noError lets a hundred clients of pgbench share ten servers in every protocol, reading and writing, for as
// long as PGSIDECAR_SOAK says each; without it the test is skipped, as package proxy has a short one. The program is a
// process of its own, with the race detector: what it finds goes to standard error, as does every warning.
func TestSoak_pgbench_noError(t *testing.T) {
	text := os.Getenv("PGSIDECAR_SOAK")
	if text == "" {
		t.Skip("takes minutes: run make soak")
	}
	each, err := time.ParseDuration(text)
	require.NoError(t, err)
	const clients, servers = "100", 10
	cluster := pgtest.Start(t, pgtest.Config{})
	bench := func(args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), pgtest.Program(t, "pgbench"), args...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		t.Logf("%q", regexp.MustCompile(`(?m)^(number of .*|latency average.*|tps.*)$`).FindAll(out, -1))
		if args[0] != "-i" {
			require.Contains(t, string(out), "number of failed transactions: 0 ")
		}
	}
	bench("-i", "-q", "-s", "10", cluster.URL("postgres", pgcluster.Superuser))
	p := newPod(t, cluster, "soak", time.Minute, "PGSIDECAR_POOL_MAX_CONNECTIONS="+strconv.Itoa(servers), "PGSIDECAR_SESSION_SENTINEL_EVERY=100")
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for _, script := range []string{"select-only", "tpcb-like"} {
			t.Run(protocol+"/"+script, func(t *testing.T) {
				// In prepared mode pgbench's threads block while they prepare, so that each client needs one.
				bench("-n", "-b", script, "-M", protocol, "-c", clients, "-j", clients, "-T", strconv.Itoa(max(1, int(each.Seconds()))),
					"-h", p.dir, "-p", "6432", "-U", p.user, "postgres")
				require.LessOrEqual(t, pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where application_name = 'soak'"), servers)
			})
		}
	}
	_, metrics, err := newClient(p.http()).ask(context.Background(), http.MethodGet, "/metrics")
	require.NoError(t, err)
	require.Regexp(t, `(?m)^pgsidecar_state_leaks_total 0$`, string(metrics))
	require.NotContains(t, string(metrics), "\npgsidecar_errors_total{")
	p.signal()
	p.await(cluster, time.Now())
	for _, word := range []string{"DATA RACE", "level=WARN", "level=ERROR", "panic"} {
		require.NotContains(t, p.stderr.String(), word)
	}
}
