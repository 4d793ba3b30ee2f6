package proxy_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// What leaked, or got out of step, in other poolers that keep session state apart. Clients meet the same server in all of these,
// and the sentinel looks at it after every transaction.

// clients connects two clients of a proxy whose pool has a single connection.
func (p *testProxy) clients(t *testing.T) (a, b *rawClient) {
	t.Helper()
	return raw(t, p.url()), raw(t, p.url())
}

// goodbye ends the client's connection.
func (c *rawClient) goodbye() {
	c.t.Helper()
	c.Send(&pgproto3.Terminate{})
	c.ExpectEnd()
}

// Multigres' #1134 and #1138: what a transaction has set stayed on the server when it was rolled back.
func TestLeak_settingOfATransactionThatIsRolledBack(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		a, b := p.clients(t)
		a.say(query("set client_min_messages to 'error'"))
		for _, end := range []string{"rollback", "select 1/0; commit", "savepoint s; set client_min_messages to 'log'; rollback to s; rollback"} {
			a.say(query("begin"))
			a.say(query("set client_min_messages to 'debug5'"))
			a.say(query(end))
			a.say(query("rollback"))
			require.Equal(t, []string{"T client_min_messages", "D notice", "C SHOW", "Z I"}, b.say(query("show client_min_messages")), end)
			require.Equal(t, []string{"T client_min_messages", "D error", "C SHOW", "Z I"}, a.say(query("show client_min_messages")), end)
		}
		require.Zero(t, p.Snapshot().Totals.StateLeaks)
	})
}

// Multigres' #1360: a server was lent again while temporary objects of an earlier client were there.
func TestLeak_temporaryObjects(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		a := raw(t, p.url())
		for _, sql := range []string{
			"create temp table leak (a int)", "do $$ begin create temp table leak (a int); end $$", "create temp view leak as select 1",
			"select 1 as a into temp leak", "create table pg_temp.leak (a int)", "create temp sequence leak",
		} {
			a.say(query(sql))
			b := raw(t, p.url())
			for range 3 {
				require.Equal(t, []string{"T to_regclass", "D NULL", "C SELECT 1", "Z I"}, b.say(query("select to_regclass('leak')")), sql)
			}
			require.Equal(t, []string{"T to_regclass", "D leak", "C SELECT 1", "Z I"}, a.say(query("select to_regclass('leak')")), sql)
			a.say(query("discard temp"))
			b.goodbye()
		}
		// One who leaves with such objects takes the server along.
		a.say(query("create temp table leak (a int)"))
		a.goodbye()
		require.Equal(t, []string{"T to_regclass", "D NULL", "C SELECT 1", "Z I"}, raw(t, p.url()).say(query("select to_regclass('leak')")))
		require.Zero(t, p.Snapshot().Totals.StateLeaks)
	})
}

// Multigres' #1087, and PgDog's #184 and #1402: after DISCARD ALL or DEALLOCATE ALL it was not known any more which
// statements a server holds, and which a client has.
func TestDesync_discardAllOfPreparedStatements(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		a, b := p.clients(t)
		for _, sql := range []string{"discard all", "deallocate all"} {
			for _, one := range []*rawClient{a, b} {
				require.Equal(t, []string{"1", "Z I"}, one.say(parse("s", "select 42"), syncNow()), sql)
			}
			a.say(query(sql))
			require.Equal(t, []string{"2", "D 42", "C SELECT 1", "Z I"}, b.say(run("s")...), "the other client's are still there")
			require.Equal(t, []string{`E 26000 prepared statement "s" does not exist`, "Z I"}, a.say(run("s")...), "its own are gone")
			require.Equal(t, []string{"1", "2", "D 43", "C SELECT 1", "Z I"}, a.say(together(parse("s", "select 43"), run("s"))...))
			require.Equal(t, []string{"2", "D 42", "C SELECT 1", "Z I"}, b.say(run("s")...))
			a.say(closeStatement("s"), syncNow())
			b.say(closeStatement("s"), syncNow())
		}
		// Through the extended protocol, in the midst of a pipeline, and in a transaction that fails.
		a.say(parse("s", "select 1"), syncNow())
		require.Equal(t, []string{"1", "2", "C DEALLOCATE ALL", `E 26000 prepared statement "s" does not exist`, "Z I"},
			a.say(parse("", "deallocate all"), bind(""), execute(), bind("s"), execute(), syncNow()))
		a.say(parse("s", "select 1"), syncNow())
		a.say(query("begin"))
		a.say(query("select 1/0"))
		a.say(query("deallocate all"))
		a.say(query("rollback"))
		require.Equal(t, []string{"2", "D 1", "C SELECT 1", "Z I"}, a.say(run("s")...), "a DEALLOCATE that has failed changes nothing")
	})
}

