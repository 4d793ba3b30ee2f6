package state

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// study teaches a lesson as the proxy does, and returns how many questions that took.
func (s session) study() (lesson Lesson, questions int) {
	s.Helper()
	for over := false; !over; questions++ {
		results, err := s.conn.Exec(context.Background(), string(lesson.Question())).ReadAll()
		require.NoError(s, err)
		var rows []byte
		for _, row := range results[len(results)-1].Rows {
			rows, err = (&pgproto3.DataRow{Values: row}).Encode(rows)
			require.NoError(s, err)
		}
		over, err = lesson.Answer(rows)
		require.NoError(s, err)
	}
	return lesson, questions
}

// secrets are ways to change a session behind a text. sets() is there, a trigger function that sets something, and g(), a
// function that does; h has a row.
var secrets = []struct {
	name, schema string
	shown        []string // texts that lead there
	plain        []string // texts that do not
}{
	{
		"trigger", "create table t1 (a int); create trigger t before insert on t1 for each row execute function sets()",
		[]string{"insert into t1 values (1)", "INSERT INTO PUBLIC.T1 VALUES (1)", `copy "t1" from stdin`, "with x as (insert into t1 values (1)) select 1"},
		[]string{"select * from t1", "insert into t2 values (1)", "copy t1 to stdout"},
	},
	{
		"trigger of a view", "create view tv as select 1 as a; create trigger t instead of insert on tv for each row execute function sets()",
		[]string{"insert into tv values (1)"},
		[]string{"select * from tv"},
	},
	{
		"default", "create table d (a int, b int default g()); create table d2 (a int, b text default set_config('app.d', 'x', false))",
		[]string{"insert into d (a) values (1)", "insert into d2 (a) values (1)"},
		[]string{"select 1 from d"},
	},
	{"default of a function's argument", "create function da(a int, b int default g()) returns int language sql as 'select 1'", []string{"select da(1)"}, nil},
	{
		"operator", "create operator === (leftarg = int, rightarg = int, function = eqs)",
		[]string{"select 1 === 2", "select 1===-2", "select 1 operator(public.===) 2"},
		[]string{"select 1 = 2", "select '==='", "select 1 -- ===="},
	},
	{
		"operator of a type of its own", "create type pair as (a int, b int); create function peq(pair, pair) returns boolean language plpgsql as $$ begin perform g(); return true; end $$;" +
			"create operator = (leftarg = pair, rightarg = pair, function = peq); create table pairs (p pair)",
		[]string{"select * from pairs where p = (1, 2)", "select (1, 2)::pair"},
		[]string{"select 1 = 2"},
	},
	{
		"view", "create view v as select g() as a; create view v2 as select * from v; create view vs as select set_config('app.v', 'x', false)",
		[]string{"select * from v", "table v2", "select * from vs"},
		[]string{"select v1.a from v1"},
	},
	{
		"rule", "create table r (a int); create rule r as on insert to r do also select g()",
		[]string{"insert into r values (1)"},
		[]string{"select * from r"},
	},
	{
		"rule that writes where a trigger is", "create table r2 (a int); create rule r as on insert to r2 do also insert into t1 values (new.a)",
		[]string{"insert into r2 values (1)"},
		[]string{"select * from r2"},
	},
	{
		"policy", "create table p (a int); alter table p enable row level security; create policy p on p using (g() > 0)",
		[]string{"select * from p", "delete from p"},
		nil,
	},
	{
		"cast", "create type c as (a int); create function cs(c) returns int language plpgsql as $$ begin return g(); end $$; create cast (c as int) with function cs(c);" +
			"create table ct (a c)",
		[]string{"select a::int from ct", "select row(1)::c::int"},
		nil,
	},
	{
		"domain", "create function positive(int) returns boolean language plpgsql as $$ begin return g() > 0; end $$;" +
			"create domain dom as int check (positive(value)); create table dt (a dom)",
		[]string{"select 1::dom", "insert into dt values (1)"},
		[]string{"select * from dt"},
	},
	{
		"check", "create table ck (a int check (g() > a))",
		[]string{"insert into ck values (1)", "update ck set a = 1"},
		[]string{"select * from ck"},
	},
	{
		"index", "create function im(int) returns int immutable language plpgsql as $$ begin return g(); end $$; create table ix (a int); create index on ix (im(a))",
		[]string{"insert into ix values (1)"},
		nil,
	},
	{
		"generated column", "create table gc (a int, b int generated always as (im(a)) stored)", []string{"insert into gc values (1)"}, []string{"select * from gc"},
	},
	{
		"aggregate", "create function ag(int, int) returns int language plpgsql as $$ begin return g(); end $$; create aggregate agg(int) (sfunc = ag, stype = int)",
		[]string{"select agg(1)", `select public . "agg" (1)`},
		[]string{"select aggr(1)"},
	},
	{
		"cascade", "create table k1 (a int primary key); create table k2 (a int references k1 on delete cascade);" +
			"create trigger t after delete on k2 for each row execute function sets()",
		[]string{"delete from k1", "delete from k2"},
		[]string{"select * from k1"},
	},
	{
		"truncate", "create table u1 (a int primary key); create table u2 (a int references u1); create trigger t after truncate on u2 execute function sets()",
		[]string{"truncate u1 cascade"},
		[]string{"select * from u1"},
	},
	{
		"partition", "create table pt (a int) partition by list (a); create table pt1 partition of pt for values in (1); create trigger t before insert on pt1 for each row execute function sets()",
		[]string{"insert into pt values (1)"},
		[]string{"select * from pt"},
	},
	{
		"through a table", "create function writes() returns trigger language plpgsql as $$ begin insert into t1 values (1); return new; end $$;" +
			"create table tt (a int); create trigger t before insert on tt for each row execute function writes()",
		[]string{"insert into tt values (1)"},
		nil,
	},
	{
		"body of SQL", "create function sb() returns int begin atomic; select g(); end; create view sbv as select sb(); create function sc() returns text begin atomic; select set_config('a.b', 'c', false); end",
		[]string{"select * from sbv", "select sc"},
		nil,
	},
	{"a name in capitals", `create table "T1x" (a int default g())`, []string{`insert into "T1x" values (1)`, `insert into U&"T\0031x" values (1)`}, nil},
	{"a name beyond ASCII", `create table "tä" (a int default g())`, []string{`insert into tä values (1)`, `insert into "tä" values (1)`}, nil},
	{"a built-in name", "create function lower(int) returns int language sql as 'select g()'", []string{"select lower(1)"}, nil},
}

