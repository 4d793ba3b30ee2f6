package proxy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

func TestFailure_idleServerThatHasEnded_isReplacedUnseen(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			c := pgtest.Shared(t, 0)
			role := c.Role(t)
			p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Loops = loops })
			server := watch(t, c)
			clients := []*pgx.Conn{pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())}
			for range 10 {
				for _, conn := range clients {
					require.Equal(t, "1", one(t, conn, "select 1"))
				}
				server.remove(role)
			}
			require.Empty(t, p.Snapshot().Errors)
		})
	}
}

// PgBouncer's #946.
func TestFailure_serverRestarts_clientsWaitAndGoOn(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	p := start(t, c, nil)
	conn := pgtest.Connect(t, p.url("application_name", "stays"))
	c.Stop(t, pgtest.Fast)
	waits := started(func() error { _, err := try(conn, "select 1"); return err })
	login := started(func() error {
		fresh, err := pgtest.TryConnect(t, p.url())
		if err != nil {
			return err
		}
		_, err = try(fresh, "select 1")
		return err
	})
	await(t, "both wait", func() bool { return p.waiting() == 2 })
	c.StartAgain(t)
	require.NoError(t, <-waits)
	require.NoError(t, <-login)
	require.Equal(t, "stays", one(t, conn, "show application_name"))
	require.Empty(t, p.Snapshot().Errors)
}

func TestFailure_serverStopsDuringATransaction_theClientIsTold(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	for name, test := range map[string]struct {
		stop  func()
		codes []string
	}{
		"shutdown": {func() { c.Stop(t, pgtest.Fast) }, []string{"57P01"}},
		// The process has no time for a word, or PostgreSQL has its other processes say something.
		"crash": {func() { c.Kill(t) }, []string{"08006", "57P02"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, nil)
			busy, idle := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
			one(t, busy, "begin")
			test.stop()
			e := refusal(t, busy, "select 1")
			require.Equal(t, "ERROR", e.Severity)
			require.Contains(t, test.codes, e.Code)
			c.StartAgain(t)
			require.Equal(t, "25P02", refusal(t, busy, "select 1").Code, "its transaction has failed")
			one(t, busy, "rollback")
			require.Equal(t, "1", one(t, busy, "select 1"), "and it goes on")
			require.Equal(t, "1", one(t, idle, "select 1"), "others notice nothing")
			require.Equal(t, "1", one(t, pgtest.Connect(t, p.url()), "select 1"))
		})
	}
}

func TestFailure_serverStaysAway_isToldWhenHoldHasPassed(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	p := start(t, c, func(config *proxy.Config) { config.Pool.Hold = 200 * time.Millisecond })
	conn := pgtest.Connect(t, p.url())
	c.Stop(t, pgtest.Fast)
	for range 2 {
		e := refusal(t, conn, "select 1")
		require.Equal(t, "ERROR", e.Severity)
		require.Equal(t, "57P03", e.Code)
		require.NotEmpty(t, e.Hint)
	}
	e := loginError(t, p.url("application_name", "new"))
	require.Equal(t, "FATAL", e.Severity)
	require.Equal(t, "57P03", e.Code)
	c.StartAgain(t)
	await(t, "the same client is served again", func() bool { _, err := try(conn, "select 1"); return err == nil })
}

// PgBouncer's #998.
func TestFailure_loginOfOneServer_isToldToAllWaiters(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), nil)
	const clients = 10
	conns := make([]*pgx.Conn, clients)
	for i := range conns {
		conns[i] = pgtest.Connect(t, p.url())
	}
	c.Exec(t, "alter role "+role+" nologin")
	watch(t, c).remove(role)
	var ends []<-chan error
	for _, conn := range conns {
		ends = append(ends, started(func() error { _, err := try(conn, "select 1"); return err }))
	}
	for _, end := range ends {
		e := pgError(t, <-end)
		require.Equal(t, "ERROR", e.Severity)
		require.Equal(t, "28000", e.Code)
		require.Equal(t, `role "`+role+`" is not permitted to log in`, e.Message)
	}
	log, err := os.ReadFile(c.LogFile())
	require.NoError(t, err)
	require.Less(t, strings.Count(string(log), `role "`+role+`" is not permitted`), clients/2, "not one login for each waiter")
	c.Exec(t, "alter role "+role+" login")
	await(t, "the clients are served again", func() bool { _, err := try(conns[0], "select 1"); return err == nil })
}

