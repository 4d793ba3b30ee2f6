package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"pgsidecar/bench/load"
)

// row says how a metric is shown.
type row struct {
	metric load.Metric
	label  string
	digits int     // after the point
	scale  float64 // from the metric's unit to the shown one
}

// rows are all metrics in the order of a table.
func rows() []row {
	return []row{
		{load.TPS, "transactions/s", 0, 1},
		{load.Throughput, "MB/s", 0, 1},
		{load.P50, "p50, ms", 3, 1e-3},
		{load.P99, "p99, ms", 3, 1e-3},
		{load.CPU, "CPU, us", 1, 1},
		{load.Syscalls, "system calls", 2, 1},
		{load.Switches, "context switches", 2, 1},
		{load.Mallocs, "allocations", 3, 1},
		{load.Memory, "memory/client, B", 0, 1},
		{load.Heap, "Go heap/client, B", 0, 1},
		{load.Handshake, "CPU/login, us", 0, 1},
		{load.Connections, "server connections", 0, 1},
	}
}

// none stands where there is no figure.
const none = "-"

// WriteTable writes the report for people: a table for each load, and at the end how each goal fared.
func (r Report) WriteTable(w io.Writer) error {
	var text strings.Builder
	r.writeHead(&text)
	for _, l := range r.Loads {
		l.write(&text)
	}
	r.writeGoals(&text)
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func (r Report) writeHead(text *strings.Builder) {
	fmt.Fprintf(text, "\nMachine: %s\n", r.Machine)
	for _, c := range r.Contenders {
		fmt.Fprintf(text, "%s: %s\n", c.Name, c.Version)
	}
	for _, reason := range r.Absent {
		fmt.Fprintf(text, "Sat out: %s\n", reason)
	}
	fmt.Fprintf(text, "Rounds: %d of %g s, interleaved; pools of %d; pgbench scale %d.\n",
		r.Settings.Rounds, r.Settings.Seconds, r.Settings.PoolSize, r.Settings.Scale)
	text.WriteString("Figures are medians over the rounds, ratios are medians of each round's ratio. CPU, system calls, context " +
		"switches and\nallocations are the proxy's own, per transaction (bulk transfers: per MB).\n")
}

// write shows a load: a line for each metric that any contender has.
func (l Load) write(text *strings.Builder) {
	fmt.Fprintf(text, "\n%s (%s)\n", l.Title, l.Name)
	direct := ""
	if slices.Contains(l.Contenders, directName) {
		direct = directName
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "\t%s\tto %s\t", strings.Join(l.Contenders, "\t"), l.Base)
	if direct != "" {
		fmt.Fprintf(&lines, "to %s\t", direct)
	}
	lines.WriteString("goal\t\t\n")
	for _, r := range rows() {
		l.writeRow(&lines, r, direct)
	}
	align(text, lines.String(), tabwriter.AlignRight)
	for _, failure := range l.Failures {
		fmt.Fprintf(text, "  FAILED: %s\n", failure)
	}
}

// directName is the contender that is PostgreSQL itself.
const directName = "direct"

func (l Load) writeRow(w *strings.Builder, r row, direct string) {
	cells := make([]string, 0, len(l.Contenders))
	measured := false
	for _, c := range l.Contenders {
		figure, found := median(l.figures(c, r.metric))
		measured = measured || found
		cells = append(cells, number(figure*r.scale, found, r.digits))
	}
	if !measured {
		return
	}
	fmt.Fprintf(w, "%s\t%s\t", r.label, strings.Join(cells, "\t"))
	ratio, found := median(l.ratios(l.Subject, l.Base, r.metric))
	fmt.Fprintf(w, "%s\t", number(ratio, found, 2))
	if direct != "" {
		ratio, found := median(l.ratios(l.Subject, direct, r.metric))
		fmt.Fprintf(w, "%s\t", number(ratio, found, 2))
	}
	goal, verdict := "", ""
	for _, g := range l.Goals {
		if g.Metric == r.metric {
			goal, verdict = g.describe(), l.verdict(g)
		}
	}
	fmt.Fprintf(w, "%s\t%s\t\n", goal, verdict)
}

// number formats a figure; one that was not measured is none.
func number(figure float64, found bool, digits int) string {
	if !found {
		return none
	}
	return strconv.FormatFloat(figure, 'f', digits, 64)
}

// describe writes a goal as ">= 1.15x" (a ratio) or "<= 700".
func (g Goal) describe() string {
	sign, unit := "<=", ""
	if g.AtLeast {
		sign = ">="
	}
	if g.Ratio {
		unit = "x"
	}
	return fmt.Sprintf("%s %g%s", sign, g.Limit, unit)
}

func (l Load) verdict(g Goal) string {
	figure, found := median(l.outcomes(g))
	switch {
	case !found:
		return "not measured"
	case g.met(figure):
		return "met"
	default:
		return "MISSED"
	}
}

// writeGoals repeats every goal with its figure and how far the rounds lie apart, so that nobody has to look for what was missed.
func (r Report) writeGoals(text *strings.Builder) {
	text.WriteString("\nGoals\n")
	var lines strings.Builder
	for _, l := range r.Loads {
		for _, g := range l.Goals {
			outcomes := l.outcomes(g)
			figure, found := median(outcomes)
			spread := ""
			if found {
				spread = fmt.Sprintf("%.2f to %.2f", slices.Min(outcomes), slices.Max(outcomes))
			}
			fmt.Fprintf(&lines, "  %s\t%s\t%s\t%s\t%s\t%s\n",
				l.Title, label(g.Metric), g.describe(), number(figure, found, 2), spread, l.verdict(g))
		}
	}
	align(text, lines.String(), 0)
}

// align writes lines whose cells end with a tab, or are divided by tabs, in columns.
func align(text *strings.Builder, lines string, flags uint) {
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', flags)
	// A strings.Builder takes everything.
	_, _ = io.WriteString(table, lines)
	_ = table.Flush()
}

func label(metric load.Metric) string {
	for _, r := range rows() {
		if r.metric == metric {
			return r.label
		}
	}
	return string(metric)
}
