// Package load applies loads to a contender and measures what they cost: pgbench's, bulk transfers and idle clients. It starts no
// server; what it starts and connects, it ends.
package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pgsidecar/bench/contender"
	"pgsidecar/bench/process"
)

// Metric names what a run measures.
type Metric string

// The metrics, with their units. A run yields those that its load and its contender have: PostgreSQL without a proxy has no cost.
const (
	TPS         Metric = "tps"           // transactions a second
	P50         Metric = "p50_us"        // latency of a transaction at the median, microseconds
	P99         Metric = "p99_us"        // latency at the 99th percentile, microseconds
	Throughput  Metric = "mb_per_s"      // payload, 10^6 bytes a second
	CPU         Metric = "cpu_us"        // CPU time of the proxy a transaction, or a megabyte of payload, microseconds
	Switches    Metric = "switches"      // context switches of the proxy a transaction
	Syscalls    Metric = "syscalls"      // system calls of the proxy a transaction
	Mallocs     Metric = "mallocs"       // allocations on the proxy's Go heap a transaction
	Memory      Metric = "memory_client" // bytes of the proxy's memory a client (Pss)
	Heap        Metric = "heap_client"   // bytes of its Go heap in use a client
	Handshake   Metric = "login_cpu_us"  // CPU time of the proxy a client's connection, login and first query, microseconds
	Connections Metric = "servers"       // server connections after the run
)

// Sample is what one run measured.
type Sample map[Metric]float64

// Runner runs loads. It keeps nothing from one run to the next.
type Runner struct {
	Pgbench  string        // path of the program
	Dir      string        // for logs, which a run removes
	Duration time.Duration // measured time of a run
	Syscalls bool          // count system calls too, which slows the proxy a little
}

// meter reads a proxy's counters at the two ends of a measured stretch. The zero meter is that of PostgreSQL itself, and
// measures only time.
type meter struct {
	target  *contender.Contender
	counter *process.SyscallCounter // nil: not counted
	mallocs bool                    // the proxy tells how much it allocates
	scrape  float64                 // allocations that one scrape itself makes
}

// reading is the state of the counters at one moment.
type reading struct {
	at       time.Time
	usage    process.Usage
	syscalls uint64
	mallocs  float64
}

// newMeter is to be closed by the caller.
func (r Runner) newMeter(ctx context.Context, target *contender.Contender) (*meter, error) {
	m := &meter{target: target}
	if target.PID() == 0 {
		return m, nil
	}
	if r.Syscalls {
		counter, err := process.CountSyscalls(target.PID())
		if err != nil {
			return nil, err
		}
		m.counter = counter
	}
	if err := m.calibrate(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// calibrate finds out what a scrape itself allocates. A proxy without metrics of the Go runtime is measured without them.
func (m *meter) calibrate(ctx context.Context) error {
	if m.target.Metrics == "" {
		return nil
	}
	first, err := scrapeMetric(ctx, m.target.Metrics, mallocsTotal)
	if errors.Is(err, errNoMetric) {
		return nil
	}
	if err != nil {
		return err
	}
	second, err := scrapeMetric(ctx, m.target.Metrics, mallocsTotal)
	m.mallocs, m.scrape = true, second-first
	return err
}

func (m *meter) close() {
	if m.counter != nil {
		m.counter.Close()
	}
}

// begin reads the counters, those last whose reading costs the proxy nothing.
func (m *meter) begin(ctx context.Context) (reading, error) {
	var r reading
	if err := m.readMallocs(ctx, &r); err != nil {
		return r, err
	}
	err := m.readKernel(&r)
	return r, err
}

// end reads the counters in the opposite order, so that no scrape lies between the two readings of the kernel's counters.
func (m *meter) end(ctx context.Context) (reading, error) {
	var r reading
	if err := m.readKernel(&r); err != nil {
		return r, err
	}
	err := m.readMallocs(ctx, &r)
	return r, err
}

func (m *meter) readKernel(r *reading) error {
	r.at = time.Now()
	if m.target.PID() == 0 {
		return nil
	}
	var err error
	if r.usage, err = process.ReadUsage(m.target.PID()); err != nil {
		return fmt.Errorf("measure %s: %w", m.target.Name, err)
	}
	if m.counter == nil {
		return nil
	}
	if r.syscalls, err = m.counter.Count(); err != nil {
		return fmt.Errorf("measure %s: %w", m.target.Name, err)
	}
	return nil
}

func (m *meter) readMallocs(ctx context.Context, r *reading) error {
	if !m.mallocs {
		return nil
	}
	var err error
	r.mallocs, err = scrapeMetric(ctx, m.target.Metrics, mallocsTotal)
	return err
}

// cost adds to a sample what the proxy spent between two readings, divided by the units of work done.
func (m *meter) cost(s Sample, from, to reading, units float64) {
	if m.target.PID() == 0 || units == 0 {
		return
	}
	s[CPU] = float64((to.usage.CPU() - from.usage.CPU()).Microseconds()) / units
	s[Switches] = (float64(to.usage.Switches) - float64(from.usage.Switches)) / units
	if m.counter != nil {
		s[Syscalls] = float64(to.syscalls-from.syscalls) / units
	}
	if m.mallocs {
		s[Mallocs] = max(0, to.mallocs-from.mallocs-m.scrape) / units
	}
}

// wait waits for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
