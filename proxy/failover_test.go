package proxy_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
)

// placeOf is where a cluster is dialled.
func placeOf(c *pgtest.Cluster) *server.Place {
	return &server.Place{Host: c.Host(), Port: uint16(c.Port())}
}

// primaryAndStandby is a primary and a standby, and a proxy that leads to the primary.
func primaryAndStandby(t *testing.T) (primary, standby *pgtest.Cluster, p *testProxy) {
	t.Helper()
	primary = pgtest.Start(t, pgtest.Config{})
	standby = primary.Standby(t, nil)
	p = start(t, primary, nil)
	p.Redirect(placeOf(primary), 1)
	return primary, standby, p
}

func TestFailover_transactionOpen_oneErrorAndTheSessionGoesOn(t *testing.T) {
	for name, mode := range map[string]pgx.QueryExecMode{
		"simple": pgx.QueryExecModeSimpleProtocol, "prepared": pgx.QueryExecModeCacheStatement, "unnamed": pgx.QueryExecModeExec,
	} {
		t.Run(name, func(t *testing.T) {
			primary, standby, p := primaryAndStandby(t)
			primary.Exec(t, "create table t (n int)")
			ctx := context.Background()
			busy, idle := pgtest.Connect(t, p.url("application_name", "stays")), pgtest.Connect(t, p.url())
			require.Equal(t, "1", one(t, idle, "select 1"))
			var n int
			require.NoError(t, busy.QueryRow(ctx, "select $1::int", mode, 7).Scan(&n))
			tx, err := busy.Begin(ctx)
			require.NoError(t, err)
			_, err = tx.Exec(ctx, "insert into t values ($1)", mode, 1)
			require.NoError(t, err)
			primary.WaitForStandby(t, standby)
			primary.Kill(t)
			p.Detain("the primary is gone")
			_, err = tx.Exec(ctx, "insert into t values ($1)", mode, 2)
			e := pgError(t, err)
			require.Contains(t, []string{"08006", "57P02"}, e.Code)
			require.Equal(t, "ERROR", e.Severity)
			require.Equal(t, byte('E'), busy.PgConn().TxStatus())
			waits := started(func() error { _, err := try(idle, "insert into t values (3)"); return err })
			standby.Promote(t)
			p.Redirect(placeOf(standby), 2)
			require.NoError(t, <-waits, "who was between transactions sees no error")
			_, err = tx.Exec(ctx, "insert into t values ($1)", mode, 4)
			require.Equal(t, "25P02", pgError(t, err).Code, "the block has failed, as the server itself says")
			require.NoError(t, tx.Rollback(ctx))
			require.Equal(t, byte('I'), busy.PgConn().TxStatus())
			require.Equal(t, "stays", one(t, busy, "show application_name"))
			require.NoError(t, busy.QueryRow(ctx, "select $1::int", mode, 8).Scan(&n), "its statements are there")
			require.Equal(t, 8, n)
			require.Equal(t, "3", one(t, busy, "select string_agg(n::text, ',') from t"))
		})
	}
}

func TestFailover_primaryStaysAlive_itsConnectionsAreCut(t *testing.T) {
	primary, standby, p := primaryAndStandby(t)
	role := "postgres"
	busy, idle, pinned := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, pinned, "create temp table held (n int)")
	one(t, busy, "begin")
	require.Equal(t, "1", one(t, idle, "select 1"))
	standby.Promote(t)
	p.Redirect(placeOf(standby), 2)
	e := refusal(t, busy, "select 1")
	require.Equal(t, "08006", e.Code)
	require.Contains(t, e.Message, "another server is the primary now")
	require.Equal(t, "25P02", refusal(t, busy, "select 1").Code)
	one(t, busy, "rollback")
	require.Equal(t, one(t, idle, "select inet_server_port()"), one(t, busy, "select inet_server_port()"))
	require.Equal(t, "FATAL", refusal(t, pinned, "select 1").Severity, "a temporary table cannot be carried over")
	w := watch(t, primary)
	await(t, "nobody is left on the old primary", func() bool {
		return w.count("select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid() and usename = $1", role) == 0
	})
}

func TestFailover_primaryFrozen_othersAreServedByTheNewOne(t *testing.T) {
	primary, standby, p := primaryAndStandby(t)
	conns := []*pgx.Conn{pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())}
	for _, conn := range conns { // all of max_connections lie idle there
		one(t, conn, "begin")
	}
	for _, conn := range conns {
		one(t, conn, "commit")
	}
	primary.WaitForStandby(t, standby)
	primary.Freeze(t)
	p.Detain("the primary does not answer")
	standby.Promote(t)
	began := time.Now()
	p.Redirect(placeOf(standby), 2)
	for _, conn := range conns {
		require.Equal(t, "f", one(t, conn, "select pg_is_in_recovery()"))
	}
	require.Less(t, time.Since(began), 5*time.Second, "nobody waits for the frozen one to close its connections")
}

