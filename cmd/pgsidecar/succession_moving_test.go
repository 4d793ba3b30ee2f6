package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// TestSuccession_listeners_hearEachNotificationOnce notifies without pause while the listeners move.
func TestSuccession_listeners_hearEachNotificationOnce(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "listen", "PGSIDECAR_LOOPS=2", "PGSIDECAR_POOL_MAX_CONNECTIONS=8")
	listeners := make([]*pgtest.Client, 6)
	for i := range listeners {
		listeners[i], _ = p.raw()
		listeners[i].Query("listen a")
		if i%2 == 0 {
			listeners[i].Query("listen b; listen c")
			listeners[i].Query("unlisten c")
		}
	}
	notifier, err := pgx.Connect(t.Context(), cluster.URL("postgres", pgcluster.Superuser))
	require.NoError(t, err)
	stop, sent := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for done := false; !done; n++ {
			_, err := notifier.Exec(t.Context(), fmt.Sprintf("notify a, '%d'; notify b, '%d'; notify c, '%d'", n, n, n))
			require.NoError(t, err)
			select {
			case <-stop:
				done = true
			default:
			}
		}
		sent <- n
	}()
	for range 3 {
		next := p.successor()
		p.awaitSuccession(next)
		require.Contains(t, p.stderr.String(), `msg="handed over" clients=6`)
		p = next
	}
	close(stop)
	total := <-sent
	require.NoError(t, notifier.Close(t.Context()))
	for i, c := range listeners {
		end := fmt.Sprint("end ", i) // The others hear of it, too.
		c.Send(&pgproto3.Query{String: "notify a, '" + end + "'"})
		heard := map[string][]string{}
		for last := ""; last != end; {
			m := c.Receive()
			if m.Type != 'A' {
				continue
			}
			decoded, err := m.Decode()
			require.NoError(t, err)
			n := decoded.(*pgproto3.NotificationResponse)
			if last = n.Payload; !strings.HasPrefix(last, "end") {
				heard[n.Channel] = append(heard[n.Channel], n.Payload)
			}
		}
		// The first notifications may have come before it listened.
		first, err := strconv.Atoi(heard["a"][0])
		require.NoError(t, err)
		require.Len(t, heard["a"], total-first, "listener %d, channel a: %d are missing or double", i, total-first-len(heard["a"]))
		for n, payload := range heard["a"] {
			require.Equal(t, strconv.Itoa(first+n), payload, "in their order")
		}
		require.Empty(t, heard["c"])
		if i%2 == 0 {
			require.Equal(t, heard["a"], heard["b"])
		} else {
			require.Empty(t, heard["b"])
		}
		require.NoError(t, c.Conn.Close())
	}
	p.end(cluster)
}

// asleep counts the queries that sleep.
func asleep(t *testing.T, cluster *pgtest.Cluster) int {
	t.Helper()
	return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where wait_event = 'PgSleep' and query like 'select pg_sleep(600)%'")
}

// awaitAsleep waits until so many queries sleep.
func awaitAsleep(t *testing.T, cluster *pgtest.Cluster, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return asleep(t, cluster) == want }, time.Minute, 5*time.Millisecond)
}

var sleep = &pgproto3.Query{String: "select pg_sleep(600)"}

// TestSuccession_cancel_findsItsClientInEitherProcess cancels clients that have moved, and those that could not.
func TestSuccession_cancel_findsItsClientInEitherProcess(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "cancel")
	movedClient, movedLogin := p.raw()
	pinned, pinnedLogin := p.raw()
	pinned.Query("create temp table t ()")
	next := p.successor()
	p.awaitLog("handing over to a successor")
	next.awaitClients(1)

	movedClient.Send(sleep)
	awaitAsleep(t, cluster, 1)
	movedClient.Cancel(movedLogin)
	movedClient.Expect("T pg_sleep", "E 57014", "Z I")

	pinned.Send(sleep)
	awaitAsleep(t, cluster, 1)
	pinned.Cancel(pinnedLogin) // Reaches the successor, which passes it on.
	pinned.Expect("T pg_sleep", "E 57014", "Z I")

	unknown := slices.Clone(movedLogin)
	k := slices.IndexFunc(unknown, func(m pgtest.Message) bool { return m.Type == 'K' })
	unknown[k].Body = slices.Clone(unknown[k].Body)
	unknown[k].Body[7] ^= 1
	movedClient.Cancel(unknown) // Has no effect, and is answered all the same.

	pinned.Query("drop table t") // Nothing holds it any more: it moves.
	p.awaitSuccession(next)
	pinned.Send(sleep)
	awaitAsleep(t, cluster, 1)
	pinned.Cancel(pinnedLogin)
	pinned.Expect("T pg_sleep", "E 57014", "Z I")
	next.end(cluster)
}

