package proxy_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// refusedPlan is what the server says when a statement that it holds would now give other columns.
const refusedPlan = "E 0A000 cached plan must not change result type"

// A statement whose columns have changed is refused by the server that holds it, as without a proxy. From then on it is
// prepared anew, on every server, for every client.
// PgBouncer's #1038.
func TestPlan_refusedByTheServerIsPreparedAnew(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		name := table(t, c, "a int")
		c.Exec(t, "insert into "+name+" values (1)")
		sql := "select * from " + name
		for who, alter := range map[string]func(a, b *rawClient, ddl string){
			"the client":          func(a, _ *rawClient, ddl string) { a.say(query(ddl)) },
			"the client extended": func(a, _ *rawClient, ddl string) { a.say(parse("", ddl), bind(""), execute(), syncNow()) },
			"another client":      func(_, b *rawClient, ddl string) { b.say(query(ddl)) },
			"no client":           func(_, _ *rawClient, ddl string) { c.Exec(t, ddl) },
		} {
			t.Run("changed by "+who, func(t *testing.T) {
				p := poolOf(t, c, 2)
				a, b := raw(t, p.url()), raw(t, p.url())
				for _, client := range []*rawClient{a, b} { // on both servers
					client.say(query("begin"))
				}
				for _, client := range []*rawClient{a, b} {
					require.Equal(t, []string{"1", "2", "D 1", "C SELECT 1", "Z T"}, client.say(together(parse("s", sql), run("s"))...))
					client.say(query("commit"))
				}
				alter(a, b, "alter table "+name+" add column b text default 'new'")
				t.Cleanup(func() { c.Exec(t, "alter table "+name+" drop column b") })
				require.Equal(t, []string{refusedPlan, "Z I"}, a.say(run("s")...))
				for range 4 {
					require.Equal(t, []string{"2", "D 1,new", "C SELECT 1", "Z I"}, a.say(run("s")...))
					require.Equal(t, []string{"t", "T a,b", "2", "D 1,new", "C SELECT 1", "Z I"}, b.say(together(describe("s"), run("s"))...))
				}
			})
		}
	})
}

// Who prepares a statement after a change that came through the proxy sees the new columns at once, whatever the servers held.
func TestPlan_preparedAfterTheChangeIsFresh(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		name := table(t, c, "a int")
		c.Exec(t, "insert into "+name+" values (1)")
		sql := "select * from " + name
		a, b, d := raw(t, p.url()), raw(t, p.url()), raw(t, p.url())
		a.say(together(parse("s", sql), run("s"))...)
		for i, ddl := range []string{
			"alter table " + name + " add column b int default 2",
			"alter table " + name + " alter column b type text using b || '!'",
			"begin; drop table " + name + "; create table " + name + " as select 1 as a, '2!' as b; commit",
		} {
			b.say(query(ddl))
			want := []string{"1", "t", "T a,b", "2", []string{"D 1,2", "D 1,2!", "D 1,2!"}[i], "C SELECT 1", "Z I"}
			require.Equal(t, want, d.say(together(parse("s", sql), describe("s"), run("s"))...), ddl)
			require.Equal(t, append([]string{"3"}, want...), a.say(together(closeStatement("s"), parse("s", sql), describe("s"), run("s"))...), ddl)
			d.say(closeStatement("s"), syncNow())
		}
		// What was prepared in a transaction that has changed the table is not there for others after a rollback.
		b.say(query("begin"), query("alter table "+name+" add column c int"))
		require.Equal(t, "T a,b,c", b.say(parse("s", sql), describe("s"), syncNow())[2])
		b.say(query("rollback"))
		require.Equal(t, []string{"1", "t", "T a,b", "Z I"}, d.say(parse("s", sql), describe("s"), syncNow()))
	})
}

// After a change from outside, of which the proxy cannot know, the first refusal is the last, for all statements of the table.
// PgBouncer's #1038.
func TestPlan_changedFromOutsideRefusesOnce(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		name := table(t, c, "a int")
		a, d := raw(t, p.url()), raw(t, p.url())
		all, some := "select * from "+name, "select * from "+name+" where a > 0"
		a.say(parse("all", all), parse("some", some), syncNow())
		c.Exec(t, "alter table "+name+" add column b int")
		require.Equal(t, []string{"1", "t", refusedPlan, "Z I"}, d.say(parse("all", all), describe("all"), syncNow()))
		require.Equal(t, []string{"1", "t", "T a,b", "Z I"}, d.say(parse("again", all), describe("again"), syncNow()))
		require.Equal(t, []string{"1", "t", "T a,b", "Z I"}, d.say(parse("some", some), describe("some"), syncNow()))
		require.Equal(t, []string{"t", "T a,b", "Z I"}, d.say(describe("all"), syncNow()))
	})
}