// Multigres' #1126: the lock was taken on one server and given back on another, which answers false.
func TestLeak_advisoryUnlockFindsTheLock(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 3)
		a, others := raw(t, p.url()), []*rawClient{raw(t, p.url()), raw(t, p.url())}
		for range 5 {
			a.say(query("select pg_advisory_lock(7)"))
			for _, other := range others {
				other.say(query("begin"))
				require.Equal(t, []string{"T pg_try_advisory_lock", "D f", "C SELECT 1", "Z T"}, other.say(query("select pg_try_advisory_lock(7)")))
				other.say(query("commit"))
			}
			require.Equal(t, []string{"T pg_advisory_unlock", "D t", "C SELECT 1", "Z I"}, a.say(query("select pg_advisory_unlock(7)")))
			require.Equal(t, []string{"T pg_advisory_unlock", "D f", "C SELECT 1", "Z I"}, withoutNotices(a.say(query("select pg_advisory_unlock(7)"))))
		}
		await(t, "nobody is pinned", func() bool { return len(p.Snapshot().Pinned) == 0 })
	})
}

func withoutNotices(heard []string) []string {
	var rest []string
	for _, m := range heard {
		if m[0] != 'N' {
			rest = append(rest, m)
		}
	}
	return rest
}

// Multigres' #1136: what ALTER DATABASE (or ROLE) SET says was never seen by servers that had been connected before. Here it comes
// with their replacement (pool.max_lifetime, a reload), for clients that are connected as well.
func TestDesync_alterDatabaseSetIsSeenWithTheNextServers(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		p := startFor(t, c.URL(database, pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
		a := raw(t, p.url())
		a.say(query("select 1"))
		a.say(query("alter database " + database + " set work_mem to '7MB'"))
		require.Equal(t, []string{"T work_mem", "D 4MB", "C SHOW", "Z I"}, raw(t, p.url()).say(query("show work_mem")))
		p.Recycle("test")
		await(t, "a server that is connected anew", func() bool { return a.say(query("show work_mem"))[1] == "D 7MB" })
	})
}

// Multigres' #1217: a session lost its server because a statement failed behind a savepoint.
func TestDesync_errorBehindASavepointKeepsTheServer(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 3)
	a, b := p.clients(t)
	a.say(query("begin"))
	pid := a.pid()
	for range 5 {
		a.say(query("savepoint s"))
		require.Equal(t, []string{"E 22012 division by zero", "Z E"}, a.say(query("select 1/0")))
		b.say(query("select 1"))
		require.Equal(t, []string{"C ROLLBACK", "Z T"}, a.say(query("rollback to s")))
		require.Equal(t, pid, a.pid())
	}
	require.Equal(t, []string{"C COMMIT", "Z I"}, a.say(query("commit")))
}

// PgBouncer's #396 and #452, PgDog's #677: pg_dump empties search_path by set_config, and the next client found no tables.
func TestLeak_searchPathOfPgDump(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	a, b := p.clients(t)
	a.say(query("select pg_catalog.set_config('search_path', '', false)"))
	require.Equal(t, []string{"T search_path", `D "$user", public`, "C SHOW", "Z I"}, b.say(query("show search_path")))
	require.Equal(t, []string{"T search_path", "D", "C SHOW", "Z I"}, a.say(query("show search_path")))
	a.goodbye()
	require.Equal(t, []string{"T search_path", `D "$user", public`, "C SHOW", "Z I"}, b.say(query("show search_path")))
}

