package proxy_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

func refusing(config *proxy.Config) {
	config.Pool.MaxConnections = 2 // one listens
	config.Unsupported = session.RefuseUnsupported
}

func TestUnsupported_error_refusesBeforeTheStatementRuns(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		var log lines
		p := startFor(t, c.URL(c.Database(t), pgtest.Superuser), refusing, &log)
		conn := pgtest.Connect(t, p.url())
		one(t, conn, "create table seen (a int); create sequence numbers")
		for sql, message := range map[string]string{
			`create temp table "it's \" (a int)`:                  `temp table "it's \" is not supported: it would tie the session to its server connection`,
			"insert into seen values (1); create temp table t ()": `temp table "t" is not supported: it would tie the session to its server connection`,
			`create temp table "ÄÖ" ()`:                           `temp table "ÄÖ" is not supported: it would tie the session to its server connection`,
			"select pg_advisory_lock(1)":                          "advisory lock is not supported: it would tie the session to its server connection",
			"declare c cursor with hold for select 1":             `cursor "c" WITH HOLD is not supported: it would tie the session to its server connection`,
			"prepare s as select 1":                               "PREPARE s is not supported: it would tie the session to its server connection",
			"select lastval()":                                    "lastval() is not supported: it would tie the session to its server connection",
			"select setseed(0.5)":                                 "setseed() is not supported: it would tie the session to its server connection",
			"load 'plpgsql'":                                      "LOAD is not supported: it would tie the session to its server connection",
		} {
			e := refusal(t, conn, sql)
			require.Equal(t, "0A000", e.Code)
			require.Equal(t, message, e.Message)
			require.Contains(t, e.Hint, "session.on_unsupported: pin")
		}
		require.Equal(t, "0", one(t, conn, "select count(*) from seen"))
		require.Equal(t, "0", one(t, conn, "select count(*) from pg_class where relpersistence = 't'"))
		for _, sql := range []string{
			"begin; create temp table t (a int) on commit drop; commit", "select pg_advisory_xact_lock(1)", "set work_mem to '5MB'", "listen x", "unlisten x",
			"begin; declare c cursor for select 1; commit", "select nextval('numbers')", "discard all", "select pg_advisory_unlock_all()",
		} {
			one(t, conn, sql)
		}
		require.Empty(t, p.Snapshot().Pins)
		require.Equal(t, "refused", p.Snapshot().PinningStatements[0].Verdict.String())
		require.Equal(t, 1, strings.Count(log.String(), `statement="select pg_advisory_lock(?)"`), log.String())
	})
}

func TestUnsupported_error_failsTheTransactionAsTheServerWould(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), refusing)
	c := raw(t, p.url())
	refused := "E 0A000 advisory lock is not supported: it would tie the session to its server connection"
	require.Equal(t, []string{"C BEGIN", "Z T"}, c.say(query("begin")))
	require.Equal(t, []string{refused, "Z E"}, c.say(query("select pg_advisory_lock(1)")))
	require.Equal(t, []string{"E 25P02 current transaction is aborted, commands ignored until end of transaction block", "Z E"},
		c.say(query("select pg_advisory_lock(1)")))
	require.Equal(t, []string{"C ROLLBACK", "Z I"}, c.say(query("commit")))

	// In the extended protocol the statement can be prepared and described, and cannot be run.
	require.Equal(t, []string{"1", "t", "T pg_advisory_lock", "Z I"},
		c.say(parse("lock", "select pg_advisory_lock($1)"), describe("lock"), syncNow()))
	require.Equal(t, []string{"2", refused, "Z I"}, c.say(run("lock", strings.Repeat("0", 5)+"7")...))
	require.Equal(t, []string{"1", "2", "D 1", "C SELECT 1", "2", refused, "Z I"}, c.say(
		parse("one", "select 1"), bind("one"), execute(), bind("lock", "1"), execute(), bind("one"), execute(), syncNow()))
	require.Equal(t, "0", one(t, pgtest.Connect(t, p.url()), "select count(*) from pg_locks where locktype = 'advisory'"))
}

