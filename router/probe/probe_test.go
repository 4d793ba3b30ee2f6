package probe_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/router/probe"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// watch is a prober that runs, with what it has seen.
type watch struct {
	*probe.Prober
	seen chan *probe.Observation
}

// begin starts a prober, which ends with the test.
func begin(t *testing.T, url string, change ...func(*probe.Config)) *watch {
	t.Helper()
	connect, err := pgconn.ParseConfig(url)
	require.NoError(t, err)
	w := &watch{seen: make(chan *probe.Observation)}
	config := probe.Config{Connect: connect, Changed: func(o *probe.Observation) {
		select {
		case w.seen <- o:
		case <-t.Context().Done():
		}
	}}
	for _, f := range change {
		f(&config)
	}
	w.Prober = probe.New(config)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(t.Context())
	}()
	t.Cleanup(func() { <-ended })
	return w
}

// until returns the first observation that meets a condition.
func (w *watch) until(t *testing.T, what string, met func(o *probe.Observation) bool) *probe.Observation {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	var last *probe.Observation
	for {
		select {
		case last = <-w.seen:
			if met(last) {
				return last
			}
		case <-limit.C:
			t.Fatalf("wait for %s: last seen %+v", what, last)
		}
	}
}

func well(o *probe.Observation) bool { return o.Reason == probe.OK }

func because(reason probe.Reason) func(o *probe.Observation) bool {
	return func(o *probe.Observation) bool { return o.Reason == reason }
}

// rare makes sure that what is seen soon was not seen by a probe that was due anyway.
func rare(c *probe.Config) { c.Every = time.Hour }

// often is for what only the next probe can see.
func often(c *probe.Config) { c.Every = 20 * time.Millisecond }

func TestProbe_primaryTellsWhoItIs(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		user := c.Role(t) // a plain one
		w := begin(t, c.URL("postgres", user))
		o := w.until(t, "an answer", well)

		require.NoError(t, o.Err)
		require.Equal(t, pgtest.Value[int64](t, c, "SELECT system_identifier FROM pg_control_system()"), int64(o.SystemID))
		require.Equal(t, uint32(1), o.Timeline)
		require.False(t, o.Standby)
		require.False(t, o.ReadOnly)
		require.Equal(t, c.Major(), o.Version/10000)
		require.Equal(t, 300, o.MaxConnections)
		require.Equal(t, 3, o.Reserved)
		require.GreaterOrEqual(t, o.Connections, 1)
		require.NotZero(t, o.LSN)
		require.LessOrEqual(t, o.Flushed, o.LSN)
		require.Zero(t, o.Received)
		require.Empty(t, o.History)
		require.Empty(t, o.Topology)
		require.Same(t, o, w.Latest())
		require.Positive(t, o.Took)
		require.Equal(t, 1, pgtest.Value[int](t, c,
			"SELECT count(*)::int FROM pg_stat_activity WHERE application_name = 'pgsidecar-probe' AND usename = $1", user))
	})
}

func TestProbe_instance_isThatOfTheServerWhateverItsName(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		seen := func(url string) *probe.Observation { return begin(t, url).until(t, "an answer", well) }
		user := c.Role(t)
		byAddress, bySocket := seen(c.URL("postgres", user)), seen(c.SocketURL("postgres", pgtest.Superuser))
		require.NotEmpty(t, byAddress.Instance)
		require.Equal(t, byAddress.Instance, bySocket.Instance)
		standby := c.Standby(t, nil)
		c.WaitForStandby(t, standby)
		copied := seen(standby.URL("postgres", user))
		require.Equal(t, byAddress.SystemID, copied.SystemID)
		require.NotEqual(t, byAddress.Instance, copied.Instance)
	})
}

func TestProbe_writesAreSeenInTheLSN(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		w := begin(t, c.URL("postgres", c.Role(t)), often)
		before := w.until(t, "an answer", well)
		conn := pgtest.Connect(t, c.URL("postgres", pgtest.Superuser))
		var text string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_logical_emit_message(true, 'p', repeat('x', 100000))::text").Scan(&text))
		written, err := probe.ParseLSN(text)
		require.NoError(t, err)
		require.Less(t, before.LSN, written)
		w.until(t, "what was written", func(o *probe.Observation) bool { return well(o) && o.LSN >= written && o.Flushed >= written })
	})
}

func TestProbe_horizonIsSeen(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		old := pgtest.Connect(t, c.URL(database, pgtest.Superuser))
		_, err := old.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
		require.NoError(t, err)
		conn := pgtest.Connect(t, c.URL(database, pgtest.Superuser))
		for range 7 {
			_, err := conn.Exec(t.Context(), "SELECT pg_current_xact_id()")
			require.NoError(t, err)
		}
		w := begin(t, c.URL(database, c.Role(t)), often, func(c *probe.Config) { c.Census = 20 * time.Millisecond })
		w.until(t, "the snapshot's age", func(o *probe.Observation) bool { return o.HorizonAge >= 7 })
		_, err = old.Exec(t.Context(), "COMMIT")
		require.NoError(t, err)
		w.until(t, "no snapshot", func(o *probe.Observation) bool { return o.HorizonAge == 0 })
	})
}

