package proxy_test

import (
	"os/exec"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// pgbench runs it through the proxy and fails the test if a single transaction has failed.
func pgbench(t *testing.T, p *testProxy, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), pgtest.Program(t, "pgbench"), append(args, p.url())...)
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "number of failed transactions: 0 ")
	return string(out)
}

func TestPgbench_readAndWriteInEveryProtocol(t *testing.T) {
	c := pgtest.Shared(t, 0)
	database := c.Database(t)
	p := startFor(t, c.URL(database, "postgres"), func(config *proxy.Config) { config.Pool.MaxConnections = 10 })
	command := exec.CommandContext(t.Context(), pgtest.Program(t, "pgbench"), "-i", "-s", "1", "-q", p.url())
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for _, script := range []string{"select-only", "tpcb-like"} {
			t.Run(protocol+"/"+script, func(t *testing.T) {
				const clients = 100
				pgbench(t, p, "-n", "-b", script, "-M", protocol, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(clients), "-t", "30")
			})
		}
	}
}