// PgBouncer's #1573: pgjdbc's setReadOnly made all others read-only.
func TestLeak_readOnlySessionCharacteristics(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := onOne(t, c)
	a, b := p.clients(t)
	b.say(query("create table if not exists leak_read_only (a int)"))
	a.say(query("set session characteristics as transaction read only"))
	require.Equal(t, []string{"C INSERT 0 1", "Z I"}, b.say(query("insert into leak_read_only values (1)")))
	require.Equal(t, []string{"E 25006 cannot execute INSERT in a read-only transaction", "Z I"}, a.say(query("insert into leak_read_only values (1)")))
}

// Odyssey's #788: a driver's DISCARD ALL fell upon whatever server was at hand, and what others had there.
func TestLeak_discardAllEndsOnlyTheClientsOwnState(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	a, b := p.clients(t)
	b.say(query("set work_mem to '9MB'"))
	b.say(query("create temp table mine (a int)"))
	b.say(query("select pg_advisory_lock(788)"))
	for range 5 {
		a.say(query("discard all"))
	}
	require.Equal(t, []string{"T work_mem", "D 9MB", "C SHOW", "Z I"}, b.say(query("show work_mem")))
	require.Equal(t, []string{"C INSERT 0 1", "Z I"}, b.say(query("insert into mine values (1)")))
	require.Equal(t, []string{"T pg_advisory_unlock", "D t", "C SELECT 1", "Z I"}, b.say(query("select pg_advisory_unlock(788)")))
}

// PgBouncer's documentation lists SET ROLE and SET SESSION AUTHORIZATION among what leaks.
func TestLeak_roleAndSessionUser(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := onOne(t, c)
	a, b := p.clients(t)
	who := "select current_user::text || ',' || session_user::text as who"
	for _, sql := range []string{"set role " + role, "set session authorization " + role, "select set_config('role', '" + role + "', false)"} {
		a.say(query(sql))
		require.Equal(t, "D "+pgtest.Superuser+","+pgtest.Superuser, b.say(query(who))[1], sql)
		require.Contains(t, a.say(query(who))[1], "D "+role+",", sql)
		a.say(query("reset session authorization; reset role"))
		require.Equal(t, "D "+pgtest.Superuser+","+pgtest.Superuser, a.say(query(who))[1], sql)
	}
}

// Multigres lists this as a hole that is known: SET in the body of a function stayed on the server.
func TestLeak_settingsOfFunctionBodies(t *testing.T) {
	c := pgtest.Shared(t, 0)
	database := c.Database(t)
	c.ExecIn(t, database, `create function sets() returns void language sql as $$ select set_config('work_mem', '9MB', false); select set_config('app.leak', 'x', false) $$;
		create function sets_search_path() returns void language plpgsql as $$ begin set search_path to pg_catalog; end $$;
		create procedure commits() language plpgsql as $$ begin set work_mem to '8MB'; commit; set lock_timeout to '5s'; end $$`)
	p := startFor(t, c.URL(database, pgtest.Superuser), nil)
	a := pgtest.Connect(t, p.url())
	for _, sql := range []string{"select sets()", "select sets_search_path()", "call public.commits()"} {
		_, err := a.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	b := pgtest.Connect(t, p.url())
	const all = "select current_setting('work_mem') || current_setting('lock_timeout') || current_setting('search_path') || coalesce(current_setting('app.leak', true), '')"
	for range 6 {
		require.Equal(t, `4MB0"$user", public`, one(t, b, all))
	}
	require.Equal(t, "8MB5spg_catalog", one(t, a, all), "a custom setting under a name that no text has mentioned is nobody's: see docs/limits.md")
	require.NoError(t, a.Close(context.WithoutCancel(t.Context())))
	require.Zero(t, p.Snapshot().Totals.StateLeaks)
}
