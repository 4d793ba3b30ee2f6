package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"pgsidecar/bench/contender"
	"pgsidecar/bench/load"
	"pgsidecar/bench/report"
)

// syscallsDuration is the measured time of a run whose system calls are counted: they are many and alike.
const syscallsDuration = 2 * time.Second

// spareFiles is how many descriptors a process may need beside those of clients.
const spareFiles = 200

// bench is one run of the benchmark.
type bench struct {
	opts       options
	progress   io.Writer
	postgres   *contender.Postgres
	contenders map[string]*contender.Contender
	runner     load.Runner
	result     report.Report
}

// measure puts everything up, runs the entries, and takes everything down again.
func measure(ctx context.Context, opts options, entries []entry, progress io.Writer) (result report.Report, err error) {
	machine := report.ThisMachine() // Before we load it ourselves.
	clients := max(opts.idle, 1000)
	if err := raiseFileLimit(clients); err != nil {
		return report.Report{}, err
	}
	dir, err := makeDir()
	if err != nil {
		return report.Report{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	b := &bench{opts: opts, progress: progress, contenders: map[string]*contender.Contender{}}
	b.say("Starting PostgreSQL and filling it.")
	names := []string{direct, pgbouncer, pgsidecar, pgsidecarLoops}
	b.postgres, err = contender.StartPostgres(ctx, dir, 1000+spareFiles, opts.scale, names)
	if err != nil {
		return report.Report{}, err
	}
	defer func() { err = errors.Join(err, b.postgres.Close()) }()
	defer b.stop()
	b.result = report.Report{Machine: machine, Settings: report.Settings{
		Rounds: opts.rounds, Seconds: opts.duration.Seconds(), PoolSize: opts.pool, Scale: opts.scale, Syscalls: opts.syscalls,
	}}
	b.runner = load.Runner{Pgbench: b.postgres.Pgbench, Dir: dir, Duration: opts.duration}
	cfg := contender.Config{Dir: dir, PoolSize: opts.pool, Clients: clients + spareFiles, Postgres: b.postgres}
	if err := b.launch(ctx, cfg); err != nil {
		return report.Report{}, err
	}
	for _, e := range entries {
		if err := b.runEntry(ctx, e); err != nil {
			return report.Report{}, err
		}
	}
	return b.result, nil
}

// makeDir makes the directory of a run, which PostgreSQL's and PgBouncer's accounts have to enter.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "pgsidecar-bench-")
	if err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	return dir, nil
}

// raiseFileLimit lets us and what we start hold so many connections. Go raises its own limit by itself but starts
// programs with the original one, unless the limit is set here.
func raiseFileLimit(clients int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read file limit: %w", err)
	}
	if needed := uint64(clients + spareFiles); limit.Max < needed {
		return fmt.Errorf("raise file limit: %d clients need %d files, the hard limit is %d: ask for fewer with -idle", clients, needed, limit.Max)
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("raise file limit: %w", err)
	}
	return nil
}

// launch starts the contenders that are wanted and present.
func (b *bench) launch(ctx context.Context, cfg contender.Config) error {
	b.add(contender.Direct(b.postgres))
	makers := []struct {
		name string
		make func() (*contender.Contender, error)
	}{
		{pgbouncer, func() (*contender.Contender, error) { return contender.NewPgBouncer(ctx, cfg) }},
		{pgsidecar, func() (*contender.Contender, error) { return contender.NewPgsidecar(ctx, cfg, pgsidecar, 1) }},
		{pgsidecarLoops, func() (*contender.Contender, error) { return contender.NewPgsidecar(ctx, cfg, pgsidecarLoops, 2) }},
	}
	for _, maker := range makers {
		if !b.wanted(maker.name) {
			continue
		}
		c, err := maker.make()
		if errors.Is(err, contender.ErrMissing) {
			b.say("%s sits out: %v", maker.name, err)
			b.result.Absent = append(b.result.Absent, fmt.Sprintf("%s: %v", maker.name, err))
			continue
		}
		if err != nil {
			return err
		}
		if err := c.Restart(ctx); err != nil {
			return err
		}
		b.add(c)
	}
	return nil
}

