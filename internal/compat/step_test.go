package compat_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// step is what a driver did in one situation, as the programs print it. One of the last three fields is set.
type step struct {
	Step   string          `json:"step"`
	Got    json.RawMessage `json:"got,omitempty"`
	Absent string          `json:"absent,omitempty"` // why the driver does not do this
	Fault  string          `json:"fault,omitempty"`  // what the program did not expect
}

// readSteps parses what a program printed.
func readSteps(r io.Reader) ([]step, error) {
	var steps []step
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var s step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return steps, fmt.Errorf("parse line %q: %w", lines.Text(), err)
		}
		steps = append(steps, s)
	}
	return steps, lines.Err()
}

// requireSound fails unless a program went through the situations it should, in their order, without a fault.
func requireSound(t *testing.T, steps []step, situations []string) {
	t.Helper()
	names := make([]string, 0, len(steps))
	for _, s := range steps {
		names = append(names, s.Step)
		if s.Fault != "" {
			t.Errorf("%s: %s", s.Step, s.Fault)
		}
	}
	require.Equal(t, situations, names)
}

// compare shows each situation as a subtest: what the proxy gave has to be what PostgreSQL gave, but for the differences that
// are known, which have to be there.
func compare(t *testing.T, direct, through []step, known map[string]string) {
	t.Helper()
	for i, want := range direct {
		t.Run(want.Step, func(t *testing.T) {
			if i >= len(through) || through[i].Step != want.Step {
				t.Fatal("the program did not come to this")
			}
			difference := differ(want, through[i])
			switch why, differs := known[want.Step]; {
			case differs && difference == "":
				t.Error("it no longer differs: take it off the list")
			case differs:
				t.Skip("known difference: " + why)
			case difference != "":
				t.Error(difference)
			}
		})
	}
}

// differ shows where two steps begin to differ; "" if they do not.
func differ(direct, through step) string {
	if through.Fault != "" || through.Absent != direct.Absent {
		return through.Fault + through.Absent
	}
	want, got := lines(direct.Got), lines(through.Got)
	for i := range max(len(want), len(got)) {
		if i >= len(want) || i >= len(got) || want[i] != got[i] {
			around := func(l []string) string { return strings.Join(l[min(max(i-5, 0), len(l)):min(i+6, len(l))], "\n") }
			return fmt.Sprintf("they differ at line %d\ndirect:\n%s\nthrough the proxy:\n%s", i+1, around(want), around(got))
		}
	}
	return ""
}

func lines(value json.RawMessage) []string {
	var indented bytes.Buffer
	if json.Indent(&indented, value, "", " ") != nil {
		return []string{string(value)}
	}
	return strings.Split(indented.String(), "\n")
}

// summary is a driver's row of the table in docs/compatibility.md.
func summary(steps []step) string {
	var missing []string
	for _, s := range steps {
		if s.Absent != "" {
			missing = append(missing, s.Step+" ("+s.Absent+")")
		}
	}
	version := ""
	if len(steps) > 0 {
		version = string(steps[0].Got)
	}
	return fmt.Sprintf("%s: %d situations; not offered: %s", version, len(steps)-len(missing), strings.Join(missing, ", "))
}
