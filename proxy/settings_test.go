package proxy_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// one runs a query in the simple protocol and returns its first value.
func one(t *testing.T, conn *pgx.Conn, sql string) string {
	t.Helper()
	results, err := conn.PgConn().Exec(context.WithoutCancel(t.Context()), sql).ReadAll()
	require.NoError(t, err, sql)
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

// onOne starts a proxy whose pool has a single connection, so that all clients meet the same server.
func onOne(t *testing.T, c *pgtest.Cluster) *testProxy {
	t.Helper()
	return start(t, c, func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
}

func TestSettings_ofTwoClientsOnOneServerStayApart(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		a, b := pgtest.Connect(t, p.url("application_name", "a")), pgtest.Connect(t, p.url("application_name", "b"))
		for _, step := range []struct{ set, show, a, b string }{
			{"set work_mem to '7MB'", "show work_mem", "7MB", "4MB"},
			{"set search_path to pg_catalog, \"Weird\"\"one\"", "show search_path", `pg_catalog, "Weird""one"`, `"$user", public`},
			{"set app.user_id to 'it''s me'", "select current_setting('app.user_id', true)", "it's me", ""},
			{"select set_config('app.other', 'x', false)", "select current_setting('app.other', true)", "x", ""},
			{"set time zone 'Asia/Tokyo'", "show timezone", "Asia/Tokyo", one(t, b, "show timezone")},
			{"do $$ begin perform set_config('lock_timeout', '77s', false); end $$", "show lock_timeout", "77s", "0"},
			{"begin; set local work_mem to '9MB'; commit", "show work_mem", "7MB", "4MB"},
			{"begin; set work_mem to '9MB'; rollback", "show work_mem", "7MB", "4MB"},
			{"begin; set work_mem to '9MB'; commit", "show work_mem", "9MB", "4MB"},
			{"reset application_name", "show application_name", "a", "b"},
			{"reset all", "show work_mem", "4MB", "4MB"},
			{"select 1", "select current_setting('app.user_id', true)", "", ""},
			{"select 1", "show application_name", "a", "b"},
			{"set session characteristics as transaction read only", "show default_transaction_read_only", "on", "off"},
			{"discard all", "show default_transaction_read_only", "off", "off"},
		} {
			one(t, a, step.set)
			require.Equal(t, step.b, one(t, b, step.show), "b, after %s", step.set)
			require.Equal(t, step.a, one(t, a, step.show), "a, after %s", step.set)
		}
		require.Empty(t, p.Snapshot().Pinned)
	})
}

func TestSettings_replayedOnlyWhenTheServerHasOthers(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	a := pgtest.Connect(t, p.url())
	one(t, a, "set work_mem to '7MB'")
	before := p.Snapshot().Totals.StateReplays
	for range 10 {
		require.Equal(t, "7MB", one(t, a, "show work_mem"))
	}
	require.Equal(t, before, p.Snapshot().Totals.StateReplays)
}

// An operator is the one way to call a function that no text shows.
func TestSentinel_reportsAndClosesAServerThatHoldsState(t *testing.T) {
	c := pgtest.Shared(t, 0)
	c.Exec(t, `create or replace function sly(int, int) returns int language plpgsql as
		'begin perform set_config(''work_mem'', ''9MB'', false); return 1; end';
		drop operator if exists ### (int, int);
		create operator ### (leftarg = int, rightarg = int, function = sly)`)
	p := onOne(t, c)
	a, b := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, a, "select 1 ### 2")
	require.Equal(t, "4MB", one(t, b, "show work_mem"))
	require.EqualValues(t, 1, p.Snapshot().Totals.StateLeaks)
}
