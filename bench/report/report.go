// Package report turns the samples of a benchmark into medians and ratios, and writes them for people and for programs. It
// measures nothing.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"pgsidecar/bench/load"
)

// Report is everything that one run of the benchmark has found. Its JSON form holds every sample.
type Report struct {
	Machine    Machine     `json:"machine"`
	Settings   Settings    `json:"settings"`
	Contenders []Contender `json:"contenders"`
	Absent     []string    `json:"absent,omitempty"` // what sat out, and why
	Loads      []Load      `json:"loads"`
}

// Settings say how the benchmark was run.
type Settings struct {
	Rounds   int     `json:"rounds"`
	Seconds  float64 `json:"seconds"` // measured time of a run
	PoolSize int     `json:"pool_size"`
	Scale    int     `json:"scale"` // of pgbench's tables
	Syscalls bool    `json:"syscalls"`
}

// Contender is a program that took part.
type Contender struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Load is what one load has shown.
type Load struct {
	Name       string   `json:"name"`
	Title      string   `json:"title"`
	Contenders []string `json:"contenders"` // in the order of their columns
	Subject    string   `json:"subject"`    // the contender that is judged
	Base       string   `json:"base"`       // the one it is judged against
	Goals      []Goal   `json:"goals,omitempty"`
	Rounds     []Round  `json:"rounds"`
	Failures   []string `json:"failures,omitempty"`
}

// Round holds one sample of each contender, by name; one that failed is missing.
type Round map[string]load.Sample

// Goal is a figure to reach.
type Goal struct {
	Metric  load.Metric `json:"metric"`
	Ratio   bool        `json:"ratio"`    // of the subject to the base; otherwise the subject's own figure
	AtLeast bool        `json:"at_least"` // otherwise at most
	Limit   float64     `json:"limit"`
}

// met tells whether a figure reaches the goal.
func (g Goal) met(figure float64) bool {
	if g.AtLeast {
		return figure >= g.Limit
	}
	return figure <= g.Limit
}

// figures are a contender's own figures, one for each round that has it.
func (l Load) figures(contender string, metric load.Metric) []float64 {
	var figures []float64
	for _, round := range l.Rounds {
		if figure, found := round[contender][metric]; found {
			figures = append(figures, figure)
		}
	}
	return figures
}

// ratios are one contender's figures divided by another's of the same round: what disturbs the machine for a while disturbs
// both alike.
func (l Load) ratios(contender, base string, metric load.Metric) []float64 {
	var ratios []float64
	for _, round := range l.Rounds {
		figure, found := round[contender][metric]
		divisor, foundBase := round[base][metric]
		if found && foundBase && divisor != 0 {
			ratios = append(ratios, figure/divisor)
		}
	}
	return ratios
}

// outcomes are, round by round, what a goal is held against.
func (l Load) outcomes(g Goal) []float64 {
	if g.Ratio {
		return l.ratios(l.Subject, l.Base, g.Metric)
	}
	return l.figures(l.Subject, g.Metric)
}

// median of no figures is false.
func median(figures []float64) (float64, bool) {
	if len(figures) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(figures))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle], true
	}
	return (sorted[middle-1] + sorted[middle]) / 2, true
}

// Failed tells whether any run failed.
func (r Report) Failed() bool {
	return slices.ContainsFunc(r.Loads, func(l Load) bool { return len(l.Failures) > 0 })
}

// WriteJSON writes the whole report.
func (r Report) WriteJSON(w io.Writer) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
