package proxy_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

// readers is a primary with two standbys, and a proxy with an address for each route.
type readers struct {
	*testProxy
	trio

	t     *testing.T
	ended func() // ends what see has begun
}

// routes are those of the proxy's addresses, after the first one, which leads to the primary.
const (
	standbyOnly   = 1
	preferStandby = 2
	anyServer     = 3
)

// trio is a primary and its standbys.
type trio struct {
	primary  *pgtest.Cluster
	standbys []*pgtest.Cluster
}

// with starts the proxy. The standbys are not told to it.
func (c trio) with(t *testing.T, standbys int, change func(*proxy.Config)) *readers {
	t.Helper()
	r := &readers{trio: trio{c.primary, c.standbys[:standbys]}, t: t}
	for _, c := range r.standbys {
		r.primary.WaitForStandby(t, c)
	}
	r.testProxy = start(t, r.primary, func(c *proxy.Config) {
		c.Listen = []string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"}
		c.Routes = []session.Route{session.Primary, session.StandbyOnly, session.PreferStandby, session.AnyServer}
		c.Session.Hold, c.Session.SentinelEvery = patience, 0
		if change != nil {
			change(c)
		}
	})
	t.Cleanup(r.forget)
	return r
}

// at is url for the address of a route.
func (r *readers) at(route int, params ...string) string {
	u, err := url.Parse(r.url(params...))
	require.NoError(r.t, err)
	u.Host = r.Addresses()[route]
	return u.String()
}

func (r *readers) connect(route int, params ...string) *pgx.Conn {
	r.t.Helper()
	return pgtest.Connect(r.t, r.at(route, params...))
}

// see tells the proxy what the standbys show, again and again as probes do: all that was committed before a moment.
func (r *readers) see(shows time.Time, change ...func(i int, s *proxy.Standby)) {
	tell := func() {
		list := make([]proxy.Standby, 0, len(r.standbys))
		for i, c := range r.standbys {
			s := proxy.Standby{Name: c.Addr(), Place: *placeOf(c), Shows: shows, Since: time.Now().Add(-time.Hour), Seen: time.Now()}
			for _, f := range change {
				f(i, &s)
			}
			list = append(list, s)
		}
		r.ReadFrom(list)
	}
	r.forget()
	tell()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	r.ended = func() { stop(); <-ended }
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				tell()
			case <-ctx.Done():
				return
			}
		}
	}()
}

// forget ends that.
func (r *readers) forget() {
	if r.ended != nil {
		r.ended()
		r.ended = nil
	}
}

// none tells the proxy that there is no standby.
func (r *readers) none() {
	r.forget()
	r.ReadFrom(nil)
}

// port is where a client's transaction runs.
func port(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return one(t, conn, "select inet_server_port()::text")
}

// onStandby tells whether it runs on a standby.
func onStandby(t *testing.T, conn *pgx.Conn) bool {
	t.Helper()
	return one(t, conn, "select pg_is_in_recovery()::text") == "true"
}

// All share one primary and its standbys, as starting them takes longest.
func TestReads(t *testing.T) {
	all := trio{primary: pgtest.Start(t, pgtest.Config{})}
	for range 2 {
		all.standbys = append(all.standbys, all.primary.Standby(t, map[string]string{"max_standby_streaming_delay": "50ms"}))
	}
	for name, test := range map[string]func(*testing.T, trio){
		"eachRoute_leadsWhereItSays":              readsEachRoute,
		"sessionMode_staysOnItsStandby":           readsSessionMode,
		"whatTheClientHas_comesAlong":             readsWhatTheClientHas,
		"write_isReadWhereItIsCertainToBeVisible": readsWrite,
		"levels": readsLevels,
		"anotherStandbyThatIsBehind_isNotReadFrom":             readsAnotherStandbyThatIsBehind,
		"freshConnection_isUsedWhenTheStandbyHasBeenSeenSince": readsFreshConnection,
		"noStandby_waitsAndIsToldWhy":                          readsNoStandby,
		"standbyAppears_thoseWhoWaitAreServed":                 readsStandbyAppears,
		"standbyIsGivenUp_sessionsGoElsewhereAndStay":          readsStandbyIsGivenUp,
		"standbyFrozen_isCutOffAndTheSessionGoesOn":            readsStandbyFrozen,
		"auto_readsOnStandbysAndWritesOnThePrimary":            readsAuto,
		"auto_refused_runsOnThePrimaryOnce":                    readsRefused,
		"cancelledByRecovery_runsOnThePrimary":                 readsConflict,
		"auto_pipelines_neitherHangNorRunTwice":                readsPipelines,
		"readOnlyTransactions_runOnStandbys":                   readsReadOnlyTransactions,
		"twoStandbys_shareTheLoad":                             readsTwoStandbys,
	} {
		t.Run(name, func(t *testing.T) { test(t, all) })
	}
}

