package proxy_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/stats"
)

// pinned waits until one client is pinned for a reason, any if that is empty, and returns what is told about it: it becomes
// known when the client has got its answer.
func (p *testProxy) pinned(t testing.TB, reason string) (one stats.PinnedClient) {
	t.Helper()
	await(t, "a pin: "+reason, func() bool {
		all := p.Snapshot().PinnedClients
		if len(all) != 1 || (reason != "" && all[0].Reason != reason) {
			return false
		}
		one = all[0]
		return true
	})
	return one
}

func TestPins_eachIsExplainedUntilItEnds(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		c.ExecIn(t, database, `create sequence numbers;
			create function makes_temp(text) returns void language plpgsql as 'begin execute ''create temp table '' || $1 || ''()''; end'`)
		p := startFor(t, c.URL(database, pgtest.Superuser), nil)
		for _, test := range []struct{ begin, kind, reason, statement, end string }{
			{"create temp table t as select 'secret' as a", "temporary object", `temp table "t"`, "create temp table t as select ? as a", "drop table t"},
			{"begin; select 1; select makes_temp('u'); commit", "temporary object", `temp table "u"`, "begin; select ?; select makes_temp(?); commit", "discard temp"},
			{"do $$ begin execute 'create temp view v as select 1'; end $$", "temporary object", `temp view "v"`, "do ?", "drop view v"},
			{"select pg_advisory_lock(7)", "advisory lock", "advisory lock", "select pg_advisory_lock(?)", "select pg_advisory_unlock(7)"},
			{"declare c cursor with hold for select 1", "cursor WITH HOLD", `cursor "c" WITH HOLD`, "declare c cursor with hold for select ?", "close c"},
			{"prepare s as select 1", "PREPARE", `PREPARE "s"`, "prepare s as select ?", "deallocate s"},
			{"select nextval('numbers'), lastval()", "currval() or lastval()", "lastval()", "select nextval(?), lastval()", "discard all"},
		} {
			conn := pgtest.Connect(t, p.url("application_name", "who"))
			before := time.Now().Add(-time.Second)
			one(t, conn, test.begin)
			got := p.pinned(t, "")
			require.WithinRange(t, got.Since, before, time.Now())
			require.Equal(t, conn.PgConn().Conn().LocalAddr().String(), got.Client)
			require.Equal(t, stats.PinnedClient{
				Client: got.Client, Since: got.Since, Application: "who", Database: database, User: pgtest.Superuser,
				Kind: test.kind, Reason: test.reason, Statement: test.statement,
			}, got)
			one(t, conn, "select 1")
			require.Equal(t, got, p.pinned(t, ""), "what happens later does not change it")
			one(t, conn, test.end)
			await(t, "its end", func() bool { return len(p.Snapshot().PinnedClients) == 0 })
		}
	})
}

func TestPins_preparedStatementIsNamedByItsText(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	conn := pgtest.Connect(t, p.url())
	_, err := conn.Exec(t.Context(), "select pg_advisory_lock($1)", 5)
	require.NoError(t, err)
	require.Equal(t, "select pg_advisory_lock($1)", p.pinned(t, "advisory lock").Statement)
}

func TestPins_secondReasonTakesOverWithItsOwnStatement(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "select pg_advisory_lock(1)")
	one(t, conn, "create temp table t ()")
	require.Equal(t, "create temp table t ()", p.pinned(t, `temp table "t", advisory lock`).Statement)
	one(t, conn, "drop table t")
	require.Equal(t, "select pg_advisory_lock(?)", p.pinned(t, "advisory lock").Statement)
}

func TestPins_areCountedAndLoggedOncePerStatement(t *testing.T) {
	c := pgtest.Shared(t, 0)
	var log lines
	p := startFor(t, c.URL(c.Database(t), pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 3 }, &log)
	for range 3 {
		conn := pgtest.Connect(t, p.url())
		one(t, conn, "select pg_advisory_lock_shared(987654321)")
		one(t, conn, "select 1")
		require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
	}
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "create temp table t ()")
	one(t, conn, "select 1")
	require.Equal(t, []stats.Count{{Label: "advisory lock", Count: 3}, {Label: "temporary object", Count: 1}}, p.Snapshot().Pins)
	statements := p.Snapshot().PinningStatements
	require.Len(t, statements, 2)
	require.Equal(t, "select pg_advisory_lock_shared(?)", statements[0].Statement)
	require.EqualValues(t, 3, statements[0].Count)
	require.Equal(t, 1, strings.Count(log.String(), `reason="advisory lock"`))
	require.Equal(t, 1, strings.Count(log.String(), `reason="temp table`))
	require.NotContains(t, log.String(), "987654321")
	require.InDelta(t, 1, func() float64 { s := p.Snapshot(); return s.ClientsPerBusyServer() }(), 0.01)
}

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
