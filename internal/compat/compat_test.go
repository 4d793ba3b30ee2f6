package compat_test

import (
	"testing"

	"go.uber.org/goleak"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy/session"
)

func TestMain(m *testing.M) { pgtest.Main(m, goleak.IgnoreCurrent()) }

// driver is one that is tested.
type driver struct {
	name string
	// situations are those that it has to go through, in their order.
	situations []string
	// differs are situations in which it gets something else in transaction mode, and why.
	differs map[string]string
	// missing says what lacks to run it, and the cure; "" if nothing does. nil: nothing ever does.
	missing func(t *testing.T) string
	// run puts it into all situations.
	run func(t *testing.T, at target) []step
}

// situations are those that a driver goes through.
var situations = []string{
	"driver", "connect", "tls", "wrong password", "unknown database", "application name",
	"types", "nulls", "unicode", "big values",
	"prepared", "equal names", "pipeline", "failed pipeline",
	"transaction", "savepoints", "read only", "two phase",
	"errors", "failed transaction", "deferred constraint", "notices", "several results",
	"copy in", "copy out", "failed copy",
	"cursor", "many rows", "cancel", "timeout", "notify",
	"settings", "session state", "reset", "schema change", "schema change by another", "terminated", "pool",
}

func TestDrivers_getThroughTheProxyWhatTheyGetDirectly(t *testing.T) {
	c := startCluster(t)
	for _, d := range drivers() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if d.missing != nil {
				if what := d.missing(t); what != "" {
					t.Skip(what)
				}
			}
			want := d.run(t, direct(t, c))
			requireSound(t, want, d.situations)
			if t.Failed() {
				return
			}
			t.Log(summary(want))
			t.Run("transaction", func(t *testing.T) { compare(t, want, d.run(t, through(t, c, session.Transaction)), d.differs) })
			t.Run("session", func(t *testing.T) { compare(t, want, d.run(t, through(t, c, session.WholeSession)), nil) })
		})
	}
}
