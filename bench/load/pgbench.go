package load

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"pgsidecar/bench/contender"
	"pgsidecar/bench/process"
)

// Pgbench is pgbench's select-only script.
type Pgbench struct {
	Protocol  string // simple, extended or prepared
	Clients   int
	TLS       bool // between client and proxy
	Reconnect bool // a connection for each transaction
}

// loginTime bounds how long the clients of a run may take to log in.
const loginTime = 60 * time.Second

// Run runs pgbench against a contender. Measured is a stretch in its middle: how many transactions ended in it, and their latency,
// is taken from pgbench's log, and the proxy's counters are read at both ends.
func (p Pgbench) Run(ctx context.Context, r Runner, target *contender.Contender) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Duration+2*loginTime)
	defer cancel()
	dir, err := os.MkdirTemp(r.Dir, "pgbench-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // What it leaves goes with the directory of the whole run.

	m, err := r.newMeter(ctx, target)
	if err != nil {
		return nil, err
	}
	defer m.close()
	output := filepath.Join(dir, "output")
	running, err := process.Start(ctx, process.Program{Path: r.Pgbench, Args: p.arguments(dir, target, r.Duration), Log: output})
	if err != nil {
		return nil, err
	}
	defer running.Stop()
	if err := awaitTransactions(ctx, running, output); err != nil {
		return nil, err
	}
	from, err := m.begin(ctx)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, r.Duration); err != nil {
		return nil, err
	}
	to, err := m.end(ctx)
	if err != nil {
		return nil, err
	}
	// To pgbench this signal means that the time of --time is over: it finishes what it has begun and writes the rest of its logs.
	if err := running.Signal(syscall.SIGALRM); err != nil {
		return nil, err
	}
	if err := running.Wait(ctx); err != nil {
		return nil, err
	}
	return p.sample(dir, m, from, to)
}

func (p Pgbench) arguments(dir string, target *contender.Contender, duration time.Duration) []string {
	threads := min(p.Clients, runtime.NumCPU())
	mode := "disable"
	if p.TLS {
		mode = "require"
	}
	if p.Reconnect {
		threads = p.Clients // A thread waits while it connects: its other clients would stand still.
	}
	// Run ends the load; this only bounds it, should nobody be there to do so. In pgbench the clients' logins are part of it.
	limit := loginTime + duration + time.Minute
	args := []string{
		"--no-vacuum", "--select-only",
		"--protocol=" + p.Protocol,
		"--client=" + strconv.Itoa(p.Clients),
		"--jobs=" + strconv.Itoa(threads),
		fmt.Sprintf("--time=%.0f", math.Ceil(limit.Seconds())),
		"--progress=1",
		"--log", "--log-prefix=" + logPrefix(dir),
	}
	if p.Reconnect {
		args = append(args, "--connect")
	}
	return append(args, fmt.Sprintf("host=%s port=%d dbname=%s user=%s sslmode=%s gssencmode=disable",
		target.Host, target.Port, contender.Database, target.Name, mode))
}

func logPrefix(dir string) string { return filepath.Join(dir, "transactions") }

// awaitTransactions waits until pgbench reports progress for the first time: then all its clients have logged in, and transactions have
// flowed for a second. Its logs would tell this later, since they are written by the block.
func awaitTransactions(ctx context.Context, running *process.Process, output string) error {
	login := time.NewTimer(loginTime)
	defer login.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		text, err := os.ReadFile(output)
		if err != nil {
			return fmt.Errorf("read output of pgbench: %w", err)
		}
		if bytes.Contains(text, []byte("progress: ")) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-running.Exited():
			return fmt.Errorf("run pgbench: it ended too early: %w", running.Failure())
		case <-login.C:
			return fmt.Errorf("run pgbench: no transaction within %s", loginTime)
		case <-look.C:
		}
	}
}

func (p Pgbench) sample(dir string, m *meter, from, to reading) (Sample, error) {
	all, err := readLogs(logPrefix(dir))
	if err != nil {
		return nil, err
	}
	if p.Reconnect {
		all = cycles(all)
	}
	return m.transactions(all, from, to)
}

// transactions is what has been measured of the transactions between two readings.
func (m *meter) transactions(all []transaction, from, to reading) (Sample, error) {
	measured, err := within(all, from.at, to.at)
	if err != nil {
		return nil, err
	}
	latencies := make([]time.Duration, len(measured))
	for i, t := range measured {
		latencies[i] = t.latency
	}
	middle := percentiles(latencies, 0.5, 0.99)
	s := Sample{
		TPS: float64(len(measured)) / to.at.Sub(from.at).Seconds(),
		P50: middle[0],
		P99: middle[1],
	}
	m.cost(s, from, to, float64(len(measured)))
	return s, nil
}
