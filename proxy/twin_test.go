package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/stats"
)

// A twin is a client of the proxy and one that is connected directly, to a database of its own with the same content. Both do
// the same, and must see the same. Only one step is made at a time, so that what clients do to each other is the same as well.
type pair struct {
	proxied, direct *side
}

type side struct {
	conn  *pgconn.PgConn
	notes []string
}

func dialSide(t *testing.T, url string) *side {
	t.Helper()
	s := new(side)
	config, err := pgconn.ParseConfig(url)
	require.NoError(t, err)
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) {
		s.notes = append(s.notes, n.Channel+"="+n.Payload)
	}
	s.conn, err = pgconn.ConnectConfig(t.Context(), config)
	require.NoError(t, err)
	return s
}

func (s *side) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
}

// step is something that a client does: SQL by the simple protocol, or with a leading "!" by the extended one.
func (s *side) step(t *testing.T, sql string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 40*time.Second)
	defer cancel()
	var results []*pgconn.Result
	var err error
	if text, extended := strings.CutPrefix(sql, "!"); extended {
		r := s.conn.ExecParams(ctx, text, nil, nil, nil, nil).Read()
		results, err = []*pgconn.Result{r}, r.Err
	} else {
		results, err = s.conn.Exec(ctx, sql).ReadAll()
	}
	return outcome(results, err) + " " + string(s.conn.TxStatus())
}

func outcome(results []*pgconn.Result, err error) string {
	var b strings.Builder
	for _, r := range results {
		for _, row := range r.Rows {
			for _, value := range row {
				b.Write(value)
				b.WriteByte(',')
			}
			b.WriteByte(';')
		}
		b.WriteString(r.CommandTag.String() + "|")
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		b.WriteString("error " + e.Code + " " + e.Message)
	} else if err != nil {
		b.WriteString("broken: " + err.Error())
	}
	return b.String()
}

// actions are what the twins do. %n is replaced by a small number, %c by the client's. None may wait for another client: the steps
// are taken one after the other.
func actions() []string {
	return []string{
		"select 1", "!select 2", "select count(*) from t", "insert into t values (%c, %n)", "!update t set v = v + 1 where c = %c",
		"begin", "begin", "commit", "rollback", "savepoint s%n", "rollback to s%n", "release s%n", "begin; select 1; commit",
		"select 1/0", "!select 1/0", "selec", "commit and chain", "rollback and chain",
		"set work_mem to '%nMB'", "!set work_mem to '1%nMB'", "set local work_mem to '2%nMB'", "reset work_mem", "show work_mem", "!show work_mem",
		"set app.user_id to 'u%n'", "select current_setting('app.user_id', true)", "select set_config('app.tenant', '%n', false)",
		"select set_config('app.tenant', '%n', true)", "select coalesce(current_setting('app.tenant', true), '')",
		"set search_path to s%n, public", "show search_path", "!show search_path", "select x from w", "!select x from w",
		"set time zone 'Etc/GMT+%n'", "show timezone", "set datestyle to 'SQL, DMY'", "set datestyle to ISO", "show datestyle", "reset datestyle",
		"set role twin_role", "reset role", "set role none", "select current_user, session_user", "set session characteristics as transaction isolation level repeatable read",
		"show default_transaction_isolation", "set application_name to 'a%n'", "show application_name", "reset all", "discard all", "set work_mem to default",
		"do $$ begin perform set_config('lock_timeout', '%ns', false); end $$", "show lock_timeout", "select sets_timeout(%n)", "call sets_in_procedure(%n)",
		"create temp table tt%n (a int)", "create temp table if not exists tt%n (a int)", "drop table tt%n", "drop table if exists tt%n", "insert into tt%n values (1)", "!select count(*) from tt%n",
		"create temp table td (a int) on commit drop", "discard temp", "select makes_temp(%n)", "create temp sequence if not exists ts",
		"select pg_try_advisory_lock(%n)", "select pg_advisory_unlock(%n)", "select pg_advisory_unlock_all()", "select pg_try_advisory_xact_lock(%n)", "select locks(%n)",
		"select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
		"prepare p%n as select %n", "execute p%n", "deallocate p%n", "deallocate all", "!execute p%n",
		"declare h%n cursor with hold for select generate_series(1, 5)", "declare c%n cursor for select generate_series(1, 5)", "fetch 2 from h%n", "fetch 2 from c%n", "close h%n", "close all",
		"listen ch%n", "unlisten ch%n", "unlisten *", "notify ch%n, 'from %c'", "select pg_notify('ch%n', 'f %c')", "begin; listen ch%n; rollback", "begin; unlisten ch%n; rollback",
		"select name from pg_prepared_statements where from_sql order by 1", "select name from pg_cursors where is_holdable order by 1",
		"select unnest(pg_listening_channels()) where false",
		"do $$ begin create temp table if not exists tt%n (a int); end $$", "do $$ begin perform pg_advisory_lock(1%c%n); end $$",
		"select 1 as a into temp tt%n", "create temp table tt%n as select %n as a; select a from tt%n", "drop table if exists tt1, tt2, tt3",
		"set app.seeded to 'y'; select setseed(0.%n)", "select case when current_setting('app.seeded', true) = 'y' then random() end",
		"load 'plpgsql'", "set search_path to pg_temp, s%n", "create view v%c%n as select 1", "drop view if exists v%c%n",
		"begin; reset work_mem; show work_mem; commit", "begin; set local datestyle to default", "set local application_name to default", "reset application_name",
		"select pg_advisory_lock_shared(%n + 30)", "select pg_advisory_unlock_shared(%n + 30)", "explain (costs off) execute p%n", "prepare p%n (int) as select $1 + %n", "execute p%n (5)",
		// What texts do not show.
		"insert into ht values (%n)", "!insert into ht values (%n)", "insert into hd (a) values (%n)", "select %n === 1", "!select count(*) from hv", "insert into hr values (%n)",
		"select count(*) from hp", "select a::int from hc", "insert into hdom values (%n)", "update hk set a = a where c = %c", "select htotal(%n)", "insert into hl values (%n)",
		"insert into h1 values (%c) on conflict do nothing", "insert into h2 values (%c)", "delete from h1 where a = %c", "insert into htemp values (%n)", "begin; insert into ht values (%n); rollback",
		"select count(*) from ht", "create or replace view hv%c%n as select * from hv", "select coalesce(current_setting('app.hidden', true), '')",
	}
}

