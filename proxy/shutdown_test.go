package proxy_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/stats"
)

// drain begins a shutdown without a deadline, and returns where its result comes out.
func (p *testProxy) drain() <-chan error {
	return started(func() error { return p.Shutdown(context.Background()) })
}

// loggedIn is a raw client of the proxy.
func (p *testProxy) loggedIn(t *testing.T) *pgtest.Client {
	t.Helper()
	c := pgtest.Dial(t, p.Addresses()[0])
	login := c.Login(p.upstream.Path[1:], p.upstream.User.Username())
	require.Equal(t, "Z I", login[len(login)-1].String(), texts(login))
	return c
}

// PgBouncer's #1473 and #1468.
func TestShutdown_endsClientsBetweenTransactions(t *testing.T) {
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			c := pgtest.Shared(t, 0)
			role := c.Role(t)
			p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
				config.Mode, config.Pool.MaxConnections = mode, 6
			})
			idle, inBlock, failed, inQuery, inPipeline, pinned := p.loggedIn(t), p.loggedIn(t), p.loggedIn(t), p.loggedIn(t), p.loggedIn(t), p.loggedIn(t)
			inBlock.Query("begin")
			failed.Query("begin")
			failed.Query("select 1/0")
			pinned.Query("create temp table t ()")
			inPipeline.Send(&pgproto3.Parse{Query: "select 1"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Flush{})
			inPipeline.Expect("1", "2", "D 1", "C SELECT 1")
			inQuery.Send(&pgproto3.Query{String: "select pg_sleep(0.5)"})
			server := watch(t, c)
			await(t, "the query", func() bool { return server.busyWith("select pg_sleep(0.5)") == 1 })

			drained := p.drain()
			for _, client := range []*pgtest.Client{idle, pinned} {
				client.Expect("E 57P01")
				client.ExpectEnd()
			}
			require.Equal(t, stats.Draining, p.Phase())
			require.Error(t, p.Ready())
			e := loginError(t, p.url())
			require.Equal(t, []string{"FATAL", "57P03"}, []string{e.Severity, e.Code})
			require.NotEmpty(t, e.Hint)

			inQuery.Expect("T pg_sleep", "D", "C SELECT 1", "Z I", "E 57P01")
			inQuery.ExpectEnd()
			require.Equal(t, []string{"T ?column?", "D 1", "C SELECT 1", "Z T"}, pgtest.Strings(inBlock.Query("select 1")))
			require.Equal(t, []string{"C COMMIT", "Z I"}, pgtest.Strings(inBlock.Query("commit")))
			inBlock.Expect("E 57P01")
			inBlock.ExpectEnd()
			require.Equal(t, []string{"C ROLLBACK", "Z I"}, pgtest.Strings(failed.Query("rollback")))
			failed.Expect("E 57P01")
			failed.ExpectEnd()
			select {
			case <-drained:
				t.Fatal("one client is still there")
			default:
			}
			inPipeline.Send(&pgproto3.Sync{})
			inPipeline.Expect("Z I", "E 57P01")
			inPipeline.ExpectEnd()
			require.NoError(t, <-drained)
			await(t, "the end", func() bool { return p.Phase() == stats.Done })
			require.Zero(t, server.backends(role), "a successor finds the server empty")
			_, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.Addresses()[0])
			require.Error(t, err)
		})
	}
}

// PgBouncer's #1473 and #1468.
func TestShutdown_waitingClientsAreTold(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	holder, waiter := p.loggedIn(t), p.loggedIn(t)
	holder.Query("begin")
	waiter.Send(&pgproto3.Query{String: "select 1"})
	await(t, "it waits", func() bool { return p.waiting() == 1 })
	drained := p.drain()
	waiter.Expect("E 57P01")
	waiter.ExpectEnd()
	holder.Query("rollback")
	holder.Expect("E 57P01")
	require.NoError(t, <-drained)
}

