package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// What a statement does to its session without its text showing it. The sentinel looks at nothing in these tests, but for
// those that are about it.

const hiddenSchema = `
create function changes() returns int language plpgsql as $$ begin
	set work_mem to '9MB'; perform set_config('app.hidden', 'mine', false); return 1; end $$;
create function fires() returns trigger language plpgsql as $$ begin perform changes(); return coalesce(new, old); end $$;
create table triggered (a int); create trigger t before insert on triggered for each row execute function fires();
create table defaulted (a int, b int default changes());
create function equals(int, int) returns boolean language plpgsql as $$ begin return changes() > 0; end $$;
create operator === (leftarg = int, rightarg = int, function = equals);
create view viewed as select changes() as a;
create table ruled (a int); create rule r as on insert to ruled do also select changes();
create table guarded (a int); insert into guarded values (1); alter table guarded enable row level security;
create policy p on guarded using (changes() > 0); grant select on guarded to public;
create type kind as (a int); create function turns(kind) returns int language plpgsql as $$ begin return changes(); end $$;
create cast (kind as int) with function turns(kind); create table cast_table (a kind); insert into cast_table values (row(1));
create function checks(int) returns boolean language plpgsql as $$ begin return changes() > 0; end $$;
create domain positive as int check (checks(value)); create table domained (a positive);
create function adds(int, int) returns int language plpgsql as $$ begin return changes(); end $$;
create aggregate total(int) (sfunc = adds, stype = int);
create table parent (a int primary key); create table child (a int references parent on delete cascade);
create trigger t before delete on child for each row execute function fires();
`

// hiddenStatements lead to changes() in one way each. %role is somebody whom policies bind.
var hiddenStatements = map[string]string{
	"trigger":   "insert into triggered values (1)",
	"copy":      "create table if not exists source (a int); insert into source values (1); insert into triggered select a from source",
	"default":   "insert into defaulted (a) values (1)",
	"operator":  "select 1 === 2",
	"view":      "select * from viewed",
	"rule":      "insert into ruled values (1)",
	"policy":    "begin; set local role %role; select * from guarded; commit",
	"cast":      "select a::int from cast_table",
	"domain":    "insert into domained values (1)",
	"aggregate": "select total(1)",
	"cascade":   "insert into parent values (1); insert into child values (1); delete from parent",
}

// learning starts a proxy with one server in front of a database of its own, which looks at what that hides.
func learning(t *testing.T, c *pgtest.Cluster, schema string, change func(*proxy.Config)) (p *testProxy, database string) {
	t.Helper()
	database = c.Database(t)
	c.ExecIn(t, database, schema)
	return startFor(t, c.URL(database, pgtest.Superuser), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Session.SentinelEvery, config.Session.LearnEvery = 1, 0, time.Hour
		if change != nil {
			change(config)
		}
	}), database
}

const (
	hiddenState = "select current_setting('work_mem') || coalesce(current_setting('app.hidden', true), '')"
	hiddenClean = "D 4MB"
	hiddenMine  = "D 9MBmine"

	// The custom setting is lost if nobody has told its name: neither a text, nor a routine's body that has been read.
	hiddenUnnamed = "D 9MB"
)

// does says something that must not fail.
func (c *rawClient) does(sql string) {
	c.t.Helper()
	for _, m := range c.say(query(sql)) {
		require.False(c.t, strings.HasPrefix(m, "E "), "%s: %s", sql, m)
	}
}

// keepsApart makes a client say something, and looks at what it and another one see of it.
func keepsApart(t *testing.T, p *testProxy, why, sql string) {
	t.Helper()
	a, b := p.clients(t)
	a.does(sql)
	require.Equal(t, hiddenClean, b.say(query(hiddenState))[1], "%s: another client on the same server", why)
	require.Contains(t, []string{hiddenMine, hiddenUnnamed}, a.say(query(hiddenState))[1], "%s: its own", why)
	require.Equal(t, hiddenClean, b.say(query(hiddenState))[1], why)
	a.goodbye()
	b.goodbye()
}

func TestHidden_whatATextDoesNotShow_staysWithItsClient(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, _ := learning(t, c, hiddenSchema, nil)
		role := c.Role(t)
		for name, sql := range hiddenStatements {
			keepsApart(t, p, name, strings.ReplaceAll(sql, "%role", role))
		}
		a, b := p.clients(t)
		a.say(query("insert into triggered values (1)"))
		require.Equal(t, hiddenClean, b.say(query(hiddenState))[1])
		require.Equal(t, hiddenMine, a.say(query(hiddenState))[1], "the name of the custom setting is known from the body")
	})
}

