package pgtest

import (
	"context"
	"testing"

	"pgsidecar/internal/pgcluster"
)

// The ways to stop a server, in pg_ctl's words.
const (
	Fast      = pgcluster.Fast
	Smart     = pgcluster.Smart
	Immediate = pgcluster.Immediate
)

// Standby starts a streaming hot standby of this cluster, for this test alone. The settings come on top of the primary's.
func (c *Cluster) Standby(t testing.TB, settings map[string]string) *Cluster {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	dir, err := newDir()
	check(t, err)
	standby, err := c.CreateStandby(ctx, dir, settings)
	check(t, err)
	s := &Cluster{Cluster: standby, ca: c.ca}
	t.Cleanup(func() { s.end(t) })
	check(t, standby.Start(ctx))
	return s
}

// StartAgain starts a server that was stopped or killed.
func (c *Cluster) StartAgain(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Start(ctx))
}

// Stop stops the server and waits for its end.
func (c *Cluster) Stop(t testing.TB, mode pgcluster.StopMode) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.Stop(ctx, mode))
}

// Restart stops the server (fast) and starts it again, on the same port.
func (c *Cluster) Restart(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.Restart(ctx))
}

// Kill ends all processes of the server with SIGKILL, as if its machine had failed.
func (c *Cluster) Kill(t testing.TB) {
	t.Helper()
	check(t, c.Cluster.Kill())
}

// Freeze stops all processes of the server (SIGSTOP), as if its machine hung; they go on at Thaw or end with the test.
func (c *Cluster) Freeze(t testing.TB) {
	t.Helper()
	check(t, c.Cluster.Freeze())
}

// Thaw ends a Freeze.
func (c *Cluster) Thaw(t testing.TB) {
	t.Helper()
	check(t, c.Cluster.Thaw())
}

// Promote makes a standby a primary and returns when it is one.
func (c *Cluster) Promote(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.Promote(ctx))
}

// WaitForStandby waits until a standby has replayed all that this primary has written.
func (c *Cluster) WaitForStandby(t testing.TB, standby *Cluster) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.WaitForStandby(ctx, standby.Cluster))
}

// PauseReplay makes a standby receive without replaying, until ResumeReplay. Reads of it become stale.
func (c *Cluster) PauseReplay(t testing.TB) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.PauseReplay(ctx))
}

// ResumeReplay ends a PauseReplay.
func (c *Cluster) ResumeReplay(t testing.TB) {
	t.Helper()
	c.Exec(t, "SELECT pg_wal_replay_resume()")
}

// Rewind stops this server, gives it a primary's data and starts it as a standby of that: what a server has to go through that
// was the primary and has written what its successor does not have.
func (c *Cluster) Rewind(t testing.TB, primary *Cluster) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	check(t, c.Cluster.Rewind(ctx, primary.Cluster))
	check(t, c.Start(ctx))
}

// bounded is not the test's context: that one is already over when cleanups run.
func bounded() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), timeout)
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
