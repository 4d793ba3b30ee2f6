// Command regress runs PostgreSQL's own tests, the regression suite and the isolation suite, against a fresh cluster: first
// directly and then through pgsidecar. It tells which tests pass directly and fail through the proxy, and keeps their diffs.
//
// The invariant: it succeeds only if each such test is in the list of known differences, with its reason.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	suite  string   // regress or isolation; empty: both
	mode   string   // transaction or session; empty: both
	order  string   // serial or parallel; empty: both
	only   []string // tests; empty: the suite's schedule
	pool   int
	direct bool // only directly
	major  int
	proxy  string
	dir    string
	limit  time.Duration

	version string // of Debian's package; empty: the installed one
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "regress:", err)
		os.Exit(1) //nolint:forbidigo // Only here.
	}
}

// run does everything but exit.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	legs := o.legs()
	if len(legs) == 0 {
		return errors.New("nothing to run: the isolation suite wants real process ids, so it runs in session mode only")
	}
	tests, err := findTests(ctx, o, stderr)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(o.dir); err != nil {
		return fmt.Errorf("clear output directory: %w", err)
	}
	course := course{options: o, tests: tests, out: stdout, direct: make(map[string]results)}
	return course.run(ctx, legs)
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	var only string
	var serial, parallel bool
	flags := flag.NewFlagSet("regress", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.suite, "suite", "", "only this suite: regress or isolation")
	flags.StringVar(&o.mode, "mode", "", "only this pool mode: transaction or session")
	flags.BoolVar(&serial, "serial", false, "only one test at a time")
	flags.BoolVar(&parallel, "parallel", false, "only in the parallel groups of the schedule")
	flags.StringVar(&only, "only", "", "only these tests, comma separated, in this order (test_setup comes first by itself)")
	flags.IntVar(&o.pool, "pool", 5, "server connections of the proxy")
	flags.BoolVar(&o.direct, "direct", false, "only directly, without the proxy")
	flags.IntVar(&o.major, "major", 15, "version of PostgreSQL")
	flags.StringVar(&o.version, "version", "", "version of Debian's package, which is fetched (the installed one)")
	flags.StringVar(&o.proxy, "proxy", "bin/pgsidecar", "the program to test")
	flags.StringVar(&o.dir, "dir", ".local/regress/output", "where results are left; it is cleared first")
	flags.DurationVar(&o.limit, "limit", 30*time.Minute, "how long one run of a suite may take")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case serial && !parallel:
		o.order = "serial"
	case parallel && !serial:
		o.order = "parallel"
	}
	o.only = strings.FieldsFunc(only, func(r rune) bool { return r == ',' || r == ' ' })
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return o, fmt.Errorf("resolve output directory: %w", err)
	}
	return o, nil
}

// leg is one run of a suite through the proxy.
type leg struct{ suite, mode, order string }

func (l leg) String() string { return l.suite + ", " + l.mode + " mode, " + l.order }

// legs are the runs that the flags leave. The isolation suite asks the server who blocks whom by process id, which only
// session mode shows to clients, and its schedule has no parallel groups.
func (o *options) legs() []leg {
	var legs []leg
	for _, l := range []leg{
		{suite: "regress", mode: "transaction", order: "serial"},
		{suite: "regress", mode: "transaction", order: "parallel"},
		{suite: "regress", mode: "session", order: "serial"},
		{suite: "regress", mode: "session", order: "parallel"},
		{suite: "isolation", mode: "session", order: "serial"},
	} {
		if (o.suite == "" || o.suite == l.suite) && (o.mode == "" || o.mode == l.mode) && (o.order == "" || o.order == l.order) {
			legs = append(legs, l)
		}
	}
	return legs
}