func TestUnsupported_error_largeBindIsRefusedToo(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), refusing)
	conn := pgtest.Connect(t, p.url())
	_, err := conn.Exec(t.Context(), "select pg_advisory_lock(length($1::text))", strings.Repeat("x", 3<<20))
	require.Equal(t, "0A000", pgError(t, err).Code)
	require.Equal(t, "1", one(t, conn, "select 1"))
}

// warned connects and returns the connection and the warnings that come.
func warned(t *testing.T, url string) (*pgx.Conn, *[]string) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	warnings := new([]string)
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { *warnings = append(*warnings, n.Severity+" "+n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn, warnings
}

func TestUnsupported_whatOnlyTheAuditFinds_pinsWithAWarning(t *testing.T) {
	for _, mode := range []session.Unsupported{session.WarnUnsupported, session.RefuseUnsupported} {
		p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Unsupported = mode })
		conn, warnings := warned(t, p.url())
		one(t, conn, "do $$ begin execute 'create temp table t ()'; end $$")
		p.pinned(t, `temp table "t"`)
		one(t, conn, "select 1")
		one(t, conn, "select 2")
		require.Equal(t, []string{`WARNING the session is tied to its server connection from now on: temp table "t"`}, *warnings)
	}
}

func TestUnsupported_warn_runsTheStatement(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Unsupported = session.WarnUnsupported })
	conn, warnings := warned(t, p.url())
	one(t, conn, "select pg_advisory_lock(3)")
	one(t, conn, "select 1")
	require.Equal(t, []string{`WARNING the session is tied to its server connection from now on: advisory lock`}, *warnings)
}

func TestUnsupported_databaseHasItsOwn(t *testing.T) {
	pin := session.PinUnsupported
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Unsupported = session.RefuseUnsupported
		config.Databases = map[string]proxy.Database{"lenient": {Name: "postgres", Unsupported: &pin}}
	})
	require.Equal(t, "0A000", refusal(t, pgtest.Connect(t, p.url()), "create temp table t ()").Code)
	one(t, pgtest.Connect(t, p.as(t, "lenient", pgtest.Superuser)), "create temp table t ()")
}

func TestExplain_nothingIsRefusedAndAllIsReported(t *testing.T) {
	var log lines
	c := pgtest.Shared(t, 0)
	p := startFor(t, c.URL("postgres", pgtest.Superuser), func(config *proxy.Config) {
		config.Unsupported, config.Session.Explain = session.RefuseUnsupported, true
	}, &log)
	conn, warnings := warned(t, p.url())
	one(t, conn, "create temp table t (a int)")
	_, err := conn.Exec(t.Context(), "select pg_advisory_lock($1)", 5)
	require.NoError(t, err)
	one(t, conn, "select 1")
	require.Empty(t, *warnings)
	verdicts := map[string]string{}
	for _, one := range p.Snapshot().PinningStatements {
		verdicts[one.Statement] += one.Verdict.String() + ";"
	}
	require.Contains(t, verdicts["create temp table t (a int)"], "would be refused")
	require.Contains(t, verdicts["select pg_advisory_lock($1)"], "would be refused")
	require.Contains(t, log.String(), `verdict="would be refused"`)
}

func TestExplain_sessionMode_tellsWhatWouldPin(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Mode, config.Session.Explain = session.WholeSession, true
	})
	conn := pgtest.Connect(t, p.url("application_name", "old"))
	for range 3 {
		one(t, conn, "create temp table if not exists t (a int)")
	}
	_, err := conn.Exec(t.Context(), "select pg_advisory_lock($1)", 5)
	require.NoError(t, err)
	one(t, conn, "set work_mem to '5MB'")
	statements := p.Snapshot().PinningStatements
	require.Len(t, statements, 2)
	require.Equal(t, `temp table "t"`, statements[0].Reason)
	require.EqualValues(t, 3, statements[0].Count)
	require.Equal(t, "would pin", statements[0].Verdict.String())
	require.Equal(t, "select pg_advisory_lock($1)", statements[1].Statement)
	require.Empty(t, p.Snapshot().PinnedClients)
}
