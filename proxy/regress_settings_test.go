package proxy_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// After RESET the server has a value of its own, which the client must not see. PostgreSQL's tests timestamptz, horology and
// guc ask for the setting at once: before the proxy knows what RESET has done.
func TestReset_theNextStatementSeesTheStartupValue(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, nil)
		conn := pgtest.Connect(t, p.url("datestyle", "Postgres, MDY"))
		for _, reset := range []string{"reset datestyle", "set datestyle to default", "reset all", "do $$ begin reset datestyle; end $$"} {
			for range 20 {
				one(t, conn, "set datestyle to 'SQL, DMY'")
				one(t, conn, reset)
				require.Equal(t, "Postgres, MDY", one(t, conn, "show datestyle"), "after %s", reset)
			}
		}
	})
}

func TestReset_inAPipelineOfQueries_theNextStatementSeesTheStartupValue(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), nil)
	client := pgtest.Dial(t, p.Addresses()[0])
	client.Login("postgres", "postgres", "datestyle=Postgres, MDY")
	client.Send(&pgproto3.Query{String: "set datestyle to 'SQL, DMY'"}, &pgproto3.Query{String: "reset datestyle"},
		&pgproto3.Query{String: "show datestyle"}, &pgproto3.Query{String: "show datestyle"})
	client.ReceiveUntil('Z')
	client.ReceiveUntil('Z')
	for range 2 {
		var shown []byte
		for _, message := range client.ReceiveUntil('Z') {
			if decoded, err := message.Decode(); err == nil && message.Type == 'D' {
				shown = decoded.(*pgproto3.DataRow).Values[0]
			}
		}
		require.Equal(t, "Postgres, MDY", string(shown))
	}
}

// A name with a prefix is a custom setting only until the library is loaded that it belongs to; then it has a default, which
// is nothing that a client has left. PostgreSQL's test plpgsql sets some.
func TestAudit_settingOfALoadedLibrary_isNotLeftByAClient(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	a, b := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, a, "do $$ begin end $$") // loads plpgsql
	one(t, a, "set plpgsql.extra_warnings to 'shadowed_variables'")
	require.Equal(t, "none", one(t, b, "show plpgsql.extra_warnings"))
	require.Equal(t, "shadowed_variables", one(t, a, "show plpgsql.extra_warnings"))
	one(t, a, "reset plpgsql.extra_warnings")
	one(t, b, "do $$ begin end $$")
	require.Equal(t, "none", one(t, a, "show plpgsql.extra_warnings"))
	require.Zero(t, p.Snapshot().Totals.StateLeaks)
}

// After RESET, and after SET to nothing, a custom setting is there and empty, for the client that has set it. PostgreSQL's
// test guc asks for it with SHOW.
func TestSettings_customOnesThatAreEmpty_areStillThere(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onTwo(t, c)
		client := pgtest.Connect(t, p.url())
		free := occupy(t, p, "")
		one(t, client, "set regress.reset to 'x'; set regress.empty to ''")
		one(t, client, "reset regress.reset")
		_, err := client.Exec(t.Context(), "select set_config('regress.called', '', false)") // by the extended protocol
		require.NoError(t, err)
		occupy(t, p, one(t, client, "select pg_backend_pid()"))
		free()
		for _, name := range []string{"regress.reset", "regress.empty", "regress.called"} {
			require.Empty(t, one(t, client, "show "+name))
		}
		require.Empty(t, p.Snapshot().Pinned)
		require.Zero(t, p.Snapshot().Totals.StateLeaks)
	})
}

func onTwo(t *testing.T, c *pgtest.Cluster) *testProxy {
	t.Helper()
	return start(t, c, func(config *proxy.Config) { config.Pool.MaxConnections = 2 })
}

// occupy holds a server, the one with this process id or any, until the test ends or free is called.
func occupy(t *testing.T, p *testProxy, pid string) (free func()) {
	t.Helper()
	holder := pgtest.Connect(t, p.url())
	for range 1000 {
		one(t, holder, "begin")
		if held := one(t, holder, "select pg_backend_pid()"); pid == "" || held == pid {
			return func() { one(t, holder, "rollback") }
		}
		one(t, holder, "rollback")
	}
	t.Fatal("the server is not free")
	return nil
}

// What a server remembers of another client's sequences is no answer. PostgreSQL's test sequence asks for its own.
func TestSequence_valuesOfOthersAreNotTold(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		a, b := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
		one(t, a, "create sequence regress_seq")
		t.Cleanup(func() { c.Exec(t, "drop sequence regress_seq") })
		for _, ask := range []string{"select currval('regress_seq')", "select lastval()"} {
			for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
				one(t, a, "select nextval('regress_seq')")
				one(t, b, "do $$ begin end $$") // which might have used it
				_, err := b.Exec(t.Context(), ask, mode)
				require.ErrorContains(t, err, "55000")
				one(t, b, "discard all") // ends the pin
				one(t, b, "select nextval('regress_seq')")
				own := one(t, b, "begin; select nextval('regress_seq')")
				require.Equal(t, own, one(t, b, ask), "in the midst of a transaction")
				one(t, b, "commit")
				require.Equal(t, own, one(t, b, ask), "pinned")
				one(t, b, "discard all")
			}
		}
	})
}

// A transaction whose settings the server refuses must not run under others: neither as another user, nor under what the
// server's last client has left. PostgreSQL's test guc came across it, with a setting that one server knows and another refuses.
func TestSettings_thatTheServerRefuses_nothingRunsWithoutThem(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		c.Exec(t, "create table regress_refused (who text)")
		t.Cleanup(func() { c.Exec(t, "drop table regress_refused") })
		direct := pgtest.Connect(t, c.URL("postgres", pgcluster.Superuser))
		for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement} {
			p := onOne(t, c)
			c.Exec(t, "create role regress_refused; grant all on regress_refused to regress_refused")
			client, other := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
			one(t, client, "set role regress_refused")
			one(t, other, "select 1")
			c.Exec(t, "drop owned by regress_refused; drop role regress_refused")
			_, err := client.Exec(t.Context(), "insert into regress_refused values (current_user)", mode)
			require.ErrorContains(t, err, "22023", "%v", mode)
			require.Equal(t, "0", one(t, direct, "select count(*) from regress_refused"))
			_, err = client.Exec(t.Context(), "select 1")
			require.Error(t, err, "the session has ended")
		}
	})
}

// A client that has used a sequence on two servers must not be told the older value.
func TestSequence_olderValuesAreNotTold(t *testing.T) {
	p := onTwo(t, pgtest.Shared(t, 0))
	client := pgtest.Connect(t, p.url())
	one(t, client, "create sequence regress_older")
	free := occupy(t, p, "")
	one(t, client, "select nextval('regress_older')")
	first := one(t, client, "select pg_backend_pid()")
	free()
	free = occupy(t, p, first)
	one(t, client, "select nextval('regress_older')")
	occupy(t, p, one(t, client, "select pg_backend_pid()"))
	free()
	_, err := client.Exec(t.Context(), "select currval('regress_older')")
	require.ErrorContains(t, err, "55000")
	one(t, client, "drop sequence regress_older")
}