func readsEachRoute(t *testing.T, c trio) {
	r := c.with(t, 1, func(config *proxy.Config) {
		route := session.StandbyOnly
		config.Databases = map[string]proxy.Database{"reports": {Name: "postgres", Route: &route}}
	})
	r.see(time.Time{})
	require.False(t, onStandby(t, r.connect(0)))
	only := r.connect(standbyOnly)
	require.True(t, onStandby(t, only))
	require.Equal(t, "on", only.PgConn().ParameterStatus("in_hot_standby"), "a driver sees that it is one")
	require.Equal(t, "25006", refusal(t, only, "create table if not exists t (n int)").Code)
	require.True(t, onStandby(t, r.connect(preferStandby)))
	counts := make(map[bool]int)
	for range 60 {
		conn := r.connect(anyServer)
		counts[onStandby(t, conn)]++
		require.NoError(t, conn.Close(context.Background()))
	}
	require.Positive(t, counts[true])
	require.Positive(t, counts[false])
	require.True(t, onStandby(t, pgtest.Connect(t, r.as(t, "reports", "postgres"))), "the database says so")

	for word, want := range map[string]bool{"standby": true, "read-only": true, "prefer-standby": true, "primary": false, "read-write": false} {
		require.Equal(t, want, onStandby(t, r.connect(0, "pgsidecar.route", word)), word)
		require.Equal(t, want, onStandby(t, r.connect(standbyOnly, "options", "-c pgsidecar.route="+word)), word)
	}
	conn := r.connect(0, "pgsidecar.route", "standby", "application_name", "x")
	require.Equal(t, "42704", refusal(t, conn, "show pgsidecar.route").Code, "it is not passed on")
	require.Equal(t, "x", one(t, conn, "show application_name"))
	require.Equal(t, "22023", loginError(t, r.at(0, "pgsidecar.route", "standbys")).Code)

	whole := pgtest.Connect(t, r.as(t, "reports", "postgres", "application_name", "whole"))
	require.True(t, onStandby(t, whole))
}

func readsSessionMode(t *testing.T, c trio) {
	r := c.with(t, 1, func(config *proxy.Config) { config.Mode = session.WholeSession })
	r.see(time.Time{})
	conn := r.connect(standbyOnly)
	one(t, conn, "set application_name = 'mine'")
	require.True(t, onStandby(t, conn))
	require.Equal(t, "mine", one(t, conn, "show application_name"))
	require.False(t, onStandby(t, r.connect(0)))
}

func readsWhatTheClientHas(t *testing.T, c trio) {
	r := c.with(t, 1, func(config *proxy.Config) { config.Session.SentinelEvery = 1 })
	r.see(time.Time{})
	ctx := context.Background()
	conn := r.connect(preferStandby)
	one(t, conn, "set application_name = 'mine'")
	query := func() (where bool) {
		var name string
		row := conn.QueryRow(ctx, "select pg_is_in_recovery(), current_setting('application_name') || $1::text", "!")
		require.NoError(t, row.Scan(&where, &name))
		require.Equal(t, "mine!", name)
		return where
	}
	await(t, "it reads on the standby", func() bool { r.see(time.Now()); return query() }, r.testProxy)
	r.none()
	require.False(t, query(), "there is no standby any more")
	r.see(time.Now())
	await(t, "the standby shows what it has read on the primary", func() bool { r.see(time.Now()); return query() }, r.testProxy)
	require.Zero(t, r.Snapshot().Totals.StateLeaks)
}