func TestProbe_standbyIsPromoted(t *testing.T) {
	for _, major := range pgtest.Versions(t) {
		primary := pgtest.Start(t, pgtest.Config{Major: major})
		primary.Exec(t, "CREATE ROLE app LOGIN REPLICATION")
		standby := primary.Standby(t, nil)
		primary.WaitForStandby(t, standby)
		first := begin(t, primary.URL("postgres", "app")).until(t, "an answer", well)

		w := begin(t, standby.URL("postgres", "app"), rare)
		o := w.until(t, "an answer", well)
		require.True(t, o.Standby)
		require.Equal(t, first.SystemID, o.SystemID)
		require.Equal(t, uint32(1), o.Timeline)
		require.GreaterOrEqual(t, o.LSN, first.Flushed)
		require.GreaterOrEqual(t, o.Received, o.LSN)
		require.Zero(t, o.Flushed)
		require.Empty(t, o.History)

		primary.Kill(t)
		ended := w.Latest().Received
		standby.Promote(t)
		w.Suspect()
		o = w.until(t, "a primary", func(o *probe.Observation) bool { return well(o) && !o.Standby })
		require.Equal(t, first.SystemID, o.SystemID)
		require.Equal(t, uint32(2), o.Timeline)
		require.Len(t, o.History, 1)
		require.Equal(t, uint32(1), o.History[0].Timeline)
		require.GreaterOrEqual(t, o.History[0].At, first.Flushed)
		require.LessOrEqual(t, o.History[0].At, o.LSN)
		require.GreaterOrEqual(t, o.History[0].At, min(ended, o.LSN))
	}
}

func TestHistory_isReadByThoseWhoMayReadFilesOrReplicate(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	primary.Exec(t, `CREATE ROLE plain LOGIN; CREATE ROLE replicator LOGIN REPLICATION; CREATE ROLE reader LOGIN;
		GRANT EXECUTE ON FUNCTION pg_read_file(text,bigint,bigint,boolean) TO reader`)
	standby := primary.Standby(t, nil)
	primary.WaitForStandby(t, standby)
	primary.Kill(t)
	standby.Promote(t)
	for user, switches := range map[string]int{"plain": 0, "replicator": 1, "reader": 1, pgtest.Superuser: 1} {
		o := begin(t, standby.URL("postgres", user)).until(t, "an answer", well)
		require.Len(t, o.History, switches, user)
		require.Equal(t, uint32(2), o.Timeline, user)
	}
}

func TestProbe_delayedStandbyLags(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		standby := c.Standby(t, nil)
		c.WaitForStandby(t, standby)
		w := begin(t, standby.URL("postgres", pgtest.Superuser), often)
		w.until(t, "no lag", func(o *probe.Observation) bool { return well(o) && o.Lag == 0 && o.LSN == o.Received })

		standby.PauseReplay(t)
		paused := time.Now()
		c.Exec(t, "SELECT pg_logical_emit_message(true, 'p', 'x')")
		o := w.until(t, "half a second of lag", func(o *probe.Observation) bool { return o.Lag > 500*time.Millisecond })
		require.Less(t, o.LSN, o.Received)
		require.LessOrEqual(t, o.Lag, time.Since(paused)+time.Second)
		standby.ResumeReplay(t)
		w.until(t, "no lag again", func(o *probe.Observation) bool { return well(o) && o.Lag == 0 && o.LSN == o.Received })
	})
}

func TestProbe_switchToReadOnlyIsSeenWhereverItIsMade(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		user, database := c.Role(t), c.Database(t)
		w := begin(t, c.URL(database, user), often)
		w.until(t, "a writable primary", func(o *probe.Observation) bool { return well(o) && !o.ReadOnly })
		for _, where := range []string{"DATABASE " + database, "ROLE " + user, "ROLE " + user + " IN DATABASE " + database, "SYSTEM"} {
			c.Exec(t, "ALTER "+where+" SET default_transaction_read_only = on")
			c.Exec(t, "SELECT pg_reload_conf()")
			o := w.until(t, where+" read only", func(o *probe.Observation) bool { return well(o) && o.ReadOnly })
			require.False(t, o.Standby)
			c.Exec(t, "ALTER "+where+" RESET default_transaction_read_only")
			c.Exec(t, "SELECT pg_reload_conf()")
			w.until(t, where+" writable", func(o *probe.Observation) bool { return well(o) && !o.ReadOnly })
		}
	})
}

