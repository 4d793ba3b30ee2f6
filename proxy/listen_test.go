package proxy_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// next waits for a notification.
func next(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	n, err := conn.WaitForNotification(ctx)
	require.NoError(t, err)
	return n.Payload
}

// awaitUnpinned waits until no session keeps a server.
func awaitUnpinned(t *testing.T, p *testProxy) {
	t.Helper()
	require.Eventually(t, func() bool { return len(p.Snapshot().Pinned) == 0 }, 20*time.Second, 5*time.Millisecond)
}

func TestListen_manyClientsShareOneConnection(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, func(config *proxy.Config) { config.Pool.MaxConnections = 3 })
		const clients = 30
		var listeners []*pgx.Conn
		for i := range clients {
			conn := pgtest.Connect(t, p.url())
			one(t, conn, fmt.Sprintf(`listen "Shared"; listen own_%d`, i))
			listeners = append(listeners, conn)
		}
		awaitUnpinned(t, p)
		notifier := pgtest.Connect(t, c.URL("postgres", pgcluster.Superuser))
		for i := range 5 {
			_, err := notifier.Exec(t.Context(), fmt.Sprintf(`notify "Shared", '%d'`, i))
			require.NoError(t, err)
		}
		for _, l := range listeners {
			for i := range 5 {
				require.Equal(t, strconv.Itoa(i), next(t, l))
			}
		}
		for i, l := range listeners {
			one(t, l, fmt.Sprintf("notify own_%d, 'mine'", i))
			require.Equal(t, "mine", next(t, l))
		}
	})
}

// While the channels move from the client's server to the shared connection, both send notifications.
func TestListen_nothingIsMissedOrDoubledWhileItMoves(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	notifier := pgtest.Connect(t, c.URL("postgres", pgcluster.Superuser))
	var sending sync.WaitGroup
	sending.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := notifier.Exec(context.WithoutCancel(ctx), fmt.Sprintf("notify moving, '%d'", i)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer sending.Wait()
	defer stop()
	for range 40 {
		conn := pgtest.Connect(t, p.url())
		one(t, conn, "listen moving")
		last := -1
		for range 60 {
			var n int
			_, err := fmt.Sscan(next(t, conn), &n)
			require.NoError(t, err)
			if last >= 0 {
				require.Equal(t, last+1, n)
			}
			last = n
		}
		require.NoError(t, conn.Close(ctx))
	}
}

func TestListen_rollbackAndUnlisten(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "listen a; listen b; listen z")
	awaitUnpinned(t, p)
	one(t, conn, "begin; listen c; unlisten b; rollback")
	one(t, conn, "begin; unlisten a; commit")
	awaitUnpinned(t, p)
	one(t, conn, "notify a, 'no'; notify c, 'no'; notify b, 'yes'")
	require.Equal(t, "yes", next(t, conn))
	one(t, conn, "unlisten *")
	one(t, conn, "notify b, 'no'; notify z, 'no'")
	one(t, conn, "listen z")
	one(t, conn, "notify z, 'end'")
	require.Equal(t, "end", next(t, conn))
}

func TestListen_inATransactionIsDeliveredBehindIt(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	raw := pgtest.Dial(t, p.Addresses()[0])
	raw.Login("postgres", pgcluster.Superuser)
	raw.Query("listen behind")
	awaitUnpinned(t, p)
	raw.Query("begin")
	c.Exec(t, "notify behind, 'x'")
	require.Equal(t, []string{"T", "D", "C", "Z"}, types(raw.Query("select 1")))
	// A server that listens itself sends it ahead of its ReadyForQuery, the shared connection's comes behind.
	if !slices.Contains(types(raw.Query("commit")), "A") {
		require.Equal(t, "x", received(t, raw).Payload)
	}
}

func types(messages []pgtest.Message) (all []string) {
	for _, m := range messages {
		all = append(all, string(m.Type))
	}
	return all
}

func TestListen_goesOnWhenTheConnectionIsLost(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	conn := pgtest.Connect(t, p.url())
	one(t, conn, "listen lost")
	awaitUnpinned(t, p)
	raw := pgtest.Dial(t, p.Addresses()[0])
	raw.Login("postgres", pgcluster.Superuser)
	raw.Query("listen lost")
	raw.Query("select 1") // when this is answered it was known that LISTEN pins
	awaitUnpinned(t, p)
	c.Exec(t, `select pg_terminate_backend(pid) from pg_stat_activity
		where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()`)
	warned := raw.ReceiveUntil('N')
	require.Contains(t, warned[len(warned)-1].String(), "01000")
	c.Exec(t, "notify lost, 'again'")
	require.Equal(t, "again", next(t, conn))
	require.Equal(t, "again", received(t, raw).Payload)
}
