package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// TestRollout_killedAtRandomMoments kills the proxy with SIGKILL while clients write, commit in two phases, hold advisory locks
// and run long queries, and starts it again on the same sockets.
func TestRollout_killedAtRandomMoments_leavesNothingBehind(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{Settings: map[string]string{
		"max_prepared_transactions": "20",
		// How soon PostgreSQL notices that nobody is there while it runs a query; without it, when the query ends.
		"client_connection_check_interval": "200ms",
	}})
	cluster.Exec(t, "create table orders (worker int, n int, primary key (worker, n))")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	c := &coordinators{}
	p := newPodIn(t, cluster, dir, "killed-0", time.Minute, "PGSIDECAR_POOL_MAX_CONNECTIONS=8")
	for i := range rollouts(t) {
		c.start(p, 4)
		for range 2 {
			p.asking(t.Context(), t, "select pg_advisory_lock_shared(7), pg_sleep(60)")
		}
		before := c.acknowledged.Load()
		require.Eventually(t, func() bool { return c.acknowledged.Load() > before+20 }, time.Minute, 5*time.Millisecond)
		<-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
		killed := time.Now()
		require.NoError(t, p.cmd.Process.Kill())
		<-p.exited
		c.stop()

		old := p.name
		p = newPodIn(t, cluster, dir, "killed-"+strconv.Itoa(i+1), time.Minute, "PGSIDECAR_POOL_MAX_CONNECTIONS=8")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		conn, err := p.connect(ctx)
		require.NoError(t, err, "who is ready serves")
		_, err = conn.Exec(ctx, "select 1")
		require.NoError(t, err)
		require.NoError(t, conn.Close(ctx))
		cancel()
		served := time.Since(killed)
		require.Eventually(t, func() bool {
			return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where application_name = $1", old) == 0
		}, time.Minute, 5*time.Millisecond, "its servers are gone")
		t.Logf("served again after %s, servers gone after %s", served.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
		require.Empty(t, cluster.Query(t, "select * from pg_locks where locktype = 'advisory'"))
		c.settle(t, p)
		require.Empty(t, cluster.Query(t, "select gid from pg_prepared_xacts"), "each was ended by who had prepared it")
		require.Empty(t, cluster.Query(t, "select * from pg_locks where relation = 'orders'::regclass"))
	}
	p.signal()
	p.await(cluster, time.Now())
	present := map[string]bool{}
	for _, row := range cluster.Query(t, "select worker || '-' || n from orders") {
		present[row[0]] = true
	}
	c.all.Range(func(order, _ any) bool {
		return assert.True(t, present[order.(string)], "order %v was acknowledged and is not there", order)
	})
}

// coordinators are clients that commit in two phases, and keep in mind what they have prepared, as a transaction manager does.
type coordinators struct {
	acknowledged atomic.Int64
	numbers      atomic.Int64 // Given out.
	all          sync.Map     // The orders that were acknowledged.
	open         sync.Map     // The transactions of which it is not known whether they are prepared or have ended.
	working      sync.WaitGroup
	cancel       context.CancelFunc
}

// start starts the workers; they end when the pod does.
func (c *coordinators) start(p *pod, workers int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.cancel = cancel
	for i := range workers {
		c.working.Go(func() { c.work(ctx, p, i) })
	}
}

// work is the goroutine of one worker.
func (c *coordinators) work(ctx context.Context, p *pod, worker int) {
	conn, err := p.connect(ctx)
	if err != nil {
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	for {
		n := c.numbers.Add(1)
		order := fmt.Sprintf("%d-%d", worker, n)
		if _, err := conn.Exec(ctx, "begin"); err != nil {
			return
		}
		if _, err := conn.Exec(ctx, "insert into orders values ($1, $2)", worker, n); err != nil {
			return
		}
		c.open.Store(order, false)
		if _, err := conn.Exec(ctx, "prepare transaction '"+order+"'"); err != nil {
			return
		}
		c.open.Store(order, true) // From here on it has to be committed.
		if _, err := conn.Exec(ctx, "commit prepared '"+order+"'"); err != nil {
			return
		}
		c.open.Delete(order)
		c.all.Store(order, nil)
		c.acknowledged.Add(1)
	}
}

func (c *coordinators) stop() {
	c.working.Wait()
	c.cancel()
}

// settle ends what was under way when the proxy was killed.
func (c *coordinators) settle(t *testing.T, p *pod) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, err := p.connect(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, "select gid from pg_prepared_xacts")
	require.NoError(t, err)
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	for _, order := range left {
		prepared, known := c.open.Load(order)
		require.True(t, known, "nobody knows of %s", order)
		verb := "rollback"
		if prepared == true {
			verb = "commit"
			c.all.Store(order, nil)
		}
		_, err := conn.Exec(ctx, verb+" prepared '"+order+"'")
		require.NoError(t, err)
	}
	c.open.Clear()
}