func TestHidden_preparedStatements(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, _ := learning(t, c, hiddenSchema, nil)
		for range 2 { // the second one knows what has been said of the statement
			a, b := p.clients(t)
			a.say(parse("s", "insert into triggered values (1)"), syncNow())
			a.say(run("s")...)
			require.Equal(t, hiddenClean, b.say(query(hiddenState))[1])
			require.Equal(t, hiddenMine, a.say(query(hiddenState))[1])
			a.goodbye()
			b.goodbye()
		}
	})
}

func TestHidden_eventTrigger(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, _ := learning(t, c, hiddenSchema+`create function fires_on_ddl() returns event_trigger language plpgsql as $$ begin perform changes(); end $$;
			create event trigger e on ddl_command_end execute function fires_on_ddl()`, nil)
		keepsApart(t, p, "event trigger", "create table made (a int)")
	})
}

// What clients of the proxy make is known from the moment on that they do, whoever uses it.
func TestHidden_madeThroughTheProxy(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, _ := learning(t, c, "create table plain (a int); create table other (a int)", nil)
		maker := raw(t, p.url())
		for i, ddl := range []string{
			strings.SplitAfter(hiddenSchema, "end $$;")[0],
			strings.SplitAfter(hiddenSchema, "end $$;")[1],
			"create trigger t before insert on plain for each row execute function fires()",
			"do $$ begin alter table other add column b int default changes(); end $$",
		} {
			maker.does(ddl)
			if i >= 2 {
				keepsApart(t, p, "at once: "+ddl, "insert into "+[]string{"plain", "other"}[i-2]+" values (1)")
				keepsApart(t, p, "again: "+ddl, "insert into "+[]string{"plain", "other"}[i-2]+" values (1)")
			}
		}
	})
}

func TestHidden_madePastTheProxy_isKnownAfterAWhile(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		const every = 20 * time.Millisecond
		p, database := learning(t, c, "select 1", func(config *proxy.Config) { config.Session.LearnEvery = every })
		a := raw(t, p.url())
		a.say(query("select 1"))
		c.ExecIn(t, database, hiddenSchema)
		made := time.Now()
		await(t, "what is known is too old", func() bool { return time.Since(made) > 2*every })
		keepsApart(t, p, "trigger", "insert into triggered values (1)")
		keepsApart(t, p, "trigger, again", "insert into triggered values (1)")
	})
}

// A statement that the sentinel has caught is audited from then on, whatever its constants are.
func TestHidden_caughtBySentinel_leaksOnce(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p, database := learning(t, c, "select 1", func(config *proxy.Config) { config.Session.SentinelEvery = 1 })
		first := raw(t, p.url())
		first.say(query("select 1"))
		c.ExecIn(t, database, hiddenSchema) // which the proxy does not get to know within the hour
		first.say(query("insert into triggered values (0)"))
		await(t, "the sentinel has seen it", func() bool { return p.Snapshot().Totals.StateLeaks == 1 })
		for i := range 3 {
			keepsApart(t, p, "caught", fmt.Sprintf("insert into triggered values (%d)", i))
		}
		require.EqualValues(t, 1, p.Snapshot().Totals.StateLeaks)
	})
}

// A database that hides nothing is asked once, and no transaction costs more for it.
func TestHidden_databaseWithoutAny_paysNothing(t *testing.T) {
	c := pgtest.Shared(t, 0)
	sent := make(map[time.Duration]int64)
	for _, every := range []time.Duration{0, time.Hour} {
		relay := pgtest.StartRelay(t, c.Addr())
		database := c.Database(t)
		c.ExecIn(t, database, "create table plain (a serial primary key, b text); create view v as select * from plain")
		p := startFor(t, relay.URL(t, c.URL(database, pgtest.Superuser)), func(config *proxy.Config) {
			config.Pool.MaxConnections, config.Session.SentinelEvery, config.Session.LearnEvery = 1, 0, every
		})
		a := raw(t, p.url())
		work := func() {
			a.say(query("insert into plain (b) values ('x')"))
			a.say(query("begin; select * from v; commit"))
			a.say(parse("", "update plain set b = 'y'"), bind(""), execute(), syncNow())
		}
		work()
		before, _ := relay.Passed()
		for range 50 {
			work()
		}
		after, _ := relay.Passed()
		sent[every] = after - before
	}
	require.Equal(t, sent[0], sent[time.Hour], "bytes to the server")
}
