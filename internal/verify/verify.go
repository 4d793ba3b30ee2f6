// Package verify checks, before and after a rollout, a rollback or a switchover, that everything is as it should be: the
// proxies, the server behind them, and the data of two servers that should have the same.
//
// It repairs nothing, and it leaves nothing behind but a transaction id: the transaction that it runs through a proxy writes no row.
//
// The invariant: what could not be looked at is never taken for good. A check that lacks a privilege, traffic or a server is
// Unknown, which is not Passed.
package verify

import (
	"fmt"
	"slices"
)

// Outcome is what came of a check, or of all checks.
type Outcome string

// The outcomes, from the best to the worst.
const (
	Passed  Outcome = "passed"
	Unknown Outcome = "unknown" // It could not be checked.
	Failed  Outcome = "failed"
)

// Check is a kind of check. Its word is part of the interface: scripts look for it, and it can be skipped by it.
type Check string

// The checks.
const (
	CheckProxy       Check = "proxy"       // Each proxy answers and welcomes clients.
	CheckVersion     Check = "version"     // All proxies are of one version, or of the one that is wanted.
	CheckConfig      Check = "config"      // Likewise for their configuration.
	CheckServers     Check = "servers"     // Each proxy has a primary, and all of its servers answer.
	CheckTransaction Check = "transaction" // A client of each proxy can log in, write and commit.
	CheckSystem      Check = "system"      // It is the right cluster: the system identifier.
	CheckTimeline    Check = "timeline"    // And no other server has been promoted meanwhile.
	CheckReplication Check = "replication" // Every standby replays what the primary has written.
	CheckPrepared    Check = "prepared"    // No prepared transaction is left over.
	CheckIdle        Check = "idle"        // No session is left over idle in a transaction.
	CheckLeaks       Check = "leaks"       // No client's state has been found with another.
	CheckErrors      Check = "errors"      // Errors per transaction are as before.
	CheckP99         Check = "p99"         // So are the slowest hundredth of waits and transactions.
	CheckBinary      Check = "binary"      // The old binary accepts the present configuration.
	CheckLSN         Check = "lsn"         // What one server has acknowledged is in the other's log.
	CheckTables      Check = "tables"      // Both servers have the same rows.
)

// Checks returns all checks.
func Checks() []Check {
	return []Check{
		CheckProxy, CheckVersion, CheckConfig, CheckServers, CheckTransaction, CheckSystem, CheckTimeline, CheckReplication, CheckPrepared,
		CheckIdle, CheckLeaks, CheckErrors, CheckP99, CheckBinary, CheckLSN, CheckTables,
	}
}

// Result is one check of one thing.
type Result struct {
	Check   Check   `json:"check"`
	Subject string  `json:"subject"` // What was looked at: a proxy's address, a server, a table.
	Outcome Outcome `json:"outcome"`
	Found   string  `json:"found"`          // What it is, and what it should be where that is not the same.
	Cure    string  `json:"cure,omitempty"` // What to do if it has not passed.
}

// Report is the list of results in the order in which they were found.
type Report struct {
	Results []Result `json:"results"`
	skip    []Check  // Their results are not noted.
}

// NewReport returns an empty report that takes no results of the checks to skip.
func NewReport(skip []Check) *Report { return &Report{Results: []Result{}, skip: skip} }

// Outcome returns the worst of the results.
func (r *Report) Outcome() Outcome {
	worst := Passed
	for _, result := range r.Results {
		switch result.Outcome {
		case Failed:
			return Failed
		case Unknown:
			worst = Unknown
		case Passed:
		}
	}
	return worst
}

// Count returns how many results have the outcome.
func (r *Report) Count(o Outcome) int {
	n := 0
	for _, result := range r.Results {
		if result.Outcome == o {
			n++
		}
	}
	return n
}

// wants reports whether the check is not skipped.
func (r *Report) wants(c Check) bool { return !slices.Contains(r.skip, c) }

func (r *Report) add(result Result) {
	if r.wants(result.Check) {
		r.Results = append(r.Results, result)
	}
}

func (r *Report) pass(c Check, subject, found string, args ...any) {
	r.add(Result{Check: c, Subject: subject, Outcome: Passed, Found: fmt.Sprintf(found, args...)})
}

func (r *Report) fail(c Check, subject, cure, found string, args ...any) {
	r.add(Result{Check: c, Subject: subject, Outcome: Failed, Found: fmt.Sprintf(found, args...), Cure: cure})
}

func (r *Report) unknown(c Check, subject, cure, found string, args ...any) {
	r.add(Result{Check: c, Subject: subject, Outcome: Unknown, Found: fmt.Sprintf(found, args...), Cure: cure})
}
