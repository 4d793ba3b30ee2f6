package pgtest_test

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestStandby_followsAndIsPromoted(t *testing.T) {
	for _, major := range pgtest.Versions(t) {
		primary := pgtest.Start(t, pgtest.Config{Major: major, Auth: "scram-sha-256", TLS: true})
		primary.Exec(t, "CREATE TABLE t (v int)")
		standby := primary.Standby(t, nil)

		primary.Exec(t, "INSERT INTO t VALUES (1)")
		primary.WaitForStandby(t, standby)
		require.Equal(t, 1, pgtest.Value[int](t, standby, "SELECT v FROM t"))
		require.True(t, pgtest.Value[bool](t, standby, "SELECT pg_is_in_recovery()"))

		primary.Kill(t)
		standby.Promote(t)
		standby.Exec(t, "INSERT INTO t VALUES (2)")
		require.Equal(t, 2, pgtest.Value[int](t, standby, "SELECT count(*)::int FROM t"))
	}
}

func TestFollow_oldPrimaryBecomesStandby(t *testing.T) {
	a := pgtest.Start(t, pgtest.Config{})
	b := a.Standby(t, nil)
	a.Exec(t, "CREATE TABLE t (v int)")
	a.WaitForStandby(t, b)
	a.Stop(t, pgtest.Fast)
	b.Promote(t)

	require.NoError(t, a.Follow(b.Cluster))
	a.StartAgain(t)
	b.Exec(t, "INSERT INTO t VALUES (7)")
	b.WaitForStandby(t, a)
	require.Equal(t, 7, pgtest.Value[int](t, a, "SELECT v FROM t"))
}

func TestRewind_oldPrimaryWithWorkOfItsOwnFollows(t *testing.T) {
	a := pgtest.Start(t, pgtest.Config{})
	b := a.Standby(t, nil)
	a.Exec(t, "CREATE TABLE t (v int)")
	a.WaitForStandby(t, b)
	port := a.Port()
	b.PauseReplay(t)
	b.Promote(t)
	a.Exec(t, "INSERT INTO t VALUES (1)") // Nobody else has it.
	b.Exec(t, "INSERT INTO t VALUES (2)")

	a.Rewind(t, b)
	require.Equal(t, port, a.Port())
	b.Exec(t, "INSERT INTO t VALUES (3)")
	b.WaitForStandby(t, a)
	require.Equal(t, [][]string{{"2"}, {"3"}}, a.Query(t, "SELECT v FROM t ORDER BY v"))
}

func TestPauseReplay_standbyStaysBehindUntilResumed(t *testing.T) {
	a := pgtest.Start(t, pgtest.Config{})
	b := a.Standby(t, nil)
	a.Exec(t, "CREATE TABLE t (v int)")
	a.WaitForStandby(t, b)
	b.PauseReplay(t)
	a.Exec(t, "INSERT INTO t VALUES (1)")
	require.Zero(t, pgtest.Value[int](t, b, "SELECT count(*)::int FROM t"))
	b.ResumeReplay(t)
	a.WaitForStandby(t, b)
	require.Equal(t, 1, pgtest.Value[int](t, b, "SELECT count(*)::int FROM t"))
}

func TestKill_committedRowsSurviveTheRestart(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	port := c.Port()
	c.Exec(t, "CREATE TABLE t (v int); INSERT INTO t VALUES (1)")
	c.Kill(t)
	require.False(t, c.Running())
	_, err := pgtest.TryConnect(t, c.URL("postgres", pgtest.Superuser))
	require.Error(t, err)

	c.StartAgain(t)
	require.Equal(t, port, c.Port())
	require.Equal(t, 1, pgtest.Value[int](t, c, "SELECT v FROM t"))
	c.Restart(t)
	require.Equal(t, 1, pgtest.Value[int](t, c, "SELECT v FROM t"))
}

func TestFreeze_nothingAnswersUntilThaw(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	conn := pgtest.Connect(t, c.URL("postgres", pgtest.Superuser))
	c.Freeze(t)
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT 1")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen server answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	c.Thaw(t)
	require.NoError(t, <-answered)
}

func TestClose_endsAFrozenServer(t *testing.T) {
	t.Run("frozen", func(t *testing.T) {
		c := pgtest.Start(t, pgtest.Config{})
		c.Freeze(t)
		t.Cleanup(func() { // Runs before the cluster's own cleanup.
			_, err := net.DialTimeout("tcp", c.Addr(), time.Second)
			require.NoError(t, err, "a frozen server's socket stays open")
		})
	})
}

func TestTLS_certificateIsVerified(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{TLS: true, HBA: []string{"hostnossl all all all reject"}})
	conn := pgtest.Connect(t, c.URL("postgres", pgtest.Superuser))
	var encrypted bool
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&encrypted))
	require.True(t, encrypted)

	_, err := pgtest.TryConnect(t, c.URL("postgres", pgtest.Superuser, "sslmode=disable"))
	require.ErrorContains(t, err, "28000")
}

func TestSettings_overrideTheDefaults(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{MaxConnections: 17, Settings: map[string]string{"timezone": "Europe/Paris"}})
	require.Equal(t, "17", pgtest.Value[string](t, c, "SHOW max_connections"))
	require.Equal(t, "Europe/Paris", pgtest.Value[string](t, c, "SHOW timezone"))
}

func TestProgram_isFoundWhereAnyInstallationHasIt(t *testing.T) {
	require.FileExists(t, pgtest.Program(t, "initdb"))
}
