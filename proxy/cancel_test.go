package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// executing tells whether a server is at work on a query with that text.
func (w *witness) executing(text string) bool {
	return w.count("select count(*) from pg_stat_activity where state = 'active' and wait_event is not null and query = $1", text) > 0
}

const cancelled = "E 57014 canceling statement due to user request"

func TestCancel_endsTheRightQuery(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, w := poolOf(t, c, 3), watch(t, c)
		clients := []*rawClient{raw(t, p.url()), raw(t, p.url()), raw(t, p.url())}
		for i := range 9 {
			var texts []string
			for n, client := range clients {
				texts = append(texts, fmt.Sprintf("select pg_sleep(600), %d, %d", i, n))
				client.Send(query(texts[n]))
				await(t, "its query", func() bool { return w.executing(texts[n]) })
			}
			for n := range clients {
				n = (n + i) % len(clients)
				for other := range clients {
					require.True(t, other == n || clients[other] == nil || w.executing(texts[other]) == (texts[other] != ""))
				}
				clients[n].Cancel(clients[n].login)
				require.Equal(t, []string{"T pg_sleep,?column?,?column?", cancelled, "Z I"}, clients[n].hear(1))
				texts[n] = ""
			}
		}
		require.Equal(t, 3, p.idle(t))
	})
}

// In a transaction, in a pipeline, in COPY: the query ends, and what comes behind goes on as without a proxy.
func TestCancel_whateverIsUnderWay(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p, w := poolOf(t, c, 1), watch(t, c)
	a := raw(t, p.url())
	sleep := "select pg_sleep(600), 'under way'"
	for _, step := range []struct {
		send []any
		want []string
	}{
		{
			[]any{query("begin"), query(sleep), query("select 1"), query("rollback")},
			[]string{"C BEGIN", "Z T", "T pg_sleep,?column?", cancelled, "Z E", "E 25P02 current transaction is aborted, commands ignored until end of transaction block", "Z E", "C ROLLBACK", "Z I"},
		},
		{
			[]any{parse("", sleep), run(""), parse("s", "select 2"), run("s"), closeStatement("s"), syncNow()},
			[]string{"1", "2", cancelled, "Z I", "1", "2", "D 2", "C SELECT 1", "Z I", "3", "Z I"},
		},
		{
			[]any{parse("", sleep), bind(""), execute(), parse("s", "select 2"), bind("s"), execute(), syncNow(), query("select 3")},
			[]string{"1", "2", cancelled, "Z I", "T ?column?", "D 3", "C SELECT 1", "Z I"},
		},
		{
			[]any{query("select 1; " + sleep + "; select 2"), query("select 3")},
			[]string{"T ?column?", "D 1", "C SELECT 1", "T pg_sleep,?column?", cancelled, "Z I", "T ?column?", "D 3", "C SELECT 1", "Z I"},
		},
	} {
		send := together(step.send...)
		a.Send(send...)
		await(t, "the query", func() bool {
			return w.count("select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query like '%under way%' and pid <> pg_backend_pid()") > 0
		})
		a.Cancel(a.login)
		ready := 0
		for _, m := range step.want {
			if m[0] == 'Z' {
				ready++
			}
		}
		require.Equal(t, step.want, a.hear(ready))
	}
	// COPY, which hears of it with the client's next data.
	a.Send(query("copy (select 1) to stdout"), query("create temp table t (a int); copy t from stdin"))
	require.Equal(t, []string{"H", "d 2", "c", "C COPY 1", "Z I"}, a.hear(1))
	a.Expect("C CREATE TABLE", "G")
	a.Cancel(a.login)
	a.Send(copyData("1\n"), copyData("2\n"))
	require.Equal(t, []string{cancelled, "Z I"}, a.hear(1))
	require.Equal(t, "D alive", a.say(copyDone(), query("select 'alive'"))[1])
}

// Cancel requests that come late hit nobody: not the client that is idle by then, and not the one that has its server now.
// PgBouncer's #38, #245 and #717.
func TestCancel_lateOnesHitNobody(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := poolOf(t, c, 2)
	ctx, stop := context.WithCancel(context.Background())
	var victims, cancelling sync.WaitGroup
	faults := make(chan error, 100)
	for range 4 {
		conn := pgtest.Connect(t, p.url())
		victims.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if got, err := try(conn, fmt.Sprint("select ", i)); err != nil || got != fmt.Sprint(i) {
					faults <- fmt.Errorf("a client that cancels nothing got %q: %w", got, err)
					return
				}
			}
		})
	}
	for range 4 {
		conn := pgtest.Connect(t, p.url())
		cancelling.Go(func() { faults <- cancelShortQueries(ctx, conn, 25) })
	}
	cancelling.Wait()
	stop()
	victims.Wait()
	close(faults)
	for err := range faults {
		require.NoError(t, err)
	}
	require.LessOrEqual(t, p.idle(t), 2)
}

