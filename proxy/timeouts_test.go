package proxy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

// short is the limit that these tests set: enough for a query on a busy machine, and not long to wait for.
const short = 500 * time.Millisecond

// limited starts a proxy of two servers with limits.
func limited(t *testing.T, c *pgtest.Cluster, change func(*session.Config)) *testProxy {
	t.Helper()
	return start(t, c, func(config *proxy.Config) {
		config.Pool.MaxConnections = 2
		change(&config.Session)
	})
}

// outlast waits on the server until a limit, and the time that it takes the proxy to see so, have passed several times.
func outlast(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	c.Exec(t, "select pg_sleep($1)", (3 * short).Seconds())
}

// PgBouncer's #125 and #1395.
func TestTimeout_queryIsCancelledAndTheSessionLives(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := limited(t, c, func(config *session.Config) { config.QueryTimeout = short })
	a := raw(t, p.url())
	require.Equal(t, []string{"T pg_sleep", cancelled, "Z I"}, a.say(query("select pg_sleep(600)")))
	require.Equal(t, "D 1", a.say(query("select 1"))[1])
	// In a pipeline only the one that lasts too long is hit.
	require.Equal(t, []string{"1", "2", "D 1", "C SELECT 1", "Z I", "1", "2", cancelled, "Z I", "1", "2", "D 2", "C SELECT 1", "Z I"},
		a.say(together(parse("", "select 1"), run(""), parse("", "select pg_sleep(600)"), run(""), parse("", "select 2"), run(""))...))
	// A transaction that waits for its client runs no query.
	a.say(query("begin"))
	outlast(t, c)
	require.Equal(t, []string{"T ?column?", "D 3", "C SELECT 1", "Z T"}, a.say(query("select 3")))
	require.Equal(t, []string{"T pg_sleep", cancelled, "Z E", "C ROLLBACK", "Z I"}, a.say(query("select pg_sleep(600)"), query("rollback")))
	p.idle(t)
}

func TestTimeout_transactionIsEnded(t *testing.T) {
	c := pgtest.Shared(t, 0)
	w := watch(t, c)
	for _, mode := range []session.Mode{session.Transaction, session.WholeSession} {
		p := start(t, c, func(config *proxy.Config) {
			config.Mode, config.Session.TransactionTimeout = mode, short
		})
		const text = "select pg_sleep(600), 'too long'"
		for _, busy := range []bool{true, false} {
			a := raw(t, p.url())
			a.say(query("begin"), query("select 1"))
			if busy {
				a.Send(query(text))
			}
			require.Equal(t, "E 25P04 terminating connection due to transaction_timeout", a.form(a.Receive()))
			a.ExpectEnd()
			await(t, "the end of its query", func() bool { return !w.executing(text) })
		}
		// What counts is the transaction, not how long the session has had its server.
		b := raw(t, p.url())
		b.say(query("create temp table pinned (n int)"))
		outlast(t, c)
		require.Equal(t, []string{"C BEGIN", "Z T", "T ?column?", "D 1", "C SELECT 1", "Z T"}, b.say(query("begin"), query("select 1")))
		require.Equal(t, []string{"C COMMIT", "Z I"}, b.say(query("commit")))
		outlast(t, c)
		require.Equal(t, "D 2", b.say(query("select 2"))[1])
	}
}

// PgBouncer's #125 and #1395.
func TestTimeout_idleTransactionIsEnded(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := limited(t, c, func(config *session.Config) { config.IdleTransactionTimeout = short })
	name := table(t, c, "n int")
	a, b := raw(t, p.url()), raw(t, p.url())
	a.say(query("begin"), query("insert into "+name+" values (1)"))
	require.Equal(t, "E 25P03 terminating connection due to idle_transaction_timeout", a.form(a.Receive()))
	a.ExpectEnd()
	require.Equal(t, "D 0", b.say(query("select count(*) from " + name))[1], "what it did is undone")
	// One that is at work is not idle, and one that is not in a transaction may rest.
	b.say(query("begin"))
	require.Equal(t, []string{"T pg_sleep", "D", "C SELECT 1", "Z T"}, b.say(query(fmt.Sprintf("select pg_sleep(%f)", (3*short).Seconds()))))
	b.say(query("commit"))
	outlast(t, c)
	require.Equal(t, "D 1", b.say(query("select 1"))[1])
}

func TestTimeout_idleClientIsClosed(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := limited(t, c, func(config *session.Config) { config.ClientIdleTimeout = 2 * short })
	const told = "E 57P05 terminating connection due to client.idle_timeout"
	first := raw(t, p.url())
	require.Equal(t, told, first.form(first.Receive()))
	first.ExpectEnd()
	// Its login needs no server, nor do pings: they count as life all the same. So does waiting in a long query.
	idle, pings, busy, pinned := raw(t, p.url()), raw(t, p.url()), raw(t, p.url()), raw(t, p.url())
	pinned.say(query("create temp table t (n int)"))
	busy.Send(query(fmt.Sprintf("select pg_sleep(%f)", (6 * short).Seconds())))
	alive := time.Now()
	tick := time.NewTicker(short / 5)
	defer tick.Stop()
	for time.Since(alive) < 5*short {
		<-tick.C
		require.Equal(t, []string{"Z I"}, pings.say(syncNow()))
	}
	require.Equal(t, []string{"T pg_sleep", "D", "C SELECT 1", "Z I"}, busy.hear(1))
	require.Equal(t, "D 1", busy.say(query("select 1"))[1], "its rest has only begun")
	for _, client := range []*rawClient{idle, pings, busy, pinned} {
		require.Equal(t, told, client.form(client.Receive()))
		client.ExpectEnd()
	}
	require.Zero(t, p.Snapshot().Clients.All())
}

// A client that never reads is closed, and its server, which is in the middle of an answer, with it. Others notice nothing.
func TestTimeout_clientThatNeverReadsIsClosed(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p, w := limited(t, c, func(config *session.Config) { config.WriteTimeout = short }), watch(t, c)
	deaf, b := raw(t, p.url()), raw(t, p.url())
	const text = "select repeat('x', 1 << 20) from generate_series(1, 1000)"
	deaf.Send(query(text))
	await(t, "its query", func() bool { return w.executing(text) })
	clients := func() int { return p.Snapshot().Clients.All() }
	for i := 0; clients() > 1; i++ {
		require.Equal(t, fmt.Sprint("D ", i), b.say(query(fmt.Sprint("select ", i)))[1])
	}
	await(t, "the end of its query", func() bool { return !w.executing(text) })
	p.idle(t)
	require.Equal(t, "D alive", b.say(query("select 'alive'"))[1])
	// One that reads slowly, but reads, is served.
	slow := raw(t, p.url())
	slow.Send(query("select repeat('x', 1 << 20) from generate_series(1, 10)"))
	tick := time.NewTicker(short / 5)
	defer tick.Stop()
	for range 20 {
		<-tick.C
		buf := make([]byte, 256<<10)
		_, err := slow.Conn.Read(buf)
		require.NoError(t, err)
	}
}