// Clients with other settings of search_path may mean other tables by the same text. Each gets its own.
func TestPlan_sameTextInAnotherSchema(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		c.Exec(t, "drop schema if exists plan_a, plan_b cascade; create schema plan_a; create schema plan_b;"+
			"create table plan_a.which as select 'a' as a; create table plan_b.which as select 2 as b, 'b' as more")
		t.Cleanup(func() { c.Exec(t, "drop schema plan_a, plan_b cascade") })
		p := poolOf(t, c, 1)
		a, b := raw(t, p.url(), "search_path=plan_a"), raw(t, p.url(), "search_path=plan_b")
		for _, client := range []*rawClient{a, b} {
			client.say(parse("s", "select * from which"), syncNow())
		}
		for range 5 {
			require.Equal(t, []string{"t", "T a", "2", "D a", "C SELECT 1", "Z I"}, a.say(together(describe("s"), run("s"))...))
			require.Equal(t, []string{"t", "T b,more", "2", "D 2,b", "C SELECT 1", "Z I"}, b.say(together(describe("s"), run("s"))...))
		}
	})
}

// A constant is read when its statement is prepared, in the time zone of that moment. Clients in other zones have statements
// of their own, whoever comes first.
func TestPlan_sameTextInAnotherTimeZone(t *testing.T) {
	const epoch = "select extract(epoch from timestamptz '2020-01-01')::int"
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		rome, tokyo := raw(t, p.url(), "TimeZone=UTC"), raw(t, p.url(), "TimeZone=Asia/Tokyo")
		late := raw(t, p.url(), "TimeZone=UTC")
		for _, client := range []*rawClient{rome, tokyo} {
			client.say(parse("s", epoch), parse("", epoch), syncNow())
		}
		for range 3 {
			require.Equal(t, "D 1577836800", rome.say(run("s")...)[1])
			require.Equal(t, "D 1577804400", tokyo.say(run("s")...)[1])
			require.Equal(t, "D 1577836800", rome.say(run("")...)[1])
			require.Equal(t, "D 1577804400", tokyo.say(run("")...)[1])
		}
		// A setting that is changed for one transaction only changes nothing for those who prepare the same text later.
		for i, change := range [][]any{
			{query("begin"), query("set local timezone to 'Asia/Tokyo'")},
			{query("begin; select set_config('timezone', 'Asia/Tokyo', true)")},
			{parse("b", "begin"), run("b"), parse("", "set local timezone to 'Asia/Tokyo'"), run("")},
			{query("begin"), parse("", "select set_config($1, $2, true)"), run("", "TimeZone", "Asia/Tokyo")},
		} {
			text := epoch + " + " + string(rune('0'+i))
			late.say(together(change...)...)
			require.Equal(t, "D "+[]string{"1577804400", "1577804401", "1577804402", "1577804403"}[i],
				late.say(together(parse("t"+text, text), run("t"+text))...)[2])
			late.say(query("commit"))
			require.Equal(t, "D "+[]string{"1577836800", "1577836801", "1577836802", "1577836803"}[i],
				rome.say(together(parse("t"+text, text), run("t"+text))...)[2])
		}
		// One that is changed for good, and given back.
		rome.say(query("set timezone to 'Asia/Tokyo'"))
		require.Equal(t, "D 1577804400", rome.say(together(parse("u", epoch), run("u"))...)[2])
		require.Equal(t, "D 1577836800", late.say(together(parse("u", epoch), run("u"))...)[2])
		rome.say(query("reset timezone"), closeStatement("u"), syncNow())
		require.Equal(t, "D 1577836800", rome.say(together(parse("u", epoch), run("u"))...)[2])
	})
}

// Settings that change no meaning do not keep clients from sharing.
func TestPlan_otherSettingsShareStatements(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 1)
	a, b := raw(t, p.url(), "application_name=a"), raw(t, p.url(), "application_name=b", "work_mem=7MB")
	a.say(parse("s", "select 1"), syncNow())
	b.say(parse("s", "select 1"), syncNow())
	b.say(query("begin"), query("set local lock_timeout to 1000; set local app.tenant to 7"), parse("t", "select 1"), syncNow(), query("commit"))
	require.Equal(t, "D 1", held(t, a))
}
