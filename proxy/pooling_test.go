package proxy_test

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
)

func TestPool_waitersAreServedInTheOrderInWhichTheyCame(t *testing.T) {
	c := pgtest.Shared(t, 0)
	database := c.Database(t)
	p := startFor(t, c.URL(database, "postgres"), func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
	holder := pgtest.Connect(t, p.url())
	one(t, holder, "create sequence turns")
	one(t, holder, "begin")
	const waiters = 12
	var turns [waiters]<-chan string
	for i := range turns {
		conn := pgtest.Connect(t, p.url())
		turns[i] = started(func() string {
			turn, err := try(conn, "select nextval('turns')")
			if err != nil {
				return err.Error()
			}
			return turn
		})
		await(t, "one more waiter", func() bool { return p.waiting() == i+1 })
	}
	one(t, holder, "commit")
	for i, turn := range turns {
		require.Equal(t, strconv.Itoa(i+1), <-turn, "client %d", i)
	}
}

func TestPool_waiterThatHasGoneLeavesTheOthersTheirTurn(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	holder, first, second := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, holder, "begin")
	gone := started(func() error { _, err := try(first, "select 1"); return err })
	await(t, "the first waiter", func() bool { return p.waiting() == 1 })
	served := started(func() error { _, err := try(second, "select 1"); return err })
	await(t, "the second waiter", func() bool { return p.waiting() == 2 })
	require.NoError(t, first.PgConn().Conn().Close())
	require.Error(t, <-gone)
	await(t, "the first one leaves", func() bool { return p.waiting() == 1 })
	one(t, holder, "commit")
	require.NoError(t, <-served)
}

func TestPool_idleServersAreLentLastInFirstOut(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Pool.MaxConnections = 3
		config.Session.SentinelEvery = 0 // it would give them back in the order in which they have answered it
	})
	conns, pids := make([]*pgx.Conn, 3), make([]string, 3)
	for i := range conns {
		conns[i] = pgtest.Connect(t, p.url())
		one(t, conns[i], "begin")
		pids[i] = pidOf(t, conns[i])
	}
	for _, conn := range conns {
		one(t, conn, "commit")
	}
	for range 5 {
		require.Equal(t, pids[2], pidOf(t, conns[0]), "the latest is used again")
	}
	for i, conn := range conns {
		one(t, conn, "begin")
		require.Equal(t, pids[2-i], pidOf(t, conn), "the others follow in turn")
	}
}

// misbehave is one visit of a client that seldom says goodbye.
func misbehave(ctx context.Context, t *testing.T, to string, kind int) {
	conn, err := pgx.Connect(ctx, to)
	if err != nil {
		return // the proxy may refuse; the test looks at the server
	}
	socket := conn.PgConn().Conn()
	switch kind {
	case 0:
		_, err = conn.Exec(ctx, "select 1")
		require.NoError(t, err)
		_ = conn.Close(ctx)
	case 1: // leaves a transaction open
		_, _ = conn.Exec(ctx, "begin")
		_ = conn.Close(ctx)
	case 2: // is killed while a query runs
		go func() { _, _ = conn.Exec(ctx, "select pg_sleep(60)") }()
		timer := time.NewTimer(time.Duration(rand.IntN(20)) * time.Millisecond)
		<-timer.C
		_ = socket.Close()
	case 3: // is killed after its login
		_ = socket.Close()
	case 4: // pins its server and is killed
		_, _ = conn.Exec(ctx, "create temp table t ()")
		_ = socket.Close()
	case 5: // has its query cancelled by a deadline
		short, stop := context.WithTimeout(ctx, 10*time.Millisecond)
		_, _ = conn.Exec(short, "select pg_sleep(60)")
		stop()
		_ = conn.Close(ctx)
	}
}

// PgBouncer's #1085.
func TestPool_boundHoldsWhileHundredClientsComeAndGo(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(strconv.Itoa(loops)+" loops", func(t *testing.T) {
			c := pgtest.Shared(t, 0)
			role := c.Role(t)
			const bound = 5
			p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
				config.Loops, config.Pool.MaxConnections = loops, bound
			})
			ctx, stop := context.WithTimeout(t.Context(), time.Minute)
			defer stop()
			var clients sync.WaitGroup
			for range 100 {
				clients.Go(func() {
					for range 4 {
						misbehave(ctx, t, p.url(), rand.IntN(6))
					}
				})
			}
			gone := started(func() bool { clients.Wait(); return true })
			most, server := 0, watch(t, c)
			for over := false; !over; {
				most = max(most, server.backends(role))
				select {
				case over = <-gone:
				default:
				}
			}
			require.Equal(t, bound, most, "all of them are used, and no more")
			await(t, "nobody holds a server any more", func() bool {
				s := p.Snapshot()
				return s.Clients.All() == 0 && len(s.Pinned) == 0 && (len(s.Pools) == 0 || s.Pools[0].Active+s.Pools[0].Closing == 0)
			}, p)
			require.Equal(t, "1", one(t, pgtest.Connect(t, p.url()), "select 1"))
		})
	}
}