func readsWrite(t *testing.T, c trio) {
	r := c.with(t, 2, nil)
	r.primary.Exec(t, "create table if not exists written (n int)")
	for _, c := range r.standbys {
		r.primary.WaitForStandby(t, c)
		c.PauseReplay(t)
		t.Cleanup(func() { c.ResumeReplay(t) })
	}
	began := time.Now()
	r.see(began)
	writer, reader := r.connect(0), r.connect(preferStandby)
	require.True(t, onStandby(t, reader))
	// The reader's own writes go to the primary where the proxy is told of none.
	r.none()
	one(t, reader, "insert into written values (1)")
	asked := time.Now()
	r.see(began)
	require.Equal(t, "1", one(t, reader, "select count(*) from written"), "neither standby shows it")
	require.Positive(t, r.Snapshot().Totals.ReadsBehind)
	other := r.connect(preferStandby)
	require.Equal(t, "0", one(t, other, "select count(*) from written"), "who has not written it may see less")
	one(t, writer, "insert into written values (2)")
	for _, c := range r.standbys {
		c.ResumeReplay(t)
		r.primary.WaitForStandby(t, c)
	}
	r.see(asked)
	require.False(t, onStandby(t, reader), "it has read on the primary since")
	await(t, "it comes back", func() bool { r.see(time.Now()); return onStandby(t, reader) }, r.testProxy)
	require.Equal(t, "2", one(t, reader, "select count(*) from written"))
}

func readsLevels(t *testing.T, c trio) {
	for name, test := range map[string]struct {
		level            session.Consistency
		ownRead, sibling bool // whether it goes to a standby after a write of its own, and of another client
	}{
		"eventual": {session.EventualConsistency, true, true},
		"session":  {session.SessionConsistency, false, true},
		"strict":   {session.StrictConsistency, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.with(t, 1, func(config *proxy.Config) { config.Session.Consistency = test.level })
			before := time.Now()
			own, sibling := r.connect(preferStandby), r.connect(preferStandby)
			one(t, own, "create table if not exists t (n int)")
			r.see(before)
			require.Equal(t, test.ownRead, onStandby(t, own))
			require.Equal(t, test.sibling, onStandby(t, sibling))
		})
	}
}

func readsAnotherStandbyThatIsBehind(t *testing.T, c trio) {
	r := c.with(t, 2, nil)
	only := func(open int) func(i int, s *proxy.Standby) {
		return func(i int, s *proxy.Standby) { s.Avoid = i != open }
	}
	r.see(time.Now(), only(0))
	conn := r.connect(standbyOnly)
	first := port(t, conn)
	r.see(time.Now().Add(-time.Second))
	for range 20 {
		require.Equal(t, first, port(t, conn), "where it is it has seen everything")
	}
	r.see(time.Now().Add(-time.Second), only(1))
	moved := started(func() string { port, _ := try(conn, "select inet_server_port()::text"); return port })
	await(t, "it waits for the other one", func() bool { return r.waiting() == 1 })
	await(t, "that is known to have come as far", func() bool { r.see(time.Now(), only(1)); return r.waiting() == 0 })
	second := <-moved
	require.NotEmpty(t, second)
	require.NotEqual(t, first, second)
}

// A connection that was made since the standby was seen may lead to a server that has been started anew, and has less.
func readsFreshConnection(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	conn := r.connect(preferStandby)
	one(t, conn, "create table if not exists t (n int)")
	r.primary.WaitForStandby(t, r.standbys[0])
	seen := time.Now()
	stale := func(_ int, s *proxy.Standby) { s.Seen = seen }
	r.see(time.Now(), stale)
	require.False(t, onStandby(t, conn))
	require.Equal(t, 1, r.Snapshot().Standbys[0].Idle, "the connection is there")
	r.see(time.Now(), stale)
	require.False(t, onStandby(t, conn))
	r.see(time.Now())
	require.True(t, onStandby(t, conn))
	one(t, conn, "begin")
	require.True(t, onStandby(t, conn))
	one(t, conn, "commit")
}

