package main

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// rollouts is how many restarts are run; PGSIDECAR_ROLLOUTS asks for more.
func rollouts(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("PGSIDECAR_ROLLOUTS"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return n
	}
	return 2
}

// workTable makes the table that applications write to, and returns what sums it up.
func workTable(t *testing.T, cluster *pgtest.Cluster, workers int) (total func() int64) {
	t.Helper()
	cluster.Exec(t, "drop table if exists work; create table work (worker int primary key, n bigint not null)")
	cluster.Exec(t, "insert into work select i, 0 from generate_series(0, "+strconv.Itoa(workers-1)+") i")
	return func() int64 { return pgtest.Value[int64](t, cluster, "select sum(n)::bigint from work") }
}

const workers = 8

// TestRollout_native_noTransactionFails restarts pods as the kubelet does those with a native sidecar: preStop of all
// containers, SIGTERM to the application, and to the sidecar when the application has ended.
func TestRollout_native_noTransactionFails(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	total := workTable(t, cluster, workers)
	var ran int64
	start := func(i int) (*pod, *application) {
		p := newPod(t, cluster, "native-"+strconv.Itoa(i), 30*time.Second, "PGSIDECAR_DRAIN_TIMEOUT=5s", "PGSIDECAR_DRAIN_POD_GRACE=30s")
		return p, p.application(workers)
	}
	old, oldApplication := start(0)
	for i := range rollouts(t) {
		next, nextApplication := start(i + 1) // The Deployment surges by one pod.
		require.Equal(t, http.StatusOK, old.probe("/pod-terminating"))
		require.Equal(t, "noticed", old.phase())
		require.Equal(t, http.StatusOK, old.probe("/readyz"), "the application works on")
		oldApplication.end(t)
		terminated := time.Now()
		require.Equal(t, http.StatusOK, old.probe("/livez"))
		old.signal()
		old.await(cluster, terminated)
		require.Less(t, time.Since(terminated), 5*time.Second, "nobody was left")
		require.Contains(t, old.stderr.String(), "finished=0 cut=0")
		ran += oldApplication.ran.Load()
		old, oldApplication = next, nextApplication
	}
	oldApplication.end(t)
	ran += oldApplication.ran.Load()
	old.signal()
	old.await(cluster, time.Now())
	require.Equal(t, ran, total(), "each transaction that was acknowledged is there, once")
}

// TestRollout_classic_noTransactionFails restarts pods in which the sidecar is an ordinary container: SIGTERM comes to the
// sidecar first, and the application opens connections for some time after it.
func TestRollout_classic_noTransactionFails(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	total := workTable(t, cluster, workers)
	var ran int64
	start := func(i int) (*pod, *application) {
		p := newPod(t, cluster, "classic-"+strconv.Itoa(i), 30*time.Second, "PGSIDECAR_LIFECYCLE=classic", "PGSIDECAR_DRAIN_POD_GRACE=30s",
			"PGSIDECAR_DRAIN_TIMEOUT=5s", "PGSIDECAR_DRAIN_MIN_LINGER=300ms", "PGSIDECAR_DRAIN_QUIET_PERIOD=300ms")
		return p, p.application(workers)
	}
	old, oldApplication := start(0)
	for i := range rollouts(t) {
		next, nextApplication := start(i + 1)
		terminated := time.Now()
		old.signal()
		require.Eventually(t, func() bool { return old.phase() == "lingering" }, time.Minute, 5*time.Millisecond)
		require.Equal(t, http.StatusServiceUnavailable, old.probe("/readyz"))
		require.Equal(t, http.StatusOK, old.probe("/livez"))
		before := oldApplication.ran.Load()
		require.Eventually(t, func() bool { return oldApplication.ran.Load() > before+50 }, time.Minute, 5*time.Millisecond, "it is served as before")
		oldApplication.end(t)
		old.await(cluster, terminated)
		require.Contains(t, old.stderr.String(), "finished=0 cut=0")
		ran += oldApplication.ran.Load()
		old, oldApplication = next, nextApplication
	}
	terminated := time.Now()
	old.signal()
	oldApplication.end(t)
	ran += oldApplication.ran.Load()
	old.await(cluster, terminated)
	require.Equal(t, ran, total(), "each transaction that was acknowledged is there, once")
}

