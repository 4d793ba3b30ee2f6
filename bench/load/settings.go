package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/bench/contender"
)

// Settings is a number of clients that each SET something when they have connected, as drivers do, and then select by the simple
// protocol. All do so from this process, whose own cost is the same for every contender.
type Settings struct {
	Clients int
	Sets    int // how many different sets of settings there are; 0: nobody sets anything
}

// settle is how long the load runs before it is measured.
const settle = time.Second

// Run implements what package load is for.
func (l Settings) Run(ctx context.Context, r Runner, target *contender.Contender) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Duration+2*loginTime)
	defer cancel()
	m, err := r.newMeter(ctx, target)
	if err != nil {
		return nil, err
	}
	defer m.close()
	conns, err := l.connect(ctx, target)
	defer closeAll(ctx, conns)
	if err != nil {
		return nil, err
	}
	done := make([][]transaction, l.Clients)
	errs := make([]error, l.Clients)
	stop := make(chan struct{})
	var working sync.WaitGroup
	for i, conn := range conns {
		working.Go(func() { done[i], errs[i] = work(ctx, conn, stop) })
	}
	from, to, err := measure(ctx, r, m)
	if err == nil {
		err = wait(ctx, settle/10) // for transactions that end behind the measurement
	}
	close(stop)
	working.Wait()
	if err = errors.Join(err, errors.Join(errs...)); err != nil {
		return nil, err
	}
	return l.sample(m, from, to, done)
}

// measure reads the counters at both ends of the measured stretch.
func measure(ctx context.Context, r Runner, m *meter) (from, to reading, err error) {
	if err = wait(ctx, settle); err != nil {
		return from, to, err
	}
	if from, err = m.begin(ctx); err != nil {
		return from, to, err
	}
	if err = wait(ctx, r.Duration); err != nil {
		return from, to, err
	}
	to, err = m.end(ctx)
	return from, to, err
}

// connect opens the clients' connections and has each SET what is its own. They are the caller's, whatever the error.
func (l Settings) connect(ctx context.Context, target *contender.Contender) ([]*pgconn.PgConn, error) {
	conns := make([]*pgconn.PgConn, l.Clients)
	for i := range conns {
		conn, err := target.Connect(ctx, false)
		if err != nil {
			return conns, err
		}
		conns[i] = conn
		if l.Sets == 0 {
			continue
		}
		own := i % l.Sets
		sql := fmt.Sprintf("SET work_mem = '%dMB'; SET statement_timeout = '1h'; SET timezone = 'Etc/GMT+%d'; SET app.tenant = 'tenant %d'", 5+own, own, own)
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return conns, fmt.Errorf("set: %w", err)
		}
	}
	return conns, nil
}

// work runs one client's transactions until it is stopped.
func work(ctx context.Context, conn *pgconn.PgConn, stop <-chan struct{}) ([]transaction, error) {
	var all []transaction
	for {
		select {
		case <-stop:
			return all, nil
		default:
		}
		begin := time.Now()
		sql := fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", 1+rand.IntN(100_000))
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return all, fmt.Errorf("select: %w", err)
		}
		end := time.Now()
		all = append(all, transaction{end: end, latency: end.Sub(begin)})
	}
}

func (l Settings) sample(m *meter, from, to reading, done [][]transaction) (Sample, error) {
	var all []transaction
	for _, one := range done {
		all = append(all, one...)
	}
	return m.transactions(all, from, to)
}