const secretSchema = `
create function g() returns int language plpgsql as $$ begin perform set_config('app.secret', 'x', false); return 1; end $$;
create function sets() returns trigger language plpgsql as $$ begin set work_mem to '9MB'; return coalesce(new, old); end $$;
create function eqs(int, int) returns boolean language sql as 'select pg_advisory_lock($1); select true';
create function harmless() returns trigger language plpgsql as $$ begin
	new.a := nextval('harmless_seq'); perform set_config('app.local', 'x', true); set local work_mem to '9MB';
	update h set a = 1; create temp table gone (a int) on commit drop; return new; end $$;
create sequence harmless_seq;
create table h (a int default nextval('harmless_seq') check (a > 0), b text default current_setting('app.secret', true));
create trigger t before insert on h for each row execute function harmless();
create view hv as select * from h;
`

// harmless are texts that use what does nothing that lasts.
var harmless = []string{"insert into h values (1)", "select * from hv", "select harmless", "select 1", "create table x (a int)", "update h set a = 2"}

func TestLesson_whatRunsHiddenFunctions_isLearned(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		plain := c.Role(t)
		c.ExecIn(t, database, secretSchema)
		for _, one := range secrets {
			c.ExecIn(t, database, one.schema)
		}
		for _, user := range []string{pgtest.Superuser, plain} {
			s := dial(t, c, database, user)
			s.run("set search_path to nowhere; set client_encoding to 'LATIN1'; set standard_conforming_strings to off")
			lesson, questions := s.study()
			hidden, custom := lesson.Result()
			t.Logf("%d questions: %v", questions, hidden.Names(200))
			require.False(t, hidden.Everything())
			for _, one := range secrets {
				for _, text := range one.shown {
					require.Equal(t, Function, hidden.Effects([]byte(text), Effects([]byte(text))), "%s: %s", one.name, text)
				}
				for _, text := range one.plain {
					require.Zero(t, hidden.Effects([]byte(text), Effects([]byte(text))), "%s: %s", one.name, text)
				}
			}
			for _, text := range harmless {
				require.Zero(t, hidden.Effects([]byte(text), Effects([]byte(text))), text)
			}
			require.Subset(t, custom, []string{"app.secret", "app.d", "app.v"})
			require.NotContains(t, custom, "app.local")
		}
	})
}

func TestLesson_databaseWithNothingHidden_takesOneQuestion(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		s := dial(t, c, database, pgtest.Superuser)
		s.run("create table t (a serial primary key, b text default now(), check (b <> '')); create view v as select max(a) from t;" +
			"create function touch() returns trigger language plpgsql as $$ begin new.b := now(); return new; end $$;" +
			"create trigger t before update on t for each row execute function touch()")
		lesson, questions := s.study()
		hidden, custom := lesson.Result()
		require.Nil(t, hidden)
		require.Empty(t, custom)
		require.Equal(t, 1, questions)
	})
}

func TestLesson_eventTrigger_meansAllDDL(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		c.ExecIn(t, database, `create function e() returns event_trigger language plpgsql as $$ begin set work_mem to '9MB'; end $$;
			create event trigger e on ddl_command_end execute function e()`)
		s := dial(t, c, database, pgtest.Superuser)
		lesson, _ := s.study()
		hidden, _ := lesson.Result()
		require.Equal(t, Function, hidden.Effects([]byte("create table x (a int)"), DDL))
		require.Zero(t, hidden.Effects([]byte("select 1"), 0))
	})
}