func readsNoStandby(t *testing.T, c trio) {
	r := c.with(t, 1, func(config *proxy.Config) { config.Session.Hold = 100 * time.Millisecond })
	e := loginError(t, r.at(standbyOnly, "application_name", "no welcome is known"))
	require.Equal(t, "57P03", e.Code)
	r.see(time.Now())
	conn := r.connect(standbyOnly)
	require.True(t, onStandby(t, conn))
	r.none()
	e = refusal(t, conn, "select 1")
	require.Equal(t, "57P03", e.Code)
	require.Equal(t, "ERROR", e.Severity)
	require.Contains(t, e.Message, "no standby can be read from")
	r.see(time.Now())
	await(t, "the connection is good again", func() bool {
		r.see(time.Now())
		_, err := try(conn, "select 1")
		return err == nil
	})
}

func readsStandbyAppears(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	logins := started(func() error {
		conn, err := pgtest.TryConnect(t, r.at(standbyOnly))
		if err == nil {
			_, err = try(conn, "select 1")
		}
		return err
	})
	await(t, "it waits", func() bool { return r.waiting() == 1 }, r.testProxy)
	await(t, "it is served", func() bool { r.see(time.Now()); return r.waiting() == 0 }, r.testProxy)
	require.NoError(t, <-logins)
}

func readsStandbyIsGivenUp(t *testing.T, c trio) {
	r := c.with(t, 2, nil)
	r.see(time.Time{})
	var conns []*pgx.Conn
	for range 6 {
		conn := r.connect(preferStandby)
		require.True(t, onStandby(t, conn))
		conns = append(conns, conn)
	}
	busy := r.connect(standbyOnly)
	one(t, busy, "begin")
	held := port(t, busy)
	lost := 0
	if strings.HasSuffix(r.standbys[1].Addr(), ":"+held) {
		lost = 1
	}
	kept := r.standbys[1-lost]
	r.forget()
	r.ReadFrom([]proxy.Standby{{Name: kept.Addr(), Place: *placeOf(kept), Seen: time.Now()}})
	require.Equal(t, held, port(t, busy), "what is under way goes on")
	w := watch(t, r.standbys[lost])
	await(t, "idle connections are closed", func() bool {
		return w.count("select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()") == 1
	}, r.testProxy)
	for _, conn := range conns {
		require.NotEqual(t, held, port(t, conn))
	}
	one(t, busy, "commit")
	await(t, "that one, too", func() bool {
		return w.count("select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()") == 0
	}, r.testProxy)
	require.Empty(t, r.Snapshot().Errors)
}

func readsStandbyFrozen(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	r.see(time.Time{})
	conn := r.connect(preferStandby)
	require.True(t, onStandby(t, conn))
	r.standbys[0].Freeze(t)
	answer := started(func() error { _, err := try(conn, "select 1"); return err })
	await(t, "it waits for the frozen server", func() bool { return r.Snapshot().Clients.Active == 1 }, r.testProxy)
	r.see(time.Time{}, func(_ int, s *proxy.Standby) { s.Lost = true })
	require.NoError(t, <-answer, "it has run on the primary")
	require.Equal(t, uint64(1), r.Snapshot().Totals.ReadsLost)
	require.False(t, onStandby(t, conn), "the session has stayed")
	r.standbys[0].Thaw(t)
}

func readsTwoStandbys(t *testing.T, c trio) {
	r := c.with(t, 2, func(config *proxy.Config) { config.Pool.MaxConnections = 8 })
	r.see(time.Time{})
	counts := make(map[string]int)
	for range 8 {
		conn := r.connect(standbyOnly)
		one(t, conn, "begin")
		counts[port(t, conn)]++
	}
	require.Len(t, counts, 2)
	for _, n := range counts {
		require.Equal(t, 4, n, "always the one with fewer transactions")
	}
	total := 0
	for _, s := range r.Snapshot().Standbys {
		total += s.Active
	}
	require.Equal(t, 8, total)
}

