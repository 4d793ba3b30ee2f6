package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// FaultError is one mistake in the configuration and its cure. It never holds a secret.
type FaultError struct {
	File     string // The file it was found in; "" if it is in none.
	Line     int    // In the file, from 1.
	Variable string // The environment variable it was found in; "" if it is in none.
	Key      string // The dotted key; "" if it is about the whole file or variable.
	Wrong    string // What is wrong.
	Instead  string // What to write instead; "" if Wrong says it all.
}

// Error returns the fault in one line: where, which key, what is wrong, what to write instead.
func (f *FaultError) Error() string {
	var parts []string
	switch {
	case f.Variable != "":
		parts = append(parts, f.Variable)
	case f.Line > 0:
		parts = append(parts, fmt.Sprintf("%s:%d", f.File, f.Line))
	case f.File != "":
		parts = append(parts, f.File)
	}
	// A variable stands for its key; only what lies deeper in its value is worth a word.
	if f.Key != "" && (f.Variable == "" || f.Variable != variableOf(f.Key)) {
		parts = append(parts, f.Key)
	}
	parts = append(parts, f.Wrong)
	if f.Instead != "" {
		parts = append(parts, f.Instead)
	}
	return strings.Join(parts, ": ")
}

// problem is what a value has to say about a text it cannot take; where it stands is added by the reader.
type problem struct{ wrong, instead string }

// compareFaults puts the file's faults first, in the order of its lines, then the environment's.
func compareFaults(a, b error) int {
	var x, y *FaultError
	if !errors.As(a, &x) || !errors.As(b, &y) {
		return 0
	}
	return cmp.Or(
		cmp.Compare(x.Variable, y.Variable),
		cmp.Compare(x.Line, y.Line),
	)
}

// sortedError returns the faults as one error, or nil without any.
func sortedError(faults []*FaultError) error {
	if len(faults) == 0 {
		return nil
	}
	all := &multierror.Error{ErrorFormat: listFaults}
	for _, f := range faults {
		all.Errors = append(all.Errors, f)
	}
	slices.SortStableFunc(all.Errors, compareFaults)
	return all
}

// listFaults is the text of the whole error: one fault a line.
func listFaults(faults []error) string {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}