// awaitClients waits until so many clients have moved to p.
func (p *pod) awaitClients(n int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		_, body, err := newClient(p.http()).ask(context.Background(), http.MethodGet, "/metrics")
		return err == nil && strings.Contains(string(body), fmt.Sprintf("pgsidecar_takeover_clients_total{direction=\"in\"} %d\n", n))
	}, time.Minute, 5*time.Millisecond, "%s", p.stderr)
}

// TestSuccession_whoCannotMove_staysUntilTheDeadline is about TLS, which the kernel knows nothing of, and pinned sessions.
func TestSuccession_whoCannotMove_staysUntilTheDeadline(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	dir := t.TempDir()
	ca, err := pgcluster.NewCA()
	require.NoError(t, err)
	issued, err := ca.Issue("localhost", "127.0.0.1")
	require.NoError(t, err)
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(cert, issued.Cert, 0o600))
	require.NoError(t, os.WriteFile(key, issued.Key, 0o600))
	p := newPodIn(t, cluster, dir, "stays", time.Minute, "PGSIDECAR_LISTEN=[127.0.0.1:0, "+dir+"]", "PGSIDECAR_DRAIN_TIMEOUT=8s",
		"PGSIDECAR_TAKEOVER_SOCKET="+filepath.Join(dir, "takeover"),
		"PGSIDECAR_POOL_MAX_CONNECTIONS=10", "PGSIDECAR_CLIENT_TLS_MODE=allow", "PGSIDECAR_CLIENT_TLS_CERT_FILE="+cert, "PGSIDECAR_CLIENT_TLS_KEY_FILE="+key)
	port := regexp.MustCompile(`msg=serving listen="\[127\.0\.0\.1:(\d+)`).FindStringSubmatch(p.stderr.String())[1]
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), "host=127.0.0.1 sslmode=require dbname=postgres user="+pgcluster.Superuser+" port="+port)
		require.NoError(t, err)
		return conn
	}
	encrypted, other := connect(), connect()
	pinned, _ := p.raw()
	pinned.Query("create temp table t ()")
	inBlock, _ := p.raw()
	inBlock.Query("begin")

	since := time.Now()
	next := p.successor()
	p.awaitLog("handing over to a successor")
	_, err = encrypted.Exec(t.Context(), "select 1")
	require.NoError(t, err, "%s", p.stderr)
	require.Equal(t, []string{"C INSERT 0 1", "Z I"}, pgtest.Strings(pinned.Query("insert into t default values")), "it has its table")
	require.NoError(t, connect().Close(t.Context()), "the successor speaks TLS, too")
	require.Equal(t, []string{"C COMMIT", "Z I"}, pgtest.Strings(inBlock.Query("commit")))
	next.awaitClients(1) // The one whose transaction has ended.
	require.NoError(t, other.Close(t.Context()))

	another := p.successor() // One at a time.
	<-another.exited
	require.Equal(t, exitFailure, another.cmd.ProcessState.ExitCode())
	require.Contains(t, another.stderr.String(), "it has just taken over itself")

	pinned.Expect("E 57P01")
	require.Equal(t, "57P01", sqlState(waitClosed(t.Context(), encrypted.PgConn())))
	require.GreaterOrEqual(t, time.Since(since), 8*time.Second)
	<-p.exited
	require.Zero(t, p.cmd.ProcessState.ExitCode())
	require.Contains(t, p.stderr.String(), "idle=2 finished=0 cut=0")
	require.Equal(t, []string{"T ?column?", "D 1", "C SELECT 1", "Z I"}, pgtest.Strings(inBlock.Query("select 1")))
	next.awaitLog("msg=\"taken over\"")
	next.end(cluster)
}
