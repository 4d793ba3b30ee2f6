package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/config"
	"pgsidecar/internal/verify"
)

func verifyCommand() command {
	return command{
		name: "verify", summary: "Check proxies, servers and data before and after a rollout, a rollback or a switchover.",
		usage: `
Checks what has been asked for and prints a line for each check, with what to do where it has not passed:

  proxies       (with --http, or without --binary and --from) each answers; all have one version and configuration; a
                transaction through each commits; system identifier and timeline; replication has caught up; no prepared
                transaction or idle transaction is left over; no state has leaked; with --save or --baseline also errors per
                transaction and the 99th percentile of transactions and waits, measured for --window
  --binary      an older binary accepts the present configuration
  --from, --to  what one server has acknowledged is on the other; with --tables also that all tables have the same rows

Nothing is changed. A check that could not be made is told as "unknown" and is no success.

Exit codes: 0 all is well, 1 a check failed, 2 the command line is wrong, 3 nothing failed but something could not be checked.

Examples:
  pgsidecar verify --save before.json                          before a rollout, while there is traffic
  pgsidecar verify --baseline before.json --want-version 1.5   and after it
  pgsidecar verify --http 10.0.0.4:6433,10.0.0.5:6433 --skip transaction
  pgsidecar verify --binary ./pgsidecar-1.4 --config /etc/pgsidecar.yaml
  pgsidecar verify --from "$OLD_URL" --to "$NEW_URL" --tables --json`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			w := declareVerify(flags)
			return func(ctx context.Context, in invocation) error { return runVerify(ctx, in, w) }
		},
	}
}

// wish is what the flags of verify say.
type wish struct {
	http, save, baseline, binary, skip string
	file                               func(invocation) string
	tolerance                          float64 // Percent.
	asJSON                             bool

	proxies verify.Config
	data    verify.DataConfig
}

func declareVerify(flags *flag.FlagSet) *wish {
	w := new(wish)
	flags.StringVar(&w.http, "http", "", "the `ADDRESSES` in http.listen of the proxies, with commas; else the one in the configuration")
	w.file = configFlag(flags)
	flags.StringVar(&w.proxies.Login, "client", "", "as whom to log in at the proxies, a `URL` whose host does not matter; else the user of upstream.url")
	flags.StringVar(&w.proxies.Server, "server", "", "the `URL` of PostgreSQL for a user in pg_monitor; else the server is asked through the proxy")
	flags.StringVar(&w.proxies.Want.Version, "want-version", "", "the `VERSION` that all proxies have to be; else they have to agree")
	flags.StringVar(&w.proxies.Want.ConfigHash, "want-config", "", "the `HASH` of the configuration that all have to have, as check prints it")
	flags.StringVar(&w.proxies.Want.System, "want-system", "", "the system `IDENTIFIER`; else that of the base line")
	flags.Int64Var(&w.proxies.Want.Timeline, "want-timeline", 0, "the timeline `NUMBER`; else that of the base line")
	flags.IntVar(&w.proxies.Want.Standbys, "want-standbys", 0, "the least `NUMBER` of standbys; else that of the base line")
	flags.StringVar(&w.save, "save", "", "write a base line to `FILE` if nothing fails")
	flags.StringVar(&w.baseline, "baseline", "", "compare with the base line in `FILE`")
	flags.DurationVar(&w.proxies.Window, "window", 10*time.Second, "for what `TIME` errors and times are measured")
	flags.DurationVar(&w.proxies.Wait, "wait", 10*time.Second, "for what `TIME` a transaction may run and a standby be behind")
	flags.DurationVar(&w.proxies.Age, "leftover-age", time.Minute, "after what `TIME` a transaction that stands still is left over")
	flags.Float64Var(&w.tolerance, "tolerance", 100, "how many `PERCENT` more errors and longer times than in the base line are well")
	flags.StringVar(&w.skip, "skip", "", "`CHECKS` to leave out, with commas")
	flags.StringVar(&w.binary, "binary", "", "run check of this `FILE`, an older pgsidecar, on the configuration")
	flags.StringVar(&w.data.From, "from", "", "the `URL` of the server whose data has to be on the other")
	flags.StringVar(&w.data.To, "to", "", "the `URL` of the other server")
	flags.BoolVar(&w.data.Tables, "tables", false, "compare the rows of all tables of the database, too, which reads all of them")
	flags.BoolVar(&w.asJSON, "json", false, "print the results as JSON")
	return w
}