func TestFailover_listeners_hearOnTheNewPrimary(t *testing.T) {
	primary, standby, p := primaryAndStandby(t)
	listener, other := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, listener, "listen news")
	one(t, other, "notify news, 'first'")
	hear := func() string {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		note, err := listener.WaitForNotification(ctx)
		require.NoError(t, err)
		return note.Payload
	}
	require.Equal(t, "first", hear())
	primary.WaitForStandby(t, standby)
	standby.Promote(t)
	p.Redirect(placeOf(standby), 2)
	w := watch(t, standby)
	await(t, "somebody listens there", func() bool {
		return w.count("select count(*) from pg_stat_activity where backend_type = 'client backend' and query like '%LISTEN%' and pid <> pg_backend_pid()") > 0 ||
			p.Snapshot().Pools[0].Active > 0
	}, p)
	await(t, "heard", func() bool {
		one(t, other, "notify news, 'second'")
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_, err := listener.WaitForNotification(ctx)
		return err == nil
	}, p)
}

func TestHold_operator_nobodyNoticesButTheClock(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, func(config *proxy.Config) { config.Pool.Hold = patience })
	busy, idle := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, busy, "begin")
	p.Hold("the operator wants it")
	require.Equal(t, "the operator wants it", p.Held())
	require.Equal(t, "1", one(t, busy, "select 1"), "running transactions go on")
	waits := started(func() error { _, err := try(idle, "select 1"); return err })
	await(t, "the other one waits", func() bool { return p.waiting() == 1 })
	one(t, busy, "commit")
	require.Equal(t, 1, p.waiting())
	require.True(t, p.Resume())
	require.NoError(t, <-waits)
	require.Empty(t, p.Snapshot().Errors)
}

func TestSuspend_sessionsThatKeepTheirServer_waitToo(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, func(config *proxy.Config) {
		config.Pool.Hold = patience
		whole := session.WholeSession
		config.Databases = map[string]proxy.Database{"whole": {Name: "postgres", Mode: &whole}}
	})
	own, err := pgx.ParseConfig(p.url())
	require.NoError(t, err)
	own.Database = "whole"
	whole, err := pgx.ConnectConfig(t.Context(), own)
	require.NoError(t, err)
	t.Cleanup(func() { _ = whole.Close(context.Background()) })
	pinned, busy, idle := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, pinned, "create temp table kept (n int)")
	one(t, whole, "select 1")
	one(t, busy, "begin")
	underWay := func() int {
		n, err := p.Busy(t.Context())
		require.NoError(t, err)
		return n
	}
	await(t, "the proxy's own questions are answered", func() bool { return underWay() == 1 })
	p.Suspend("the primary is being changed")
	var waiting []<-chan error
	for _, conn := range []*pgx.Conn{pinned, whole, idle} {
		waiting = append(waiting, started(func() error { _, err := try(conn, "select 1"); return err }))
	}
	await(t, "the one without a server waits", func() bool { return p.waiting() == 1 })
	one(t, busy, "commit")
	await(t, "nothing is under way", func() bool { return underWay() == 0 })
	for _, ended := range waiting {
		require.Empty(t, ended)
	}
	p.Continue()
	for _, ended := range waiting {
		require.NoError(t, <-ended)
	}
	require.Empty(t, p.Snapshot().Errors)
	require.Empty(t, p.Held())
}

func TestHold_tooLong_isToldWhy(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, func(config *proxy.Config) { config.Pool.Hold = 50 * time.Millisecond })
	conn := pgtest.Connect(t, p.url())
	p.Detain("b is a standby")
	e := refusal(t, conn, "select 1")
	require.Equal(t, "57P03", e.Code)
	require.Equal(t, "ERROR", e.Severity)
	require.Contains(t, e.Message, "b is a standby")
	require.Equal(t, "57P03", loginError(t, p.url("application_name", "new")).Code)
	p.Redirect(nil, 1)
	require.Equal(t, "1", one(t, conn, "select 1"))
}

func TestFailover_serverSaysFatalForItsOwnReasons_theClientIsToldAndClosed(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "begin")
	one(t, conn, "set local idle_in_transaction_session_timeout = '50ms'")
	await(t, "the server ends it", func() bool { return p.Snapshot().Clients.All() == 0 }, p)
	_, err := try(conn, "select 1")
	require.Error(t, err)
	require.True(t, conn.IsClosed())
}
