// Package pgtest gives tests real PostgreSQL clusters, scripted peers and connections that break on demand. It is for tests
// only. Clusters are started by package pgcluster; here they are bound to a test's life.
//
// The invariant: a test that needs PostgreSQL either has it, or is skipped with the reason and the cure, or fails where
// PGSIDECAR_TEST_PG_REQUIRED lists versions. No test passes because its server was missing.
package pgtest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgsidecar/internal/pgcluster"
)

// Superuser is the bootstrap role of every cluster, trusted on the unix socket.
const Superuser = pgcluster.Superuser

// requiredEnv names a variable that lists, with commas, the major versions without which tests fail instead of being skipped.
const requiredEnv = "PGSIDECAR_TEST_PG_REQUIRED"

// timeout bounds every operation on a cluster. It is long because machines that run tests are busy; nothing waits for it in vain.
const timeout = 2 * time.Minute

// Config says what kind of cluster a test needs. The zero value is the newest PostgreSQL found, which trusts everyone.
type Config struct {
	// Major is the version: 15, 17, 18. Zero means the newest that is installed.
	Major int
	// Auth is trust (also when empty), password, md5, scram-sha-256 or cert: what clients over TCP, and roles other
	// than the superuser on the unix socket, must do to log in.
	Auth string
	// HBA are pg_hba.conf lines that win over all others.
	HBA []string
	// TLS turns ssl on, with a certificate for localhost and 127.0.0.1 that CA issues.
	TLS bool
	// MaxConnections is max_connections; zero means 100.
	MaxConnections int
	// Settings are lines of postgresql.conf by name.
	Settings map[string]string
}

// Cluster is a PostgreSQL server of a test's own or one that the tests of a package share. Its own methods take the test, and
// fail it when they fail.
type Cluster struct {
	*pgcluster.Cluster
	ca *pgcluster.CA
}

// Start starts a cluster for this test alone. It ends, with its files, when the test ends; if the test has failed, the end of
// the server's log is shown.
func Start(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	inst := installation(t, cfg.Major)
	c, err := start(inst, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end(t) })
	return c
}

// start makes and starts a cluster that nobody ends yet.
func start(inst pgcluster.Installation, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	dir, err := newDir()
	if err != nil {
		return nil, err
	}
	settings := maps.Clone(cfg.Settings)
	if cfg.MaxConnections > 0 {
		if settings == nil {
			settings = map[string]string{}
		}
		settings["max_connections"] = strconv.Itoa(cfg.MaxConnections)
	}
	var ca *pgcluster.CA
	if cfg.TLS {
		if ca, err = pgcluster.NewCA(); err != nil {
			return nil, err
		}
	}
	c, err := pgcluster.Create(ctx, pgcluster.Config{
		Installation: inst,
		Dir:          dir,
		Templates:    templateDir(),
		Auth:         cfg.Auth,
		HBA:          cfg.HBA,
		TLS:          ca,
		Settings:     settings,
	})
	if err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		_ = c.Close() // The first error is the one to see.
		return nil, err
	}
	return &Cluster{Cluster: c, ca: ca}, nil
}

// end is the cleanup of a test's own cluster.
func (c *Cluster) end(t testing.TB) {
	t.Helper()
	if t.Failed() {
		t.Logf("log of PostgreSQL %d:\n%s", c.Major(), c.LogTail(40))
	}
	if err := c.Close(); err != nil {
		t.Errorf("close cluster: %v", err)
	}
}

// CA is the authority that issued the server's certificate, for clients that verify or need one; nil without TLS.
func (c *Cluster) CA() *pgcluster.CA { return c.ca }

// ForEach runs a test as a subtest ("pg15", "pg17", ...) for every version found, on the package's shared cluster.
func ForEach(t *testing.T, test func(t *testing.T, c *Cluster)) {
	t.Helper()
	for _, major := range Versions(t) {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) { test(t, Shared(t, major)) })
	}
}

// Versions are the major versions found on this machine, in ascending order; the test is skipped when there is none.
func Versions(t testing.TB) []int {
	t.Helper()
	installed := installed()
	if len(installed) == 0 {
		missing(t, "no PostgreSQL server was found")
	}
	majors := make([]int, 0, len(installed))
	for _, inst := range installed {
		majors = append(majors, inst.Major)
	}
	for _, major := range strings.FieldsFunc(os.Getenv(requiredEnv), func(r rune) bool { return r == ',' }) {
		if !slices.ContainsFunc(majors, func(m int) bool { return strconv.Itoa(m) == major }) {
			missing(t, fmt.Sprintf("PostgreSQL %s was not found", major))
		}
	}
	return majors
}

// Program is the path of a PostgreSQL program such as psql or pgbench, from the newest installation that has it; the test is
// skipped when there is none. Not every installation has the client programs.
func Program(t testing.TB, name string) string {
	t.Helper()
	for _, inst := range slices.Backward(installed()) {
		if path, err := inst.Program(name); err == nil {
			return path
		}
	}
	missing(t, "no installation of PostgreSQL has "+name)
	return ""
}

// installation finds the version that a test asks for.
func installation(t testing.TB, major int) pgcluster.Installation {
	t.Helper()
	found := installed()
	if major == 0 {
		if inst, ok := pgcluster.Newest(found); ok {
			return inst
		}
		missing(t, "no PostgreSQL server was found")
	}
	for _, inst := range found {
		if inst.Major == major {
			return inst
		}
	}
	missing(t, fmt.Sprintf("PostgreSQL %d was not found", major))
	return pgcluster.Installation{}
}

// installed looks again each time: it takes a few milliseconds, and no state has to be kept.
func installed() []pgcluster.Installation { return pgcluster.Installations(moduleRoot()) }

// missing ends a test that lacks a program.
func missing(t testing.TB, what string) {
	t.Helper()
	cure := what + ": run `make deps`, or set PGSIDECAR_TEST_PG15 (PG17, PG18) to the directory of its programs"
	if os.Getenv(requiredEnv) != "" {
		t.Fatal(cure)
	}
	t.Skip(cure)
}

// moduleRoot is the directory of go.mod above the working directory, which is the package's when `go test` runs; empty if
// there is none.
func moduleRoot() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}
