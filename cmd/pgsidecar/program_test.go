package main

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// TestRun_realServer_lifeOfASidecar runs the whole program in front of PostgreSQL: start, traffic, reload, drain.
func TestRun_realServer_lifeOfASidecar(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	r := start(t, openProxy, "pool: {max_connections: 2}", "DATABASE_URL="+cluster.URL("postgres", pgcluster.Superuser))
	dir := filepath.Dir(r.socket)
	connect := func() (*pgx.Conn, error) {
		return pgx.Connect(t.Context(), "host="+dir+" port=6432 user="+pgcluster.Superuser+" dbname=postgres")
	}
	var conn *pgx.Conn
	require.Eventually(t, func() bool {
		var err error
		conn, err = connect()
		return err == nil
	}, time.Minute, 10*time.Millisecond, "%s", r.stderr)
	pid := func() (pid int) {
		require.NoError(t, conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid))
		return pid
	}
	code, out := r.ask("health")
	require.Equal(t, exitOK, code, out)

	// A reload that changes nothing recycles nothing; one that does is in force.
	before := pid()
	_, _, err := newClient(r.socket).ask(t.Context(), "POST", "/reload")
	require.NoError(t, err)
	require.Equal(t, before, pid())
	r.write("pool: {max_connections: 3}")
	_, _, err = newClient(r.socket).ask(t.Context(), "POST", "/reload")
	require.NoError(t, err)
	_, out = r.ask("status")
	require.Contains(t, out, "at most 3\n")

	// SIGTERM lets a transaction end, and nothing more.
	tx, err := conn.Begin(t.Context())
	require.NoError(t, err)
	r.signals <- syscall.SIGTERM
	_, err = tx.Exec(t.Context(), "select 1")
	require.NoError(t, err)
	require.NoError(t, tx.Commit(t.Context()))
	r.end(exitOK)
	_, err = connect()
	require.Error(t, err)
}
