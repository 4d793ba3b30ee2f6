package pgtest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// shared holds the clusters that all tests of one binary use, by major version.
//
//nolint:gochecknoglobals // That is what shared means; only tests see it.
var shared struct {
	mu       sync.Mutex
	clusters map[int]*Cluster
}

// Shared is the trusting cluster of a version (zero: the newest) that all tests of this binary share. Tests must not stop it
// and should use databases and roles of their own. It ends with Main, or else with the process.
func Shared(t testing.TB, major int) *Cluster {
	t.Helper()
	inst := installation(t, major)
	shared.mu.Lock() // Held while the server starts: whoever else wants it waits for the same one.
	defer shared.mu.Unlock()
	if c := shared.clusters[inst.Major]; c != nil {
		return c
	}
	c, err := start(inst, Config{MaxConnections: 300})
	if err != nil {
		t.Fatal(err)
	}
	if shared.clusters == nil {
		shared.clusters = map[int]*Cluster{}
	}
	shared.clusters[inst.Major] = c
	return c
}

// Main is the body of TestMain in packages that use clusters: it runs the tests, ends the shared clusters, removes what is left
// of their files, and fails if goroutines are still running. It does not return.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(run{m}, options...)
}

// run puts the end of the shared clusters between the tests and the search for leaks.
type run struct{ tests *testing.M }

// Run runs the tests; goleak calls it.
func (r run) Run() int {
	code := r.tests.Run()
	if err := endShared(); err != nil {
		fmt.Fprintln(os.Stderr, "end shared clusters:", err)
		code = max(code, 1)
	}
	return code
}

func endShared() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	var errs []error
	for _, c := range shared.clusters {
		errs = append(errs, c.Close())
	}
	shared.clusters = nil
	return errors.Join(append(errs, removeWorkDir())...)
}

// IgnoreClusters keeps goleak.VerifyNone of a single test from taking the goroutines of shared clusters for leaks.
func IgnoreClusters() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("pgsidecar/internal/pgcluster.(*Process).run"),
		goleak.IgnoreAnyFunction("os/exec.(*Cmd).watchCtx"),
	}
}