// What is more than anybody wants to read is taken for harmful, and neither costs much.
func TestLesson_manyRoutines_areBounded(t *testing.T) {
	c := pgtest.Shared(t, 0)
	database := c.Database(t)
	c.ExecIn(t, database, `do $$ begin for i in 1..3000 loop
		execute format('create function f%s() returns int language plpgsql as %L', i, 'begin return 1; /* ' || repeat('x', 4000) || '*/ end');
		end loop; end $$; create view early as select f1(); create view late as select f3000()`)
	s := dial(t, c, database, pgtest.Superuser)
	lesson, _ := s.study()
	hidden, _ := lesson.Result()
	require.Zero(t, hidden.Effects([]byte("select * from early"), 0))
	require.Equal(t, Function, hidden.Effects([]byte("select * from late"), 0))
}

func TestBodyEffects_commandsAndCalls(t *testing.T) {
	for body, want := range map[string]Effect{
		"begin set work_mem to '1MB'; end":                              Set,
		"begin if true then set work_mem to '1MB'; end if; end":         Set,
		"begin if true then null; else reset all; end if; end":          ResetAll,
		"begin for i in 1..3 loop listen x; end loop; end":              Listen,
		"begin <<l>> set work_mem to '1MB'; end":                        Set,
		"begin <<l>> begin set work_mem to '1MB'; end; end":             Set,
		"begin perform set_config('a.b', 'c', false); end":              Set,
		"begin perform Pg_Catalog.set_config('a.b', 'c', x); end":       Set,
		"begin perform \"set_config\"('a.b', 'c', x); end":              Set,
		"begin x := pg_try_advisory_lock(1); end":                       AdvisoryLock,
		"begin execute 'set work_mem to 1'; end":                        Unknown,
		"begin return query execute q; end":                             Unknown,
		"begin for r in execute q loop null; end loop; end":             Unknown,
		"begin perform query_to_xml('select g()', true, true, ''); end": Unknown,
		"begin create temp table t (a int); end":                        Temp,
		"begin create table pg_temp.t (a int); end":                     Temp,
		"select setseed(0.5)":                                           Seed,
		"set role x":                                                    Set,
		"begin exception when others then set role x; end":              Set,
		"begin perform dblink_connect('x'); end":                        Opaque,
		"begin select 'unterminated; end":                               Unknown,
		`begin x := 'a\'; set work_mem to 1; --'; end`:                  Set,
		"begin do $x$ begin end $x$; end":                               Do,

		"begin update t set a = 1, b = 2 where c = 3; return new; end":                          0,
		"begin perform set_config('a.b', 'c', true); end":                                       0,
		"begin set local work_mem to '1MB'; set transaction read only; end":                     0,
		"begin create temp table t (a int) on commit drop; end":                                 0,
		"begin return (select case when a then b else set_it end from t); end":                  0,
		"begin perform pg_advisory_xact_lock(1); return nextval('s'); end":                      0,
		"select f(x), count(*) from t -- set work_mem":                                          0,
		"declare r record; begin for r in select * from t loop return next r; end loop; end":    0,
		"begin raise notice 'set work_mem'; perform format('reset %s', 1); end":                 0,
		"insert into t values (1) on conflict do nothing; select a >> 1 from t":                 0,
		"begin insert into t select * from u; get diagnostics n = row_count; commit; end":       0,
		"begin if tg_op = 'INSERT' then new.tsv := to_tsvector(new.a); end if; return new; end": 0,
	} {
		require.Equal(t, want, bodyEffects([]byte(body)), body)
	}
}

func TestChangesHidden_routinesAndWhatUsesThem(t *testing.T) {
	for text, want := range map[string]bool{
		"create function f() returns int language sql as 'select 1'":            true,
		"alter procedure p rename to q":                                         true,
		"create extension hstore":                                               true,
		"create trigger t before insert on t for each row execute function f()": true,
		"create table t (a int default f())":                                    true,
		"create view v as select f()":                                           true,
		"do $$ begin create view v as select f(); end $$":                       true,
		"create temp table t (a int); create function f() returns int":          true,
		"create table t (a int default 1, b text default lower('x'))":           false,
		"create temp table t as select f()":                                     false,
		"alter table t add column a int":                                        false,
		"do $$ begin null; end $$":                                              false,
		"select 1":                                                              false,
	} {
		require.Equal(t, want, ChangesHidden([]byte(text), Effects([]byte(text))), text)
	}
	hidden := &Hidden{written: map[string]struct{}{"b": {}}}
	text := []byte("alter table b add foreign key (a) references a on delete cascade")
	require.True(t, ChangesHidden(text, DDL|hidden.Effects(text, DDL)))
}