func runVerify(ctx context.Context, in invocation, w *wish) error {
	skip, err := w.check()
	if err != nil {
		return err
	}
	ctx, stop := untilSignal(ctx, in.signals)
	defer stop()
	report := verify.NewReport(skip)
	if w.binary != "" {
		verify.Binary(ctx, w.binary, w.file(in), in.environ, report)
	}
	if w.data.From != "" {
		w.data.Wait = w.proxies.Wait
		verify.Data(ctx, w.data, report)
	}
	var saved error
	if w.http != "" || w.binary == "" && w.data.From == "" {
		base, err := w.verifyProxies(ctx, in, report)
		if err != nil {
			return err
		}
		if w.save != "" && report.Outcome() != verify.Failed {
			saved = base.Save(w.save)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if err := printReport(in.stdout, report, w.asJSON); err != nil {
		return err
	}
	if saved != nil {
		return saved
	}
	return outcomeOf(report)
}

// check finds what is wrong with the flags, and returns the checks to skip.
func (w *wish) check() ([]verify.Check, error) {
	if (w.data.From == "") != (w.data.To == "") || w.data.Tables && w.data.From == "" {
		return nil, &usageError{"--from and --to belong together, and --tables to both"}
	}
	if w.tolerance < 0 {
		return nil, &usageError{"--tolerance cannot be less than 0"}
	}
	var skip []verify.Check
	for _, word := range list(w.skip) {
		c := verify.Check(word)
		if !slices.Contains(verify.Checks(), c) {
			return nil, &usageError{fmt.Sprintf("there is no check %q to skip: write some of %v", word, verify.Checks())}
		}
		skip = append(skip, c)
	}
	return skip, nil
}

// list splits a list with commas.
func list(text string) []string {
	return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' })
}

func (w *wish) verifyProxies(ctx context.Context, in invocation, report *verify.Report) (verify.Baseline, error) {
	c, _, _ := config.Load(w.file(in), in.environ) // Faults in other keys do not matter here, as for the other commands that ask.
	addresses := list(w.http)
	if len(addresses) == 0 {
		own, err := reachable(c.HTTP.Listen)
		if err != nil {
			return verify.Baseline{}, err
		}
		addresses = []string{own}
	}
	for _, address := range addresses {
		w.proxies.Proxies = append(w.proxies.Proxies, newClient(address))
	}
	if w.proxies.Login == "" {
		w.proxies.Login = loginOf(c.Upstream)
	}
	if w.baseline != "" {
		base, err := verify.Load(w.baseline)
		if err != nil {
			return verify.Baseline{}, &usageError{err.Error()}
		}
		w.proxies.Base = base
	}
	w.proxies.Measure = w.save != "" || w.baseline != ""
	w.proxies.Tolerance = w.tolerance / 100
	return verify.Proxies(ctx, w.proxies, report), nil
}

// loginOf returns the connection string of a client that is the upstream URL's user; "" if there is none. What else the
// URL says, about TLS for example, is about the server.
func loginOf(upstream config.Upstream) string {
	if upstream.URL == "" {
		return ""
	}
	c, err := pgconn.ParseConfig(upstream.URL.Reveal())
	if err != nil {
		return ""
	}
	password := c.Password
	if upstream.PasswordFile != "" {
		if content, err := os.ReadFile(upstream.PasswordFile); err == nil {
			password = strings.TrimRight(string(content), "\r\n")
		}
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	return fmt.Sprintf("user='%s' password='%s' dbname='%s' sslmode=prefer", quote.Replace(c.User), quote.Replace(password), quote.Replace(c.Database))
}

// untilSignal returns a context that ends with the first signal.
func untilSignal(ctx context.Context, signals <-chan os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go awaitSignal(ctx, signals, cancel)
	return ctx, cancel
}

// awaitSignal is the goroutine of untilSignal. It ends with the context.
func awaitSignal(ctx context.Context, signals <-chan os.Signal, cancel context.CancelFunc) {
	select {
	case <-signals:
		cancel()
	case <-ctx.Done():
	}
}

// printReport shows results to people, a line each, or to programs.
func printReport(w io.Writer, report *verify.Report, asJSON bool) error {
	if asJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(struct {
			Outcome verify.Outcome  `json:"outcome"`
			Results []verify.Result `json:"results"`
		}{report.Outcome(), report.Results})
		if err != nil {
			return fmt.Errorf("print results: %w", err)
		}
		return nil
	}
	widest := 0
	for _, r := range report.Results {
		widest = max(widest, len(r.Subject))
	}
	for _, r := range report.Results {
		word := strings.ToUpper(string(r.Outcome))
		if r.Outcome == verify.Passed {
			word = "ok"
		}
		fmt.Fprintf(w, "%-8s %-12s %-*s  %s\n", word, r.Check, widest, printable(r.Subject), printable(r.Found))
		if r.Outcome != verify.Passed {
			fmt.Fprintf(w, "%-8s to do: %s\n", "", printable(r.Cure))
		}
	}
	return nil
}

// unsureError says that nothing failed, but not everything could be checked.
type unsureError struct{ text string }

func (e *unsureError) Error() string { return e.text }

// outcomeOf returns the error for the exit code.
func outcomeOf(report *verify.Report) error {
	failed, unknown := report.Count(verify.Failed), report.Count(verify.Unknown)
	switch report.Outcome() {
	case verify.Failed:
		return fmt.Errorf("verify: %d failed, %d could not be checked, %d passed", failed, unknown, report.Count(verify.Passed))
	case verify.Unknown:
		return &unsureError{fmt.Sprintf("verify: %d could not be checked, %d passed", unknown, report.Count(verify.Passed))}
	case verify.Passed:
	}
	return nil
}
