package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/bench/contender"
	"pgsidecar/bench/process"
)

// Idle is a number of clients that log in, run one query each and then do nothing.
type Idle struct {
	Clients int
	TLS     bool
	Listen  bool // the query is LISTEN, to one of a hundred channels
}

const (
	// idleLogins is how many clients log in at a time.
	idleLogins = 16
	// idleTimeout bounds the logins of one run.
	idleTimeout = 2 * time.Minute
	// The proxy's memory is read once it has stayed within steadyBytes for steadyTime, which is waited for no longer than
	// steadyLimit.
	steadyTime  = time.Second
	steadyBytes = 32 << 10
	steadyLimit = 10 * time.Second
)

// Run measures what a fresh proxy's memory grows by. What it needs once only, for its first clients and servers, is brought about
// before by a few clients that leave again; the memory that they leave behind is used by some of those that count, so they
// have to be few.
func (l Idle) Run(ctx context.Context, _ Runner, target *contender.Contender) (Sample, error) {
	if err := target.Restart(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, idleTimeout)
	defer cancel()
	first, err := l.login(ctx, target, 2*idleLogins)
	closeAll(ctx, first)
	if err != nil {
		return nil, err
	}
	before, err := readFootprint(ctx, target)
	if err != nil {
		return nil, err
	}
	clients, err := l.login(ctx, target, l.Clients)
	defer closeAll(ctx, clients)
	if err != nil {
		return nil, err
	}
	after, err := readFootprint(ctx, target)
	if err != nil {
		return nil, err
	}
	count := float64(l.Clients)
	s := Sample{
		Memory:    (after.memory - before.memory) / count,
		Handshake: float64((after.usage.CPU() - before.usage.CPU()).Microseconds()) / count,
	}
	if after.heap > 0 {
		s[Heap] = (after.heap - before.heap) / count
	}
	return s, nil
}

// footprint is what a proxy holds when nothing happens.
type footprint struct {
	memory, heap float64 // bytes; no heap is one that the proxy does not tell
	usage        process.Usage
}

// readFootprint waits until the proxy's memory is steady: a garbage collector may still be giving some back.
func readFootprint(ctx context.Context, target *contender.Contender) (footprint, error) {
	var f footprint
	memory, err := steadyMemory(ctx, target.PID())
	if err != nil {
		return f, err
	}
	f.memory = float64(memory)
	if f.usage, err = process.ReadUsage(target.PID()); err != nil {
		return f, err
	}
	if target.Metrics == "" {
		return f, nil
	}
	f.heap, err = scrapeMetric(ctx, target.Metrics, heapInuse)
	if errors.Is(err, errNoMetric) {
		return f, nil
	}
	return f, err
}

// steadyMemory reads a process's memory once it no longer changes.
func steadyMemory(ctx context.Context, pid int) (uint64, error) {
	last, err := process.ReadMemory(pid)
	if err != nil {
		return 0, err
	}
	for start := time.Now(); time.Since(start) < steadyLimit; {
		if err := wait(ctx, steadyTime); err != nil {
			return 0, err
		}
		now, err := process.ReadMemory(pid)
		if err != nil {
			return 0, err
		}
		if max(now, last)-min(now, last) <= steadyBytes {
			return now, nil
		}
		last = now
	}
	return last, nil
}

// login opens connections, some at a time, and runs a query on each. The connections are the caller's, whatever the error.
func (l Idle) login(ctx context.Context, target *contender.Contender, count int) ([]*pgconn.PgConn, error) {
	conns := make([]*pgconn.PgConn, count)
	errs := make([]error, idleLogins)
	var logins sync.WaitGroup
	for i := range idleLogins {
		logins.Go(func() {
			for n := i; n < count && errs[i] == nil; n += idleLogins {
				conns[n], errs[i] = l.loginOne(ctx, target, n)
			}
		})
	}
	logins.Wait()
	if err := errors.Join(errs...); err != nil {
		return conns, fmt.Errorf("log in %d clients: %w", count, err)
	}
	return conns, nil
}

func (l Idle) loginOne(ctx context.Context, target *contender.Contender, number int) (*pgconn.PgConn, error) {
	conn, err := target.Connect(ctx, l.TLS)
	if err != nil {
		return nil, err
	}
	sql := "SELECT 1"
	if l.Listen {
		sql = fmt.Sprintf("LISTEN channel_%d", number%100)
	}
	_, err = conn.Exec(ctx, sql).ReadAll()
	return conn, err
}

// closeAll ends connections without much ado; it has a time of its own, since the caller's may have ended.
func closeAll(ctx context.Context, conns []*pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, conn := range conns {
		if conn != nil {
			_ = conn.Close(ctx)
		}
	}
}