func readsReadOnlyTransactions(t *testing.T, c trio) {
	r := c.with(t, 1, func(config *proxy.Config) { config.Session.ReadOnlyTransactions = true })
	r.see(time.Now())
	ctx := context.Background()
	conn := r.connect(0)
	where := func() bool { return onStandby(t, conn) }
	require.False(t, where(), "outside of a block it is not said to be read-only")
	in := func(sql string) bool {
		r.see(time.Now())
		one(t, conn, sql)
		defer one(t, conn, "rollback")
		return where()
	}
	for sql, want := range map[string]bool{
		"begin read only": true, "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY": true, "begin /* or */ transaction read only": true,
		"begin": false, "begin read write": false, "begin isolation level serializable read only": false,
		"begin read only; listen x": false,
	} {
		if want {
			await(t, sql, func() bool { return in(sql) }, r.testProxy)
		} else {
			require.False(t, in(sql), sql)
		}
	}
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		await(t, "the driver says it", func() bool {
			r.see(time.Now())
			tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
			require.NoError(t, err)
			var standby bool
			var n int
			require.NoError(t, tx.QueryRow(ctx, "select pg_is_in_recovery(), $1::int", mode, 7).Scan(&standby, &n))
			require.Equal(t, 7, n)
			require.NoError(t, tx.Commit(ctx))
			return standby
		}, r.testProxy)
	}
	await(t, "by the extended protocol", func() bool {
		r.see(time.Now())
		_, err := conn.Exec(ctx, "begin read only", pgx.QueryExecModeCacheStatement)
		require.NoError(t, err)
		defer one(t, conn, "commit")
		return where()
	}, r.testProxy)

	one(t, conn, "set default_transaction_read_only = on")
	await(t, "each of its transactions is read-only", func() bool { r.see(time.Now()); return where() }, r.testProxy)
	one(t, conn, "begin read write")
	require.False(t, where())
	one(t, conn, "rollback")
	one(t, conn, "set default_transaction_read_only = off")
	one(t, conn, "create table if not exists t (n int)")
	before := time.Now().Add(-time.Minute)
	r.see(before)
	one(t, conn, "begin read only")
	require.False(t, where(), "no standby shows what it has written")
	one(t, conn, "commit")
}

// protocols are the ways in which pgx sends a query.
func protocols() map[string]pgx.QueryExecMode {
	return map[string]pgx.QueryExecMode{
		"simple": pgx.QueryExecModeSimpleProtocol, "prepared": pgx.QueryExecModeCacheStatement, "described": pgx.QueryExecModeDescribeExec, "unnamed": pgx.QueryExecModeExec,
	}
}

func readsAuto(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	r.primary.Exec(t, "create table if not exists auto (n int)")
	r.primary.WaitForStandby(t, r.standbys[0])
	ctx := context.Background()
	for name, mode := range protocols() {
		t.Run(name, func(t *testing.T) {
			conn := r.connect(0, "pgsidecar.route", "auto")
			asked := func(sql string) (standby bool) {
				require.NoError(t, conn.QueryRow(ctx, sql, mode).Scan(&standby))
				return standby
			}
			await(t, "reads run on the standby", func() bool { r.see(time.Now()); return asked("select pg_is_in_recovery()") }, r.testProxy)
			require.True(t, asked("with x as (select pg_is_in_recovery() as r) select r from x"))
			for _, sql := range []string{
				"insert into auto values (1) returning pg_is_in_recovery()", "with x as (insert into auto values (1)) select pg_is_in_recovery()",
				"select pg_is_in_recovery() from pg_advisory_xact_lock(1)", "select pg_is_in_recovery() from pg_locks limit 1",
				"select pg_is_in_recovery() from (select n from auto limit 1 for update) as x",
			} {
				r.see(time.Now())
				require.False(t, asked(sql), sql)
			}
			tx, err := conn.Begin(ctx)
			require.NoError(t, err)
			r.see(time.Now())
			require.False(t, asked("select pg_is_in_recovery()"), "in a block")
			require.NoError(t, tx.Rollback(ctx))
		})
	}
	require.Zero(t, r.Snapshot().Totals.ReadsRefused)
}