// PgBouncer's #648.
func TestPool_minConnectionsAreKeptAndReplaced(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
		config.Pool.MinConnections, config.Pool.IdleTimeout = 2, 300*time.Millisecond
	})
	server := watch(t, c)
	conns := make([]*pgx.Conn, 4)
	for i := range conns {
		conns[i] = pgtest.Connect(t, p.url())
		one(t, conns[i], "begin")
	}
	require.Equal(t, 4, server.backends(role))
	for _, conn := range conns {
		one(t, conn, "commit")
	}
	await(t, "the idle timeout closes what is above the minimum", func() bool { return server.backends(role) == 2 })
	before := server.count("select sum(pid) from pg_stat_activity where usename = $1", role)
	require.Equal(t, 2, server.terminate("usename = $1", role))
	await(t, "the minimum is restored", func() bool {
		return server.count("select case when count(*) = 2 then sum(pid) else $2 end from pg_stat_activity where usename = $1", role, before) != before
	})
	require.Equal(t, "1", one(t, conns[0], "select 1"))
}

func TestPool_idleTimeoutClosesTheLastOneToo(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Pool.IdleTimeout = 200 * time.Millisecond })
	conn, server := pgtest.Connect(t, p.url()), watch(t, c)
	require.Equal(t, 1, server.backends(role))
	await(t, "no server is left", func() bool { return server.backends(role) == 0 })
	require.Equal(t, "1", one(t, conn, "select 1"), "the client notices nothing")
}

func TestPool_maxLifetimeReplacesServersBetweenTransactionsOnly(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Pool.MaxLifetime = 1, 500*time.Millisecond
	})
	conn := pgtest.Connect(t, p.url())
	first := pidOf(t, conn)
	await(t, "an idle server is replaced", func() bool { return pidOf(t, conn) != first })
	one(t, conn, "begin")
	second := pidOf(t, conn)
	one(t, conn, "select pg_sleep(0.7)")
	require.Equal(t, second, pidOf(t, conn), "a transaction keeps its server")
	one(t, conn, "commit")
	require.NotEqual(t, second, pidOf(t, conn))
}

func TestPool_idleServersOfOnePairMakeRoomForAnother(t *testing.T) {
	c := pgtest.Shared(t, 0)
	roles := []string{c.Role(t), c.Role(t), c.Role(t)}
	p := startFor(t, c.URL("postgres", roles[0]), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Auth.Unknown = 2, auth.AsIs
	})
	server := watch(t, c)
	total := func() int {
		return server.count("select count(*) from pg_stat_activity where usename = any($1)", roles)
	}
	var conns []*pgx.Conn
	for _, role := range roles {
		conns = append(conns, pgtest.Connect(t, p.as(t, "postgres", role)))
		require.LessOrEqual(t, total(), 2)
	}
	for range 3 {
		for i, conn := range conns {
			require.Equal(t, roles[i], one(t, conn, "select current_user"))
			require.LessOrEqual(t, total(), 2)
		}
	}
}

func TestPool_busyServersOfOnePairMakeRoomWhenTheirTransactionEnds(t *testing.T) {
	c := pgtest.Shared(t, 0)
	roles := []string{c.Role(t), c.Role(t)}
	p := startFor(t, c.URL("postgres", roles[0]), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Auth.Unknown = 1, auth.AsIs
	})
	ctx, stop := context.WithCancel(t.Context())
	var busy []<-chan error
	for range 4 { // never idle: there is always one that waits
		conn := pgtest.Connect(t, p.url())
		busy = append(busy, started(func() error {
			for ctx.Err() == nil {
				if _, err := try(conn, "select 1"); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	other := pgtest.Connect(t, p.as(t, "postgres", roles[1]))
	for range 3 {
		require.Equal(t, roles[1], one(t, other, "select current_user"))
	}
	stop()
	for _, end := range busy {
		require.NoError(t, <-end)
	}
}
