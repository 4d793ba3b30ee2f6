package main

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/lib/pq" // The driver of the exporter.
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// console is the URL of the console.
func (f *followed) console() string { return strings.Replace(f.url, "/postgres?", "/pgbouncer?", 1) }

func TestConsole_everyTable_inEveryProtocol(t *testing.T) {
	f := follow(t, "", pgtest.Shared(t, 0))
	client, admin := pgtest.Connect(t, f.url), pgtest.Connect(t, f.console())
	_, err := client.Exec(t.Context(), "select 1")
	require.NoError(t, err)
	read := func(sql string, mode pgx.QueryExecMode) [][]any {
		t.Helper()
		rows, err := admin.Query(t.Context(), sql, mode)
		require.NoError(t, err, sql)
		all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]any, error) { return row.Values() })
		require.NoError(t, err, "%s %v", sql, mode)
		return all
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeDescribeExec, pgx.QueryExecModeCacheStatement,
	} {
		for _, row := range read("SHOW HELP", mode) {
			if text := row[0].(string); strings.HasPrefix(text, "SHOW") {
				read(text, mode)
			}
		}
		pools := read("SHOW POOLS", mode)
		require.Len(t, pools, 1)
		require.Equal(t, []any{"postgres", "postgres", int64(1), int64(0)}, pools[0][:4])
		require.Equal(t, "yes", read("SHOW TOPOLOGY", mode)[0][4])
	}
	clients := read("SHOW CLIENTS", pgx.QueryExecModeExec)
	require.Len(t, clients, 1, "the console's own are none")
	require.Equal(t, []any{"C", "postgres", "postgres"}, clients[0][:3])
	require.Equal(t, "unix", clients[0][4])
	for _, row := range read("SHOW CONFIG", pgx.QueryExecModeExec) {
		if row[0] == "upstream.url" {
			require.Contains(t, row[1], "postgres://")
		}
	}
}

// The exporter for PgBouncer speaks through database/sql and lib/pq, and ends each query with a semicolon.
func TestConsole_exportersQueries_areAnswered(t *testing.T) {
	f := follow(t, "", pgtest.Shared(t, 0))
	_, err := pgtest.Connect(t, f.url).Exec(t.Context(), "select 1")
	require.NoError(t, err)
	dir := filepath.Dir(f.socket)
	db, err := sql.Open("postgres", "host="+dir+" port=6432 user=postgres dbname=pgbouncer sslmode=disable")
	require.NoError(t, err)
	defer db.Close()
	for query, columns := range map[string][]string{
		"SHOW STATS":         {"database", "total_xact_count"},
		"SHOW VERSION;":      {"version"},
		"SHOW LISTS;":        {"list", "items"},
		"SHOW CONFIG;":       {"key", "value", "default", "changeable"},
		"SHOW databases;":    {"name", "pool_size", "current_connections", "paused", "disabled"},
		"SHOW stats_totals;": {"database", "xact_count"},
		"SHOW pools;":        {"database", "user", "cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login", "maxwait"},
	} {
		rows, err := db.QueryContext(t.Context(), query)
		require.NoError(t, err, query)
		names, err := rows.Columns()
		require.NoError(t, err)
		require.Subset(t, names, columns, query)
		require.True(t, rows.Next(), query)
		require.NoError(t, rows.Close())
		require.NoError(t, rows.Err())
	}
}

func TestConsole_pauseAndResume_loseNoQuery(t *testing.T) {
	f := follow(t, "", pgtest.Shared(t, 0))
	busy, idle, admin := pgtest.Connect(t, f.url), pgtest.Connect(t, f.url), pgtest.Connect(t, f.console())
	ctx := context.WithoutCancel(t.Context())
	pid := func(conn *pgx.Conn) (pid int) {
		require.NoError(t, conn.QueryRow(ctx, "select pg_backend_pid()").Scan(&pid))
		return pid
	}
	tx, err := busy.Begin(ctx)
	require.NoError(t, err)
	paused, answered := make(chan error, 1), make(chan error, 1)
	go func() { _, err := admin.Exec(ctx, "PAUSE"); paused <- err }()
	says := func(text string) func() bool {
		return func() bool { _, out := f.ask("status"); return strings.Contains(out, text) }
	}
	awaitThat(t, "it is paused", says("an operator has paused them"))
	go func() { _, err := idle.Exec(ctx, "select 1"); answered <- err }()
	awaitThat(t, "the other one waits", says("1 waiting"))
	require.Empty(t, paused, "a transaction is under way")
	require.NoError(t, tx.Commit(ctx))
	require.NoError(t, <-paused)
	require.Empty(t, answered)
	_, err = admin.Exec(ctx, "RESUME")
	require.NoError(t, err)
	require.NoError(t, <-answered)
	_, err = admin.Exec(ctx, "RESUME")
	require.ErrorContains(t, err, "nobody has paused it")

	before := pid(idle)
	_, err = admin.Exec(ctx, "RECONNECT")
	require.NoError(t, err)
	require.NotEqual(t, before, pid(idle))
	_, err = admin.Exec(ctx, "RELOAD")
	require.NoError(t, err)
}

func TestConsole_userThatIsNotNamed_isRefused(t *testing.T) {
	f := follow(t, "admin: {users: [dba]}", pgtest.Shared(t, 0))
	_, err := pgx.Connect(t.Context(), f.console())
	require.ErrorContains(t, err, "may not use the console")
}
