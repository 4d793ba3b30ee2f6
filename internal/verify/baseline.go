package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"pgsidecar/internal/admin"
)

// baselineFormat is the form of the file; one of another form is refused rather than misread.
const baselineFormat = 1

// Baseline is what was found before a change, to compare with after it.
type Baseline struct {
	Format   int       `json:"format"`
	Saved    time.Time `json:"saved"`
	System   string    `json:"system_identifier"`
	Timeline int64     `json:"timeline"`
	Standbys int       `json:"standbys"`
	Traffic  Traffic   `json:"traffic"`
}

// Traffic is what all proxies together did in the time that was measured.
type Traffic struct {
	Seconds      float64         `json:"seconds"`
	Errors       uint64          `json:"errors"` // That clients were told, of PostgreSQL and of the proxy.
	CheckoutWait admin.Durations `json:"checkout_wait"`
	Transaction  admin.Durations `json:"transaction"`
}

// Transactions returns how many there were.
func (t *Traffic) Transactions() uint64 { return count(t.Transaction.Counts) }

// Load reads a base line that Save has written.
func Load(file string) (*Baseline, error) {
	text, err := os.ReadFile(file) //nolint:gosec // The name is the operator's own.
	if err != nil {
		return nil, fmt.Errorf("read base line: %w", err)
	}
	var b Baseline
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("read base line %s: %w", file, err)
	}
	if b.Format != baselineFormat {
		return nil, fmt.Errorf("read base line %s: it has format %d instead of %d: save a new one", file, b.Format, baselineFormat)
	}
	return &b, nil
}

// Save writes the base line to a file.
func (b Baseline) Save(file string) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return fmt.Errorf("save base line: %w", err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("save base line: %w", err)
	}
	return nil
}

// enough is how many transactions say something about rates and the slowest hundredth.
const enough = 100

// noise is a time whose changes mean nothing: the resolution of the first buckets, and what a busy machine adds.
const noise = 2 * time.Millisecond

// fewErrors is the share of transactions that may fail more than before, as no two minutes are the same.
const fewErrors = 0.001

// traffic counts what happens from the first look to the end of the window, and compares it with the base line.
func (r *Report) traffic(ctx context.Context, cfg Config, before []seen, left time.Duration, base *Baseline) {
	if left > 0 && !pause(ctx, left) {
		return
	}
	proxies := make([]Proxy, len(before))
	for i := range before {
		proxies[i] = before[i].proxy
	}
	after, errs := readAll(ctx, proxies)
	base.Traffic.Seconds = cfg.Window.Seconds()
	for i := range after {
		if errs[i] != nil {
			r.fail(CheckProxy, after[i].proxy.Address(), "see whether it runs, and its log", "it has gone meanwhile: %v", errs[i])
			continue
		}
		base.Traffic.add(&before[i].status, &after[i].status)
	}
	r.judge(cfg, &base.Traffic)
}

// add adds what one proxy did between two looks. One that was restarted between them has begun at zero.
func (t *Traffic) add(before, after *admin.Status) {
	if after.Uptime < before.Uptime {
		before = &admin.Status{}
	}
	t.Errors += told(after) - told(before)
	addDurations(&t.CheckoutWait, &before.CheckoutWait, &after.CheckoutWait)
	addDurations(&t.Transaction, &before.Transaction, &after.Transaction)
}

func told(s *admin.Status) uint64 {
	var n uint64
	for _, e := range s.Errors {
		n += e.Count
	}
	return n
}

func addDurations(sum, before, after *admin.Durations) {
	if sum.Counts == nil {
		sum.Bounds, sum.Counts = after.Bounds, make([]uint64, len(after.Counts))
	}
	for i := range min(len(sum.Counts), len(after.Counts)) {
		sum.Counts[i] += after.Counts[i]
		if i < len(before.Counts) {
			sum.Counts[i] -= before.Counts[i]
		}
	}
	sum.Sum += after.Sum - before.Sum
}

// judge compares traffic with the base line, or says what a base line will have.
func (r *Report) judge(cfg Config, now *Traffic) {
	const all = "all proxies"
	n := now.Transactions()
	if n < enough {
		for _, c := range []Check{CheckErrors, CheckP99} {
			r.unknown(c, all, "wait for traffic, or measure for longer with --window", "%d transactions in %s say nothing", n, cfg.Window)
		}
		return
	}
	if cfg.Base == nil {
		r.pass(CheckErrors, all, "%d in %d transactions", now.Errors, n)
		r.pass(CheckP99, all, "transaction %s, wait %s", p99(&now.Transaction), p99(&now.CheckoutWait))
		return
	}
	then := &cfg.Base.Traffic
	if then.Transactions() < enough {
		for _, c := range []Check{CheckErrors, CheckP99} {
			r.unknown(c, all, "save a base line while there is traffic", "the base line has %d transactions, which say nothing", then.Transactions())
		}
		return
	}
	r.judgeErrors(cfg.Tolerance, now, then)
	r.judgeTime("transaction", cfg.Tolerance, &now.Transaction, &then.Transaction)
	r.judgeTime("wait", cfg.Tolerance, &now.CheckoutWait, &then.CheckoutWait)
}

func (r *Report) judgeErrors(tolerance float64, now, then *Traffic) {
	n, rate := float64(now.Transactions()), float64(then.Errors)/float64(then.Transactions())
	allowed := max(1, n*(rate*(1+tolerance)+fewErrors)) // A single one is no rate.
	found := fmt.Sprintf("%.3f %% of transactions, %.3f %% before", 100*float64(now.Errors)/n, 100*rate)
	if float64(now.Errors) > allowed {
		r.fail(CheckErrors, "all proxies", "see which SQLSTATE it is in `pgsidecar status --json` and in the logs; if it began with the rollout, roll back", "%s", found)
		return
	}
	r.pass(CheckErrors, "all proxies", "%s", found)
}

func (r *Report) judgeTime(what string, tolerance float64, now, then *admin.Durations) {
	have, had := p99(now), p99(then)
	if have > max(time.Duration(float64(had)*(1+tolerance)), had+noise) {
		r.fail(CheckP99, what, "see whether the server is slower (pg_stat_activity) or the proxy lacks CPU or connections; else roll back", "%s, %s before", have, had)
		return
	}
	r.pass(CheckP99, what, "%s, %s before", have, had)
}

// p99 returns the time below which 99 of 100 were, between a bucket's bounds as if they were spread evenly; what is above
// all bounds counts as the last.
func p99(d *admin.Durations) time.Duration {
	rank := 0.99 * float64(count(d.Counts))
	var below, lower float64
	for i, n := range d.Counts {
		if i >= len(d.Bounds) {
			break
		}
		if below+float64(n) >= rank && n > 0 {
			return seconds(lower + (d.Bounds[i]-lower)*(rank-below)/float64(n)).Round(time.Microsecond)
		}
		below, lower = below+float64(n), d.Bounds[i]
	}
	return seconds(lower)
}

func count(buckets []uint64) uint64 {
	var n uint64
	for _, b := range buckets {
		n += b
	}
	return n
}
