package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// runbook is what one has who follows in docs/runbooks.md: two servers, a proxy that leads to the primary of them, and verify.
type runbook struct {
	followed

	t                *testing.T
	primary, standby *pgtest.Cluster
	base             string // The file of the base line.
}

func openRunbook(t *testing.T) *runbook {
	t.Helper()
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table ledger (id int primary key)")
	primary.WaitForStandby(t, standby)
	b := &runbook{followed: follow(t, "failover: {hold: 1m}", primary, standby), t: t, primary: primary, standby: standby, base: filepath.Join(t.TempDir(), "before.json")}
	b.awaitStatus("primary " + primary.Addr())
	code, out := b.verify("--save", b.base, "--window", "0s")
	require.Equal(t, exitOK, code, out)
	require.FileExists(t, b.base)
	return b
}

// verify asks the proxy as an operator would, who has its configuration.
func (b *runbook) verify(args ...string) (code int, out string) {
	b.t.Helper()
	environ := []string{"DATABASE_URL=" + b.primary.URL("postgres", pgcluster.Superuser)}
	return call(append([]string{"verify", "--http", b.socket, "--leftover-age", "1h", "--skip", "errors,p99"}, args...), environ)
}

// awaitStatus waits until verify says so of the servers.
func (b *runbook) awaitStatus(text string) {
	b.t.Helper()
	awaitThat(b.t, text, func() bool {
		_, out := b.verify("--skip", "errors,p99,transaction,replication,prepared,idle", "--wait", "0s")
		return strings.Contains(out, text)
	})
}

// compare verifies the data of two servers.
func (b *runbook) compare(from, to *pgtest.Cluster) (code int, out string) {
	b.t.Helper()
	return call([]string{
		"verify", "--from", from.SocketURL("postgres", pgcluster.Superuser), "--to", to.SocketURL("postgres", pgcluster.Superuser), "--tables",
	}, nil)
}

// TestRunbook_switchover is the planned switchover, without its command: a client between two transactions notices nothing.
func TestRunbook_switchover_isVerified(t *testing.T) {
	b := openRunbook(t)
	code, out := b.compare(b.primary, b.standby)
	require.Equal(t, exitOK, code, out)
	client := pgtest.Connect(t, b.url)
	_, err := client.Exec(t.Context(), "insert into ledger values (1)")
	require.NoError(t, err)

	b.primary.Stop(t, pgtest.Fast)
	b.standby.Promote(t)
	_, err = client.Exec(t.Context(), "insert into ledger values (2)")
	require.NoError(t, err)
	require.NoError(t, b.primary.Follow(b.standby.Cluster))
	b.primary.StartAgain(t)
	b.awaitStatus("primary " + b.standby.Addr() + ", standby " + b.primary.Addr())

	code, out = b.compare(b.standby, b.primary)
	require.Equal(t, exitOK, code, out)
	code, out = b.verify("--baseline", b.base, "--want-timeline", "2")
	require.Equal(t, exitOK, code, out)
	code, out = b.verify("--baseline", b.base)
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "timeline 2 instead of 1")
}

// TestRunbook_primaryLost is the emergency: what is missing is told at each step.
func TestRunbook_primaryLost_isTold(t *testing.T) {
	b := openRunbook(t)
	b.primary.Kill(t)
	b.awaitStatus("transactions are held")
	code, out := b.verify("--wait", "1s")
	require.Equal(t, exitFailure, code)
	require.Regexp(t, `(?m)^FAILED +servers .*`+b.primary.Addr()+`: unreachable`, out)
	require.Regexp(t, `(?m)^FAILED +transaction `, out)

	b.standby.Promote(t)
	b.awaitStatus(b.primary.Addr() + ": unreachable")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := pgtest.Connect(t, b.url)
	_, err := client.Exec(ctx, "insert into ledger values (1)")
	require.NoError(t, err)
	code, out = b.verify("--want-timeline", "2", "--skip", "errors,p99,servers")
	require.Equal(t, exitOK, code, out)
	code, out = b.verify("--baseline", b.base, "--want-timeline", "2", "--wait", "1s")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "0 standbys follow instead of 1")

	// The old one comes back as it was: it gets no client.
	b.primary.StartAgain(t)
	b.primary.Exec(t, "insert into ledger values (7)") // As somebody may who is past the proxy.
	code, out = b.compare(b.primary, b.standby)
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "in both, with other contents")
	b.awaitStatus("primary " + b.standby.Addr() + ", primary " + b.primary.Addr())
	_, err = client.Exec(ctx, "insert into ledger values (2)")
	require.NoError(t, err)
	require.Equal(t, "2", b.standby.Query(t, "select count(*) from ledger")[0][0])
}