func TestProbe_endOfTheServerIsSeenAtOnce(t *testing.T) {
	for _, major := range pgtest.Versions(t) {
		c := pgtest.Start(t, pgtest.Config{Major: major})
		w := begin(t, c.URL("postgres", pgtest.Superuser), rare)
		w.until(t, "an answer", well)
		c.Kill(t)
		o := w.until(t, "the end", func(o *probe.Observation) bool { return !well(o) })
		require.Contains(t, []probe.Reason{probe.Unreachable, probe.Refused}, o.Reason, "%v", o.Err)
		c.StartAgain(t)
		w.until(t, "the return", well)

		_, err := pgtest.Connect(t, c.URL("postgres", pgtest.Superuser)).Exec(t.Context(),
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgsidecar-probe'")
		require.NoError(t, err)
		w.until(t, "an answer over a new connection", well)
	}
}

func TestProbe_frozenServerTimesOutAndComesBack(t *testing.T) {
	for _, major := range pgtest.Versions(t) {
		c := pgtest.Start(t, pgtest.Config{Major: major})
		quick := func(c *probe.Config) { c.Timeout = 300 * time.Millisecond }
		w := begin(t, c.URL("postgres", pgtest.Superuser), quick, often)
		w.until(t, "an answer", well)
		c.Freeze(t)
		for range 3 { // over the connection it has, and over new ones
			o := w.until(t, "no answer", func(o *probe.Observation) bool { return !well(o) })
			require.Equal(t, probe.Timeout, o.Reason, "%v", o.Err)
			require.Less(t, o.Took, 5*time.Second)
			require.Error(t, o.Err)
		}
		c.Thaw(t)
		w.until(t, "the return", well)
	}
}

func TestProbe_stalledRouteTimesOut(t *testing.T) {
	c := pgtest.Shared(t, 0)
	relay := pgtest.StartRelay(t, c.Addr())
	quick := func(c *probe.Config) { c.Timeout = 300 * time.Millisecond }
	w := begin(t, relay.URL(t, c.URL("postgres", pgtest.Superuser)), quick, often)
	w.until(t, "an answer", well)
	relay.Stall()
	w.until(t, "no answer", because(probe.Timeout))
	relay.Resume()
	w.until(t, "an answer again", well)
	relay.Refuse()
	relay.Cut()
	w.until(t, "resets", because(probe.Unreachable))
	relay.Admit()
	w.until(t, "an answer again", well)
}

func TestProbe_lostRouteTimesOut(t *testing.T) {
	c := pgtest.Shared(t, 0)
	island := pgtest.StartIsland(t, c.Addr())
	quick := func(c *probe.Config) { c.Timeout = 300 * time.Millisecond }
	w := begin(t, island.URL(t, c.URL("postgres", pgtest.Superuser)), quick, often)
	w.until(t, "an answer", well)
	island.CutOff(t)
	for range 3 { // over the connection it has, and over new ones
		o := w.until(t, "no answer", func(o *probe.Observation) bool { return !well(o) })
		require.Equal(t, probe.Timeout, o.Reason, "%v", o.Err)
		require.Less(t, o.Took, 5*time.Second)
	}
	island.Reconnect(t)
	w.until(t, "an answer again", well)
}

func TestProbe_lostRouteOfAnIdleConnectionIsFoundByKeepalive(t *testing.T) {
	c := pgtest.Shared(t, 0)
	island := pgtest.StartIsland(t, c.Addr())
	w := begin(t, island.URL(t, c.URL("postgres", pgtest.Superuser)), rare, func(c *probe.Config) {
		c.KeepAliveIdle, c.KeepAliveInterval, c.UserTimeout = time.Second, time.Second, 2*time.Second
	})
	w.until(t, "an answer", well)
	island.CutOff(t)
	w.until(t, "the loss, long before the next probe is due", because(probe.Timeout))
}

func TestProbe_sessionLeavesNothingBehind(t *testing.T) {
	c := pgtest.Shared(t, 0)
	user := c.Role(t, "NOSUPERUSER")
	c.Exec(t, "ALTER ROLE "+user+" SET search_path = public")
	connect, err := pgconn.ParseConfig(c.URL("postgres", user))
	require.NoError(t, err)
	w := begin(t, c.URL("postgres", user))
	w.until(t, "an answer", well)
	sessions := "SELECT count(*)::int FROM pg_stat_activity WHERE usename = '" + connect.User + "'"
	require.Equal(t, 1, pgtest.Value[int](t, c, sessions))
	require.Equal(t, "idle", pgtest.Value[string](t, c, "SELECT state FROM pg_stat_activity WHERE usename = '"+connect.User+"'"))
}