func TestTwins_seeTheSame(t *testing.T) {
	steps := 500
	if n, err := strconv.Atoi(os.Getenv("PGSIDECAR_TWIN_STEPS")); err == nil {
		steps = n
	}
	seed := uint64(time.Now().UnixNano())
	if n, err := strconv.ParseUint(os.Getenv("PGSIDECAR_TWIN_SEED"), 10, 64); err == nil {
		seed = n
	}
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		t.Logf("PGSIDECAR_TWIN_SEED=%d", seed)
		walkTwins(t, c, rand.New(rand.NewPCG(seed, 1)), steps)
	})
}

func walkTwins(t *testing.T, c *pgtest.Cluster, random *rand.Rand, steps int) {
	t.Helper()
	mine, theirs := c.Database(t), c.Database(t)
	c.Exec(t, `do $$ begin create role twin_role; exception when duplicate_object then null; end $$`)
	for _, database := range []string{mine, theirs} {
		c.ExecIn(t, database, twinSchema)
	}
	const pool, clients = 7, 6 // each may have to keep a server, and one is listened on
	p := startFor(t, c.URL(mine, pgcluster.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections, config.Session.LearnEvery = pool, time.Hour })
	twins := make([]*pair, clients)
	dial := func(i int) {
		direct := strings.Replace(c.URL(theirs, pgcluster.Superuser), "?", "?application_name=twin&", 1)
		if !strings.Contains(direct, "?") {
			direct += "?application_name=twin"
		}
		twins[i] = &pair{proxied: dialSide(t, p.url("application_name", "twin")), direct: dialSide(t, direct)}
	}
	for i := range twins {
		dial(i)
	}
	defer func() {
		for _, w := range twins {
			w.proxied.close()
			w.direct.close()
		}
	}()
	texts := actions()
	var history []string
	for n := range steps {
		i := random.IntN(clients)
		if random.IntN(150) == 0 {
			twins[i].proxied.close()
			twins[i].direct.close()
			awaitGone(t, c, p, theirs, clients-1)
			dial(i)
			history = append(history, fmt.Sprintf("%d: connects again", i))
			continue
		}
		text := strings.NewReplacer("%n", strconv.Itoa(1+random.IntN(3)), "%c", strconv.Itoa(i)).Replace(texts[random.IntN(len(texts))])
		history = append(history, fmt.Sprintf("%d: %s", i, text))
		want := twins[i].direct.step(t, text)
		got := twins[i].proxied.step(t, text)
		if want != got {
			t.Fatalf("step %d, client %d, %s:\nproxied %s\ndirect  %s\nbefore:\n%s", n, i, text, got, want,
				strings.Join(history[max(0, len(history)-40):], "\n"))
		}
	}
	for i, w := range twins {
		compareNotes(t, i, w)
	}
	require.Zero(t, p.Snapshot().Totals.StateLeaks)
}