// What a view hides is found out by the standby's refusal.
func readsRefused(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	r.primary.Exec(t, "create table if not exists hidden (n int)")
	r.primary.Exec(t, "create or replace function hide(int) returns boolean language sql as 'insert into hidden values ($1) returning pg_is_in_recovery()'")
	r.primary.Exec(t, "create operator !!! (function = hide, rightarg = int)")
	r.primary.WaitForStandby(t, r.standbys[0])
	ctx := context.Background()
	for name, mode := range protocols() {
		t.Run(name, func(t *testing.T) {
			conn := r.connect(0, "pgsidecar.route", "auto")
			var standby bool
			await(t, "reads run on the standby", func() bool {
				r.see(time.Now())
				require.NoError(t, conn.QueryRow(ctx, "select pg_is_in_recovery()", mode).Scan(&standby))
				return standby
			}, r.testProxy)
			r.primary.Exec(t, "truncate hidden")
			before := r.Snapshot().Totals.ReadsRefused
			sql := "select !!! 7 as " + name
			require.NoError(t, conn.QueryRow(ctx, sql, mode).Scan(&standby))
			require.False(t, standby)
			require.Equal(t, 1, pgtest.Value[int](t, r.primary, "select count(*)::int from hidden"), "it ran once")
			after := r.Snapshot().Totals.ReadsRefused
			require.Equal(t, before+1, after, "and was refused once")
			r.see(time.Now())
			require.NoError(t, conn.QueryRow(ctx, sql, mode).Scan(&standby))
			require.Equal(t, after, r.Snapshot().Totals.ReadsRefused, "from then on it is known")
			var n int
			require.NoError(t, conn.QueryRow(ctx, "select $1::int", mode, 5).Scan(&n), "the client's statements are what they were")
			require.Equal(t, 5, n)
		})
	}
	for _, e := range r.Snapshot().Errors {
		require.NotEqual(t, "25006", e.SQLState, "nobody was told")
	}
}

func readsConflict(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	r.primary.Exec(t, "create table if not exists locked (n int)")
	r.primary.WaitForStandby(t, r.standbys[0])
	r.see(time.Now())
	conn := r.connect(preferStandby)
	require.True(t, onStandby(t, conn))
	answer := started(func() string {
		where, err := try(conn, "select pg_is_in_recovery()::text from pg_sleep(0.7) left join locked on true")
		if err != nil {
			where = err.Error()
		}
		return where
	})
	w := watch(t, r.standbys[0])
	await(t, "it runs there", func() bool {
		return w.count("select count(*) from pg_stat_activity where query like '%left join locked%' and state = 'active' and pid <> pg_backend_pid()") > 0
	})
	r.primary.Exec(t, "begin; lock table locked in access exclusive mode; commit")
	require.Equal(t, "false", <-answer, "cancelled there, it has run on the primary")
	require.Equal(t, uint64(1), r.Snapshot().Totals.ReadsConflict)
	require.Empty(t, r.Snapshot().Errors)
}

// A pipeline may begin with a read and go on with a block, or with a write: nothing may be withheld for ever, or be run twice.
func readsPipelines(t *testing.T, c trio) {
	r := c.with(t, 1, nil)
	r.primary.Exec(t, "create table if not exists piped (n int)")
	r.primary.WaitForStandby(t, r.standbys[0])
	conn := r.connect(0, "pgsidecar.route", "auto")
	await(t, "reads run on the standby", func() bool { r.see(time.Now()); return onStandby(t, conn) }, r.testProxy)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name, queries := range map[string][]string{
		"a block":           {"select 1", "begin", "select 2", "commit"},
		"a write":           {"select 1", "insert into piped values (1)", "select 2"},
		"two reads":         {"select 1", "select 2"},
		"a fault":           {"select 1", "select 1/0", "select 2"},
		"a block that ends": {"select 1", "begin", "select 1/0"},
	} {
		t.Run(name, func(t *testing.T) {
			r.see(time.Now())
			r.primary.Exec(t, "truncate piped")
			batch := new(pgx.Batch)
			for _, sql := range queries {
				batch.Queue(sql)
			}
			err := conn.SendBatch(ctx, batch).Close()
			if strings.Contains(strings.Join(queries, " "), "1/0") {
				require.Equal(t, "22012", pgError(t, err).Code)
			} else {
				require.NoError(t, err)
			}
			if conn.PgConn().TxStatus() != 'I' {
				one(t, conn, "rollback")
			}
			want := strings.Count(strings.Join(queries, " "), "insert")
			require.Equal(t, want, pgtest.Value[int](t, r.primary, "select count(*)::int from piped"))
			require.Equal(t, "3", one(t, conn, "select 3"))
		})
	}
}
