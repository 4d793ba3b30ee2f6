// Command bench compares pgsidecar with PgBouncer and with PostgreSQL itself, side by side: in each round every contender gets
// the same load, one after the other, and what counts is the median of the rounds' ratios. It starts a throwaway PostgreSQL and the
// proxies on loopback, and leaves nothing behind. See docs/performance.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"pgsidecar/bench/report"
)

// options are the flags.
type options struct {
	rounds   int
	duration time.Duration
	pool     int
	scale    int
	idle     int
	loads    []string // empty: all
	only     []string // empty: all contenders
	json     string
	syscalls bool
	list     bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // This is main.
	}
}

// run does everything but exit.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opts, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	entries, err := choose(plan(opts.idle), opts.loads)
	if err != nil {
		return err
	}
	if opts.list {
		return list(stdout, entries)
	}
	result, err := measure(ctx, opts, entries, stderr)
	if err != nil {
		return err
	}
	if err := result.WriteTable(stdout); err != nil {
		return err
	}
	if opts.json != "" {
		if err := writeJSON(opts.json, result); err != nil {
			return err
		}
	}
	if result.Failed() {
		return errors.New("some runs failed; the tables say which")
	}
	return nil
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	var seconds float64
	var loads, only string
	var quick bool
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 5, "number of rounds")
	flags.Float64Var(&seconds, "seconds", 10, "measured seconds of a run")
	flags.IntVar(&o.pool, "pool", 16, "server connections of each proxy")
	flags.IntVar(&o.scale, "scale", 10, "scale of pgbench's tables")
	flags.IntVar(&o.idle, "idle", 5000, "clients of the idle loads")
	flags.StringVar(&loads, "loads", "", "only these loads, comma separated; a name's beginning chooses all that begin so")
	flags.StringVar(&only, "only", "", "only these contenders, comma separated")
	flags.StringVar(&o.json, "json", "", "also write every sample to this file")
	flags.BoolVar(&o.syscalls, "syscalls", true, "count system calls in a round of their own (wants root)")
	flags.BoolVar(&o.list, "list", false, "list the loads and end")
	flags.BoolVar(&quick, "quick", false, "one round of a second and 500 idle clients: does it work at all?")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if quick {
		o.rounds, seconds, o.idle = 1, 1, 500
	}
	if o.rounds < 1 || seconds < 0.5 || o.pool < 1 || o.scale < 1 || o.idle < 1 {
		return o, errors.New("rounds, pool, scale and idle must be at least 1, seconds at least 0.5")
	}
	o.duration = time.Duration(seconds * float64(time.Second))
	o.loads, o.only = split(loads), split(only)
	return o, nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// choose keeps the entries whose name begins with one of the prefixes; each prefix has to choose something.
func choose(entries []entry, prefixes []string) ([]entry, error) {
	if len(prefixes) == 0 {
		return entries, nil
	}
	used := map[string]bool{}
	var chosen []entry
	for _, e := range entries {
		wanted := false
		for _, prefix := range prefixes {
			if strings.HasPrefix(e.name, prefix) {
				used[prefix], wanted = true, true
			}
		}
		if wanted {
			chosen = append(chosen, e)
		}
	}
	for _, prefix := range prefixes {
		if !used[prefix] {
			return nil, fmt.Errorf("no load begins with %q; -list shows them all", prefix)
		}
	}
	return chosen, nil
}

func list(w io.Writer, entries []entry) error {
	for _, e := range entries {
		if _, err := fmt.Fprintf(w, "%-18s %s\n", e.name, e.title); err != nil {
			return fmt.Errorf("list loads: %w", err)
		}
	}
	return nil
}

func writeJSON(path string, result report.Report) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("write samples: %w", err)
	}
	return errors.Join(result.WriteJSON(file), file.Close())
}