// cancelShortQueries cancels queries that are over at about the time when the request comes. A transaction's next query comes
// behind the end of the request, so it must not be hit.
func cancelShortQueries(ctx context.Context, conn *pgx.Conn, times int) error {
	for range times {
		if _, err := try(conn, "begin"); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
		done := make(chan error, 1)
		go func() { done <- conn.PgConn().CancelRequest(ctx) }()
		_, err := try(conn, "select count(*) from generate_series(1, 3000)")
		var e *pgconn.PgError
		if err != nil && (!errors.As(err, &e) || e.Code != "57014") {
			return fmt.Errorf("cancelled query: %w", err)
		}
		if err := <-done; err != nil {
			return fmt.Errorf("cancel: %w", err)
		}
		if _, err := try(conn, "rollback"); err != nil {
			return fmt.Errorf("the query behind the cancelled one: %w", err)
		}
	}
	return nil
}

// PgBouncer's #542, #543 and #141.
func TestCancel_ofAClientThatDoesNothing(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p, w := poolOf(t, c, 1), watch(t, c)
	idle, busy, waits := raw(t, p.url()), raw(t, p.url()), raw(t, p.url())
	idle.say(query("select 1")) // on the server that is busy's next
	busy.Send(query("select pg_sleep(600), 'busy'"))
	await(t, "the query", func() bool { return w.executing("select pg_sleep(600), 'busy'") })
	for range 20 {
		idle.Cancel(idle.login)
	}
	// One that waits for a server gets its cancellation at once, and lives on.
	waits.Send(query("select 'never begun'"))
	await(t, "its wait", func() bool { return p.waiting() == 1 })
	waits.Cancel(waits.login)
	require.Equal(t, []string{"E 57014 canceling statement due to user request", "Z I"}, waits.hear(1))
	require.True(t, w.executing("select pg_sleep(600), 'busy'"))
	// With a wrong secret nothing happens.
	forged := append([]pgtest.Message{}, busy.login...)
	for i, m := range forged {
		if m.Type == 'K' {
			m.Body = append([]byte{}, m.Body...)
			m.Body[len(m.Body)-1]++
			forged[i] = m
		}
	}
	busy.Cancel(forged)
	require.True(t, w.executing("select pg_sleep(600), 'busy'"))
	busy.Cancel(busy.login) // the pool is full: a cancel request needs no server of it
	require.Equal(t, cancelled, busy.hear(1)[1])
	for _, client := range []*rawClient{idle, waits, busy} {
		require.Equal(t, "D alive", client.say(query("select 'alive'"))[1])
	}
	busy.say(query("begin"))
	busy.Cancel(busy.login) // idle in its transaction
	require.Equal(t, []string{"T ?column?", "D 2", "C SELECT 1", "Z T", "C ROLLBACK", "Z I"}, busy.say(query("select 2"), query("rollback")))
}

// A server is not lent again, and gets nothing new, before the connection of the cancel request has ended: it could hit
// whatever comes next.
// PgBouncer's #38, #245 and #717.
func TestCancel_serverIsKeptUntilTheRequestHasEnded(t *testing.T) {
	c := pgtest.Shared(t, 0)
	gate, w := openGate(t, c.Addr()), watch(t, c)
	p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=disable")), func(config *proxy.Config) {
		config.Pool.MaxConnections = 1
	})
	a, b := raw(t, p.url()), raw(t, p.url())
	sleep := func() (cancelEnded <-chan struct{}) {
		gate.holdCancels()
		a.Send(query("select pg_sleep(600), 'held'"))
		await(t, "the query", func() bool { return w.executing("select pg_sleep(600), 'held'") })
		before := gate.cancels.Load()
		ended := started(func() struct{} { a.Cancel(a.login); return struct{}{} })
		await(t, "the request", func() bool { return gate.cancels.Load() > before })
		return ended
	}
	ended := sleep()
	require.Equal(t, []string{"T pg_sleep,?column?", cancelled, "Z I"}, a.hear(1))
	b.Send(query("select 'b'"))
	await(t, "b's wait", func() bool { return p.waiting() == 1 })
	a.Send(query("select 'a'"))
	await(t, "a's wait", func() bool { return p.waiting() == 2 })
	select {
	case <-ended:
		t.Fatal("the client's own cancel request has ended before the server's")
	default:
	}
	gate.release()
	require.Equal(t, "D b", b.hear(1)[1])
	require.Equal(t, "D a", a.hear(1)[1])
	<-ended

	// In a transaction the server stays the client's, and its next query waits.
	a.say(query("begin"))
	ended = sleep()
	require.Equal(t, []string{"T pg_sleep,?column?", cancelled, "Z E"}, a.hear(1))
	requests := gate.seen()
	a.Send(query("rollback"))
	raw(t, p.url()) // when this login is over, the loop has heard of a's request
	require.Equal(t, requests, gate.seen())
	gate.release()
	require.Equal(t, []string{"C ROLLBACK", "Z I"}, a.hear(1))
	<-ended
}