func (b *bench) add(c *contender.Contender) {
	if !b.wanted(c.Name) {
		return
	}
	b.contenders[c.Name] = c
	b.result.Contenders = append(b.result.Contenders, report.Contender{Name: c.Name, Version: c.Version})
}

func (b *bench) wanted(name string) bool {
	return len(b.opts.only) == 0 || slices.Contains(b.opts.only, name)
}

func (b *bench) stop() {
	for _, c := range b.contenders {
		c.Stop()
	}
}

// runEntry runs one load in all its rounds. A run that fails is noted and the others go on; only the end of ctx is an error.
func (b *bench) runEntry(ctx context.Context, e entry) error {
	contenders := b.present(e)
	if len(contenders) == 0 {
		b.say("%s: none of its contenders is here.", e.name)
		return nil
	}
	l := report.Load{Name: e.name, Title: e.title, Contenders: e.contenders, Base: e.base, Goals: e.goals}
	l.Subject = e.contenders[len(e.contenders)-1]
	for n := range b.opts.rounds {
		b.say("%s: round %d of %d", e.name, n+1, b.opts.rounds)
		if err := b.runRound(ctx, &l, e, contenders, b.runner); err != nil {
			return err
		}
	}
	if b.opts.syscalls && !e.restarts {
		if err := b.countSyscalls(ctx, &l, e, contenders); err != nil {
			return err
		}
	}
	b.result.Loads = append(b.result.Loads, l)
	return nil
}

func (b *bench) present(e entry) []*contender.Contender {
	var present []*contender.Contender
	for _, name := range e.contenders {
		if c, found := b.contenders[name]; found {
			present = append(present, c)
		}
	}
	return present
}

// runRound gives every contender the load, one after the other, and adds the round to the load's.
func (b *bench) runRound(ctx context.Context, l *report.Load, e entry, contenders []*contender.Contender, runner load.Runner) error {
	round := report.Round{}
	for _, c := range contenders {
		sample, err := e.load.Run(ctx, runner, c)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			err = b.countServers(ctx, c, sample)
		}
		if err != nil {
			b.say("%s: %s failed: %v", e.name, c.Name, err)
			l.Failures = append(l.Failures, fmt.Sprintf("%s: %v", c.Name, err))
			continue
		}
		round[c.Name] = sample
	}
	l.Rounds = append(l.Rounds, round)
	return nil
}

// countServers adds the number of a proxy's server connections, the proof that the pools were equal.
func (b *bench) countServers(ctx context.Context, c *contender.Contender, sample load.Sample) error {
	if c.PID() == 0 {
		return nil
	}
	servers, err := b.postgres.ServerConnections(ctx, c)
	sample[load.Connections] = float64(servers)
	return err
}

// countSyscalls runs a short round of the proxies with their system calls counted, and keeps nothing else of it, since counting
// costs time.
func (b *bench) countSyscalls(ctx context.Context, l *report.Load, e entry, contenders []*contender.Contender) error {
	proxies := slices.DeleteFunc(slices.Clone(contenders), func(c *contender.Contender) bool { return c.PID() == 0 })
	runner := b.runner
	runner.Syscalls = true
	runner.Duration = min(runner.Duration, syscallsDuration)
	b.say("%s: counting system calls", e.name)
	if err := b.runRound(ctx, l, e, proxies, runner); err != nil {
		return err
	}
	counted := l.Rounds[len(l.Rounds)-1]
	for name, sample := range counted {
		counted[name] = load.Sample{load.Syscalls: sample[load.Syscalls]}
	}
	return nil
}

// say prints a line of progress with the time, so that one sees that it lives. Nothing depends on it.
func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.progress, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