func TestShutdown_whoLogsInMeanwhile_isTold(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), nil)
	silent := pgtest.Dial(t, p.Addresses()[0])
	silent.SendBytes([]byte{0, 0, 0}) // a part of a startup packet
	holder := p.loggedIn(t)
	holder.Query("begin")
	drained := p.drain()
	await(t, "new clients are refused", func() bool { return p.Phase() == stats.Draining })
	require.Equal(t, "57P03", loginError(t, p.url()).Code)
	holder.Query("commit")
	require.NoError(t, <-drained)
	silent.Expect("E 57P03")
	silent.ExpectEnd()
}

// PgBouncer's #1473 and #1468.
func TestShutdown_deadline_cutsWhatIsLeft(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), nil)
	inBlock, inQuery := p.loggedIn(t), p.loggedIn(t)
	inBlock.Query("begin")
	inQuery.Send(&pgproto3.Query{String: "select pg_sleep(600), 'deadline'"})
	server := watch(t, c)
	await(t, "the query", func() bool { return server.busyWith("select pg_sleep(600), 'deadline'") == 1 })
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	require.ErrorIs(t, p.Shutdown(ctx), context.DeadlineExceeded)
	for _, client := range []*pgtest.Client{inBlock, inQuery} {
		client.Expect("E 57P01")
		client.ExpectEnd()
	}
	await(t, "the end", func() bool { return p.Phase() == stats.Done })
	require.Zero(t, server.backends(role), "what was cut is cancelled before the end")
}

func TestClose_cutsADrainShort(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Loops = 2 })
	inBlock, inQuery := p.loggedIn(t), p.loggedIn(t)
	inBlock.Query("begin")
	inQuery.Send(&pgproto3.Query{String: "select pg_sleep(600), 'close'"})
	server := watch(t, c)
	await(t, "the query", func() bool { return server.busyWith("select pg_sleep(600), 'close'") == 1 })
	drained := p.drain()
	await(t, "the drain", func() bool { return p.Phase() == stats.Draining })
	require.NoError(t, p.Close())
	for _, client := range []*pgtest.Client{inBlock, inQuery} {
		client.Expect("E 57P01")
		client.ExpectEnd()
	}
	require.NoError(t, <-drained)
	await(t, "the end", func() bool { return p.Phase() == stats.Done })
	require.Zero(t, server.backends(role))
}

func TestShutdown_ofNobody_isOverAtOnceAndAgain(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), nil)
	require.NoError(t, <-p.drain())
	require.NoError(t, <-p.drain())
	require.NoError(t, p.Close())
	await(t, "the end", func() bool { return p.Phase() == stats.Done })
}

func TestShutdown_removesItsSocket(t *testing.T) {
	dir := t.TempDir()
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Listen = append(config.Listen, dir) })
	file := filepath.Join(dir, ".s.PGSQL.6432")
	require.FileExists(t, file)
	require.NoError(t, <-p.drain())
	await(t, "the end", func() bool { return p.Phase() == stats.Done })
	_, err := os.Lstat(file)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestShutdown_replicationIsClosedWithoutAWord(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), nil)
	client := pgtest.Dial(t, p.Addresses()[0])
	client.Login("postgres", pgtest.Superuser, "replication=database")
	require.Contains(t, texts(client.Query("IDENTIFY_SYSTEM")), "C IDENTIFY_SYSTEM")
	// What it is told could come in the middle of a message, as its stream is passed on as it is.
	require.NoError(t, <-p.drain())
	client.ExpectEnd()
}

func TestShutdown_clientsThatReadNothing_doNotHoldItUpForEver(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Session.WriteTimeout, config.Mode = 300*time.Millisecond, session.Transaction
	})
	client := p.loggedIn(t)
	client.Send(&pgproto3.Query{String: "select repeat('x', 1000) from generate_series(1, 100000)"})
	await(t, "its reading is awaited", func() bool { return p.Snapshot().Totals.BytesToClients > 100_000 })
	require.NoError(t, <-p.drain())
}