// compareNotes ends both transactions and waits until the client of the proxy has been told all that its twin has.
func compareNotes(t *testing.T, i int, w *pair) {
	t.Helper()
	for _, s := range []*side{w.proxied, w.direct} {
		s.step(t, "rollback")
		s.step(t, "select 1")
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(w.proxied.notes) < len(w.direct.notes) && time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Second)
		_ = w.proxied.conn.WaitForNotification(ctx)
		cancel()
	}
	require.Equal(t, w.direct.notes, w.proxied.notes, "notifications of client %d", i)
}

// awaitGone waits until the server has ended the connections that were closed, those of the proxy's client too, as the locks go with them.
func awaitGone(t *testing.T, c *pgtest.Cluster, p *testProxy, database string, left int) {
	t.Helper()
	await(t, "the proxied client's end", func() bool { return p.Snapshot().Clients.All() <= left })
	await(t, "its server's end", func() bool {
		return !slices.ContainsFunc(p.Snapshot().Pools, func(one stats.PoolSnapshot) bool { return one.Closing > 0 })
	})
	require.Eventually(t, func() bool {
		return pgtest.Value[int](t, c, "select count(*)::int from pg_stat_activity where datname = $1", database) <= left
	}, 20*time.Second, 5*time.Millisecond)
}

const twinSchema = `
create table t (c int, v int);
grant all on t to twin_role;
create schema s1; create schema s2; create schema s3;
grant usage on schema s1, s2, s3 to twin_role;
create view s1.w as select 1 as x; create view s2.w as select 2 as x; create view s3.w as select 3 as x;
grant select on s1.w, s2.w, s3.w to twin_role;
create function sets_timeout(n int) returns text language plpgsql as $$ begin return set_config('statement_timeout', (n * 100000)::text, false); end $$;
create procedure sets_in_procedure(n int) language plpgsql as $$ begin perform set_config('idle_session_timeout', (n * 1000000)::text, false); end $$;
create function makes_temp(n int) returns void language plpgsql as $$ begin execute format('create temp table if not exists tt%s (a int)', n); end $$;
create function locks(n int) returns boolean language sql as $$ select pg_try_advisory_lock(n + 10) $$;
create function hset(n int) returns int language plpgsql as $$ begin
	perform set_config('lock_timeout', n || 's', false), set_config('app.hidden', 'h' || n, false); return n; end $$;
create function hfires() returns trigger language plpgsql as $$ begin perform hset(4); return coalesce(new, old); end $$;
create function hlocks() returns trigger language plpgsql as $$ begin perform pg_try_advisory_lock(new.a + 50); return new; end $$;
create function htemps() returns trigger language plpgsql as $$ begin execute format('create temp table if not exists tt%s (a int)', new.a); return new; end $$;
create table ht (a int); create trigger t after insert on ht for each row execute function hfires();
create table hl (a int); create trigger t before insert on hl for each row execute function hlocks();
create table htemp (a int); create trigger t before insert on htemp for each row execute function htemps();
create table hd (a int, b int default hset(5));
create function hequals(int, int) returns boolean language plpgsql as $$ begin return hset(6) = 6; end $$;
create operator === (leftarg = int, rightarg = int, function = hequals);
create view hv as select hset(7) as a;
create table hr (a int); create rule r as on insert to hr do also select hset(8);
create table hp (a int); insert into hp values (1); alter table hp enable row level security; create policy p on hp using (hset(9) > 0);
create type hkind as (a int); create function hturns(hkind) returns int language plpgsql as $$ begin return hset(10); end $$;
create cast (hkind as int) with function hturns(hkind); create table hc (a hkind); insert into hc values (row(1));
create function hchecks(int) returns boolean language plpgsql as $$ begin return hset(11) > 0; end $$;
create domain hpositive as int check (hchecks(value)); create table hdom (a hpositive);
create table hk (c int, a int check (hchecks(a))); insert into hk select n, 1 from generate_series(0, 5) as n;
create function hadds(int, int) returns int language plpgsql as $$ begin return hset(12); end $$;
create aggregate htotal(int) (sfunc = hadds, stype = int);
create table h1 (a int primary key); create table h2 (a int references h1 on delete cascade);
create trigger t after delete on h2 for each row execute function hfires();
grant all on all tables in schema public to twin_role;
`