// A server whose cancel request went astray is not lent again: the request may still come.
func TestCancel_requestThatFailsEndsTheServer(t *testing.T) {
	c := pgtest.Shared(t, 0)
	gate, w := openGate(t, c.Addr()), watch(t, c)
	p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=disable")), func(config *proxy.Config) {
		config.Pool.MaxConnections = 1
	})
	lock := pgtest.Connect(t, c.URL("postgres", "postgres"))
	one(t, lock, "select pg_advisory_lock(62)")
	a := raw(t, p.url())
	pid := a.pid()
	gate.refuse()
	a.Send(query("begin"), query("select pg_advisory_xact_lock_shared(62)"))
	await(t, "the query", func() bool { return w.executing("select pg_advisory_xact_lock_shared(62)") })
	a.Cancel(a.login)
	one(t, lock, "select pg_advisory_unlock(62)")
	require.Equal(t, []string{"C BEGIN", "Z T", "T pg_advisory_xact_lock_shared", "D", "C SELECT 1", "Z T"}, a.hear(2))
	require.Equal(t, []string{"T pg_backend_pid", pid, "C SELECT 1", "Z T", "C COMMIT", "Z I"}, a.say(query("select pg_backend_pid()"), query("commit")))
	await(t, "its end", func() bool {
		return w.count("select count(*) from pg_stat_activity where pid = $1::text::int", pid[2:]) == 0
	})
}

// A cancel request goes to the server encrypted as the session's connection is.
func TestCancel_overTLSToATLSServer(t *testing.T) {
	for _, major := range pgtest.Versions(t) {
		t.Run(fmt.Sprint("pg", major), func(t *testing.T) {
			c := pgtest.Start(t, pgtest.Config{Major: major, TLS: true, HBA: []string{"hostnossl all all all reject"}})
			gate, w := openGate(t, c.Addr()), watch(t, c)
			p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=require")), nil)
			a := raw(t, p.url())
			require.Equal(t, "D t", a.say(query("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))[1])
			a.Send(query("select pg_sleep(600), 'encrypted'"))
			await(t, "the query", func() bool { return w.executing("select pg_sleep(600), 'encrypted'") })
			before := gate.secured.Load()
			a.Cancel(a.login)
			require.Equal(t, cancelled, a.hear(1)[1])
			require.EqualValues(t, 1, gate.secured.Load()-before)
			require.Zero(t, gate.cancels.Load(), "in clear text")
		})
	}
}

// While the proxy prepares a client's statement on another server, or sets its settings there, the client's cancel request is
// not lost.
func TestCancel_whileTheProxyPreparesForTheClient(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p, w := poolOf(t, c, 2), watch(t, c)
	name := table(t, c, "a int")
	a := raw(t, p.url())
	a.say(query("begin"))
	here := a.pid()
	a.say(parse("s", "select * from "+name), syncNow(), query("commit"))
	p.keepBusy(t, here)
	lock := pgtest.Connect(t, c.URL("postgres", "postgres"))
	one(t, lock, "begin; lock table "+name)
	a.Send(run("s")...)
	await(t, "a wait for the table", func() bool {
		return w.count("select count(*) from pg_locks where not granted and relation = $1::regclass", name) == 1
	})
	a.Cancel(a.login)
	require.Equal(t, []string{cancelled, "Z I"}, a.hear(1))
	one(t, lock, "rollback")
	require.Equal(t, []string{"2", "C SELECT 0", "Z I"}, a.say(run("s")...))
}

// A cancel request that meets the proxy's own request for the client's settings waits for the client's turn.
// PgBouncer's #298.
func TestCancel_whileTheProxySetsTheClientsSettings(t *testing.T) {
	c := pgtest.Shared(t, 0)
	gate := openGate(t, c.Addr())
	p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=disable")), func(config *proxy.Config) {
		config.Pool.MaxConnections = 1
	})
	a, b := raw(t, p.url(), "application_name=a"), raw(t, p.url(), "application_name=b")
	b.say(query("select 1"))
	p.idle(t)
	gate.hold()
	before := gate.seen()
	a.Send(query("select pg_sleep(600)"))
	await(t, "settings and query at the server", func() bool { return gate.seen()-before == 2 })
	ended := started(func() struct{} { a.Cancel(a.login); return struct{}{} })
	raw(t, p.url(), "application_name=b") // by now the request has come
	gate.release()
	require.Equal(t, []string{"T pg_sleep", cancelled, "Z I"}, a.hear(1))
	<-ended
}