// TestRollout_clientsThatStay shows what each kind of client gets that is still there when the sidecar drains.
func TestRollout_clientsThatStay_getWhatIsPromised(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	cluster.Exec(t, "create table target (n int)")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := newPod(t, cluster, "stay", 30*time.Second, "PGSIDECAR_DRAIN_TIMEOUT=2s", "PGSIDECAR_DRAIN_POD_GRACE=30s", "PGSIDECAR_POOL_MAX_CONNECTIONS=8")

	idle, err := p.connect(ctx)
	require.NoError(t, err)
	finishing, err := p.connect(ctx) // Ends its transaction in time.
	require.NoError(t, err)
	_, err = finishing.Exec(ctx, "begin; insert into target values (1)")
	require.NoError(t, err)
	holding, err := p.connect(ctx) // Never ends its transaction.
	require.NoError(t, err)
	_, err = holding.Exec(ctx, "begin; insert into target values (2)")
	require.NoError(t, err)
	slow := p.asking(ctx, t, "select pg_sleep(60)")
	short := p.asking(ctx, t, "select pg_sleep(1)")
	pinned, err := p.connect(ctx) // Keeps its server between transactions.
	require.NoError(t, err)
	_, err = pinned.Exec(ctx, "create temp table mine (n int); select pg_advisory_lock(7)")
	require.NoError(t, err)
	working, err := p.connect(ctx) // Likewise, and is within a transaction that ends in time.
	require.NoError(t, err)
	_, err = working.Exec(ctx, "create temp table mine (n int)")
	require.NoError(t, err)
	_, err = working.Exec(ctx, "begin; insert into mine values (1); insert into target select n + 2 from mine")
	require.NoError(t, err)
	copying := p.asking(ctx, t, "copy (select pg_sleep(0.01) from generate_series(1, 6000)) to stdout")
	loading, _ := p.raw() // Sends a part of its data and no more.
	loading.Send(&pgproto3.Query{String: "copy target from stdin"}, &pgproto3.CopyData{Data: []byte("9\n")})
	require.Equal(t, byte('G'), loading.Receive().Type)
	require.Eventually(t, func() bool {
		return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where application_name = 'stay' and state <> 'idle'") == 7
	}, time.Minute, 5*time.Millisecond)
	waiting, _ := p.raw() // All servers are in use.
	waiting.Send(&pgproto3.Query{String: "insert into target values (10)"})
	require.Eventually(t, func() bool {
		status, err := newClient(p.http()).Status(ctx)
		return err == nil && status.Clients.Waiting == 1
	}, time.Minute, 5*time.Millisecond)

	terminated := time.Now()
	p.signal()
	// Who is idle is told at once; what comes new is refused.
	require.Equal(t, "57P01", sqlState(waitClosed(ctx, idle.PgConn())))
	waiting.Expect("E 57P01") // Its statement has not begun.
	require.Equal(t, "57P01", sqlState(waitClosed(ctx, pinned.PgConn())), "its temporary table goes with it, now or later")
	_, err = p.connect(ctx)
	require.Equal(t, "57P03", sqlState(err))
	require.Equal(t, http.StatusOK, p.probe("/livez"))
	// A transaction that ends in time has ended well, whether it is one statement or several.
	_, err = finishing.Exec(ctx, "commit")
	require.NoError(t, err)
	require.Equal(t, "57P01", sqlState(waitClosed(ctx, finishing.PgConn())))
	_, err = working.Exec(ctx, "commit")
	require.NoError(t, err)
	require.Equal(t, "57P01", sqlState(waitClosed(ctx, working.PgConn())))
	require.NoError(t, <-short)
	// At the deadline the rest is told and cut.
	for what, err := range map[string]error{"a transaction held open": waitClosed(ctx, holding.PgConn()), "slow query": <-slow, "copy": <-copying} {
		require.Equal(t, "57P01", sqlState(err), what)
	}
	loading.Expect("E 57P01")
	p.await(cluster, terminated)
	require.Less(t, time.Since(terminated), 10*time.Second, "two seconds to drain, and the time to close")
	require.Regexp(t, `level=WARN msg=ended idle=3 finished=3 cut=4 .*late=true`, p.stderr.String())
	require.Equal(t, [][]string{{"1"}, {"3"}}, cluster.Query(t, "select n from target order by n"))
	require.Empty(t, cluster.Query(t, "select 1 from pg_locks where relation = 'target'::regclass or locktype = 'advisory'"), "locks are gone")
}

// TestRollout_noticed_idleServersAreGivenBack is what a pod that ends owes to the others: their room at the server.
func TestRollout_noticed_idleServersAreGivenBack(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := newPod(t, cluster, "noticed", time.Minute, "PGSIDECAR_POOL_MIN_CONNECTIONS=2")
	conn, err := p.connect(ctx)
	require.NoError(t, err)
	servers := func() int {
		return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where application_name = 'noticed'")
	}
	require.Eventually(t, func() bool { return servers() == 2 }, time.Minute, 5*time.Millisecond)
	require.Equal(t, http.StatusOK, p.probe("/pod-terminating"))
	_, _, err = newClient(p.http()).ask(ctx, http.MethodPost, "/reload") // Does not bring them back.
	require.NoError(t, err)
	require.Eventually(t, func() bool { return servers() == 0 }, time.Minute, 5*time.Millisecond)
	_, err = conn.Exec(ctx, "select 1")
	require.NoError(t, err, "the client has noticed nothing")
	require.NoError(t, conn.Close(ctx))
	p.signal()
	p.await(cluster, time.Now())
}

// TestRollout_killed_leavesNothingBehind is what happens when the grace period was too short after all.
func TestRollout_killed_leavesNothingBehind(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := newPod(t, cluster, "killed", time.Minute)
	conn, err := p.connect(ctx)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, "begin; create table orphan (n int)")
	require.NoError(t, err)
	require.NoError(t, p.cmd.Process.Kill())
	<-p.exited
	require.Error(t, waitClosed(ctx, conn.PgConn()))
	require.Eventually(t, func() bool {
		return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where application_name = 'killed'") == 0
	}, time.Minute, 5*time.Millisecond)
	require.True(t, pgtest.Value[bool](t, cluster, "select to_regclass('orphan') is null"))

	// A successor on the same sockets serves at once.
	next := newPodIn(t, cluster, p.dir, "successor", time.Minute)
	conn, err = next.connect(ctx)
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
	next.signal()
	next.await(cluster, time.Now())
}