func TestFailure_fullServer_waitersGetTheConnectionsThereAre(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t, "CONNECTION LIMIT 1")
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Pool.Hold = 100 * time.Millisecond })
	holder, waiter := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, holder, "begin")
	served := started(func() error { _, err := try(waiter, "select 1"); return err })
	await(t, "the server refuses another connection", func() bool {
		log, err := os.ReadFile(c.LogFile())
		return err == nil && strings.Contains(string(log), `too many connections for role "`+role+`"`)
	})
	one(t, holder, "select pg_sleep(0.3)")
	one(t, holder, "commit")
	require.NoError(t, <-served)
}

// busyWith counts the server processes that execute a query.
func (w *witness) busyWith(query string) int {
	w.t.Helper()
	return w.count("select count(*) from pg_stat_activity where state <> 'idle' and query = $1", query)
}

// PgBouncer's #413 and #1298.
func TestFailure_clientGoneInTheMiddle_itsQueryIsCancelledAndTheServerFree(t *testing.T) {
	ways := map[string]func(c *pgtest.Client){
		"reset": func(c *pgtest.Client) { _ = c.Reset() },
		"close": func(c *pgtest.Client) { _ = c.Conn.Close() },
		"half":  func(c *pgtest.Client) { c.CloseWrite() },
	}
	const sleep = "select pg_sleep(600)"
	for name, asks := range map[string][]pgproto3.Message{
		"query":          {&pgproto3.Query{String: sleep}},
		"in transaction": {&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: sleep}},
		"extended":       {&pgproto3.Parse{Query: sleep}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		"without sync":   {&pgproto3.Parse{Query: sleep}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{}},
		"pipeline":       {&pgproto3.Query{String: "select 1"}, &pgproto3.Query{String: sleep}, &pgproto3.Query{String: sleep}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, mode := range modes() {
				c := pgtest.Shared(t, 0)
				role := c.Role(t)
				p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
					config.Pool.MaxConnections, config.Mode = 1, mode
				})
				server := watch(t, c)
				executing := func() int {
					return server.count("select count(*) from pg_stat_activity where usename = $1 and state = 'active' and query = $2", role, sleep)
				}
				for _, leave := range ways {
					client := pgtest.Dial(t, p.Addresses()[0])
					client.Login("postgres", role)
					client.Send(asks...)
					await(t, "the query", func() bool { return executing() == 1 })
					leave(client)
					await(t, "its end", func() bool { return executing() == 0 })
					next := pgtest.Connect(t, p.url())
					require.Equal(t, "1", one(t, next, "select 1"))
					require.NoError(t, next.Close(t.Context()))
				}
			}
		})
	}
}

// A cancel request that reaches the server before it has begun the query is ignored: it has to be made again.
func TestFailure_clientGoneAtOnce_nothingIsLeftRunning(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Pool.MaxConnections = 5 })
	for range 60 {
		client := pgtest.Dial(t, p.Addresses()[0])
		client.Login("postgres", role)
		client.Send(&pgproto3.Query{String: "select pg_sleep(600)"})
		require.NoError(t, client.Reset())
	}
	server := watch(t, c)
	await(t, "the end of all", func() bool {
		return p.Snapshot().Clients.All() == 0 && server.count("select count(*) from pg_stat_activity where usename = $1 and state = 'active'", role) == 0
	})
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url()), "select 1"))
}

func TestFailure_terminateRightBehindAQuery_theQueryIsStillExecuted(t *testing.T) {
	c := pgtest.Shared(t, 0)
	c.Exec(t, "create table if not exists said_last (what text)")
	t.Cleanup(func() { c.Exec(t, "drop table said_last") })
	server := watch(t, c)
	for name, mode := range modes() {
		for kind, asks := range map[string]func(sql string) []pgproto3.Message{
			"simple": func(sql string) []pgproto3.Message { return []pgproto3.Message{&pgproto3.Query{String: sql}} },
			"extended": func(sql string) []pgproto3.Message {
				return []pgproto3.Message{&pgproto3.Parse{Query: sql}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}}
			},
			"block": func(sql string) []pgproto3.Message {
				return []pgproto3.Message{&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: sql}, &pgproto3.Query{String: "commit"}}
			},
		} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				p := start(t, c, func(config *proxy.Config) { config.Mode = mode })
				for i := range 10 {
					what := fmt.Sprint(name, kind, i)
					client := pgtest.Dial(t, p.Addresses()[0])
					client.Login("postgres", pgtest.Superuser)
					client.Send(append(asks("insert into said_last values ('"+what+"')"), &pgproto3.Terminate{})...)
					_ = client.Conn.Close()
					await(t, "the row", func() bool { return server.count("select count(*) from said_last where what = $1", what) == 1 })
				}
			})
		}
	}
}

func TestFailure_clientLeavesWhileItWaits_whatItHasAskedForIsDoneIfItHasSaidGoodbye(t *testing.T) {
	c := pgtest.Shared(t, 0)
	c.Exec(t, "create table if not exists said_waiting (what text)")
	t.Cleanup(func() { c.Exec(t, "drop table said_waiting") })
	p := onOne(t, c)
	holder := pgtest.Connect(t, p.url())
	one(t, holder, "begin")
	ask := func(what string, more ...pgproto3.Message) *pgtest.Client {
		client := pgtest.Dial(t, p.Addresses()[0])
		client.Login("postgres", pgtest.Superuser)
		waiting := p.waiting()
		client.Send(append([]pgproto3.Message{&pgproto3.Query{String: "insert into said_waiting values ('" + what + "')"}}, more...)...)
		await(t, "it waits", func() bool { return p.waiting() == waiting+1 })
		return client
	}
	// What is longer than what is read ahead may end with Terminate.
	for _, what := range []string{"polite", strings.Repeat("long and polite ", 10_000)} {
		_ = ask(what, &pgproto3.Terminate{}).Conn.Close()
	}
	_ = ask("gone").Conn.Close()
	_ = ask("reset").Reset()
	await(t, "those who have said nothing leave", func() bool { return p.waiting() == 2 })
	one(t, holder, "commit")
	await(t, "the others leave", func() bool { return p.Snapshot().Clients.All() == 1 })
	require.Equal(t, "2 polite", one(t, holder, "select count(*) || ' polite' from said_waiting where what like '%polite%'"))
	require.Equal(t, "2", one(t, holder, "select count(*) from said_waiting"))
}

func TestFailure_serverEndsAPinnedSession_theClientIsTold(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Mode = session.Transaction })
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "create temp table t ()")
	await(t, "the pin", func() bool { return len(p.Snapshot().Pinned) == 1 })
	watch(t, c).remove(role)
	e := refusal(t, conn, "select 1")
	require.Equal(t, "57P01", e.Code)
	await(t, "the pin is gone", func() bool { return len(p.Snapshot().Pinned) == 0 })
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url()), "select 1"))
}

func TestFailure_cancelOfAWaitingClient_refusesWhatItWaitsWith(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	holder := pgtest.Connect(t, p.url())
	client := pgtest.Dial(t, p.Addresses()[0])
	login := client.Login("postgres", pgtest.Superuser)
	one(t, holder, "begin")
	client.Send(&pgproto3.Query{String: "select 1"})
	await(t, "it waits", func() bool { return p.waiting() == 1 })
	client.Cancel(login)
	client.Expect("E 57014", "Z I")
	client.Send(&pgproto3.Query{String: "select 2"})
	await(t, "it waits again", func() bool { return p.waiting() == 1 })
	one(t, holder, "commit")
	client.Expect("T ?column?", "D 2", "C SELECT 1", "Z I")
}
