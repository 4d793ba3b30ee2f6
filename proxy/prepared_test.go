package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// held returns how many statements of the protocol the one server of a proxy holds, as the server itself says.
func held(t *testing.T, c *rawClient) string {
	t.Helper()
	return c.say(query("select count(*) from pg_prepared_statements where not from_sql"))[1]
}

// table makes a table for this test alone and returns its name.
func table(t *testing.T, c *pgtest.Cluster, columns string) string {
	t.Helper()
	name := strings.ToLower(strings.NewReplacer("/", "_", "#", "_").Replace(t.Name()))
	name = "t_" + name[max(0, len(name)-50):]
	c.Exec(t, "drop table if exists "+name+"; create table "+name+" ("+columns+")")
	t.Cleanup(func() { c.Exec(t, "drop table if exists "+name) })
	return name
}

func TestPrepared_namedStatementRunsOnAnyServer(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		a, b, d := raw(t, p.url()), raw(t, p.url()), raw(t, p.url())
		a.say(parse("s", "select pg_backend_pid() || $1"), syncNow())
		for range 3 {
			// First b keeps one of the two servers for itself, then d the other one.
			b.say(query("begin"))
			require.Equal(t, []string{"t", "T ?column?", "Z I"}, a.say(describe("s"), syncNow()))
			here := a.say(run("s", " is here")...)
			require.Equal(t, []string{"2", here[1], "C SELECT 1", "Z I"}, here)
			d.say(query("begin"))
			b.say(query("rollback"))
			there := a.say(run("s", " is here")...)
			require.Equal(t, []string{"2", there[1], "C SELECT 1", "Z I"}, there)
			require.NotEqual(t, here[1], there[1])
			d.say(query("rollback"))
		}
	})
}

func TestPrepared_equalStatementsAreSharedAndEqualNamesAreNot(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		a, b, d := raw(t, p.url()), raw(t, p.url()), raw(t, p.url())
		require.Equal(t, "D 0", held(t, a))
		a.say(parse("s", "select 'shared'"), syncNow())
		b.say(parse("s", "select 'other'"), syncNow())
		d.say(parse("mine", "select 'shared'"), syncNow())
		require.Equal(t, "D 2", held(t, a))
		for range 3 {
			require.Equal(t, []string{"2", "D shared", "C SELECT 1", "Z I"}, a.say(run("s")...))
			require.Equal(t, []string{"2", "D other", "C SELECT 1", "Z I"}, b.say(run("s")...))
			require.Equal(t, []string{"2", "D shared", "C SELECT 1", "Z I"}, d.say(run("mine")...))
		}
		require.Equal(t, []string{"t", "T ?column?", "Z I"}, b.say(describe("s"), syncNow()))
		// Equal text with other parameter types is another statement.
		a.Send(&pgproto3.Parse{Name: "n", Query: "select $1", ParameterOIDs: []uint32{23}}, syncNow())
		a.hear(1)
		b.Send(&pgproto3.Parse{Name: "n", Query: "select $1", ParameterOIDs: []uint32{25}}, syncNow())
		b.hear(1)
		require.Contains(t, a.say(run("n", "x")...)[0], "E 22P02 ")
		require.Equal(t, "D x", b.say(run("n", "x")...)[1])
	})
}

// What a client deallocates is its own, in whatever way it says so; the others keep theirs although the server has lost all.
// PgBouncer's #1129 and #991.
func TestPrepared_resetsForgetOnlyTheClientsOwn(t *testing.T) {
	extended := func(sql string) []pgproto3.Message {
		return together(parse("", sql), bind(""), execute(), syncNow())
	}
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for name, reset := range map[string][]pgproto3.Message{
			"DEALLOCATE ALL":             {query("deallocate all")},
			"DISCARD ALL":                {query("discard all")},
			"DISCARD ALL with a comment": {query("/* reset */ discard all;")},
			"extended DEALLOCATE ALL":    extended("deallocate prepare all"),
			"extended DISCARD ALL":       extended("discard all"),
		} {
			t.Run(name, func(t *testing.T) {
				p := poolOf(t, c, 1)
				a, b := raw(t, p.url()), raw(t, p.url())
				a.say(parse("s", "select 'of both'"), syncNow())
				b.say(parse("s", "select 'of both'"), syncNow())
				b.say(parse("u", "select 'of b'"), syncNow())
				done := a.say(reset...)
				require.True(t, strings.HasPrefix(done[len(done)-2], "C D"), "%s", done)
				require.Equal(t, []string{`E 26000 prepared statement "s" does not exist`, "Z I"}, a.say(run("s")...))
				require.Equal(t, []string{"2", "D of both", "C SELECT 1", "Z I"}, b.say(run("s")...))
				require.Equal(t, []string{"2", "D of b", "C SELECT 1", "Z I"}, b.say(run("u")...))
				require.Equal(t, []string{"1", "Z I"}, a.say(parse("s", "select 'again'"), syncNow()))
				require.Equal(t, "D again", a.say(run("s")...)[1])
			})
		}
	})
}

// Rails, psycopg and PDO close what they have prepared by the protocol with SQL.
// PgBouncer's #1041 and #974.
func TestPrepared_deallocateByNameFindsTheProtocolsStatement(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		direct := raw(t, c.URL("postgres", "postgres"))
		a, b := raw(t, p.url()), raw(t, p.url())
		for _, deallocate := range [][]pgproto3.Message{
			{query("deallocate a1")},
			{query("DEALLOCATE PREPARE \"a1\" ;")},
			together(parse("", "deallocate a1"), bind(""), describePortal(""), execute(), syncNow()),
			together(parse("x", "deallocate a1"), syncNow(), bind("x"), execute(), syncNow(), closeStatement("x"), syncNow()),
			{query("begin"), query("deallocate a1"), query("rollback")}, // not undone
			{query("begin"), query("select 1/0"), query("deallocate a1"), query("rollback"), query("deallocate a1")},
		} {
			setUp := []pgproto3.Message{parse("a1", "select 1"), syncNow()}
			require.Equal(t, direct.say(setUp...), a.say(setUp...))
			b.say(parse("a1", "select 1"), syncNow())
			require.Equal(t, direct.say(deallocate...), a.say(deallocate...), "%s", pgtest.Strings(decoded(t, deallocate)))
			require.Equal(t, direct.say(run("a1")...), a.say(run("a1")...))
			require.Equal(t, direct.say(deallocate...), a.say(deallocate...))
			require.Equal(t, "D 1", b.say(run("a1")...)[1], "b has kept its own")
			b.say(closeStatement("a1"), syncNow())
		}
	})
}

// decoded makes messages to show of messages to send.
func decoded(t *testing.T, messages []pgproto3.Message) (all []pgtest.Message) {
	t.Helper()
	for _, m := range messages {
		b, err := m.Encode(nil)
		require.NoError(t, err)
		all = append(all, pgtest.Message{Type: b[0], Body: b[5:], FromClient: true})
	}
	return all
}

// What stands beside a DEALLOCATE is never dropped without a word.
func TestPrepared_deallocateAmongOthers_isNotTakenForAll(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 1)
	a := raw(t, p.url())
	a.say(parse("a1", "select 1"), syncNow())
	for _, sql := range []string{"deallocate a1; select 'x'", "select 'x'; deallocate a1"} {
		got := a.say(query(sql))
		require.Contains(t, got, `E 26000 prepared statement "a1" does not exist`, "%s", sql)
	}
	require.Equal(t, "D 1", a.say(run("a1")...)[1])
}

// A DEALLOCATE that was parsed on one server and is executed on another, which has never seen its statement.
func TestPrepared_deallocateByNameParsedOnAnotherServer(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	a := raw(t, p.url())
	a.say(query("begin"))
	here := a.pid()
	a.say(parse("a1", "select 1"), parse("end", "commit"), parse("", "deallocate a1"), syncNow())
	require.Equal(t, []string{"2", "C COMMIT", "Z I"}, a.say(run("end")...))
	p.keepBusy(t, here)
	require.Equal(t, []string{"2", "C DEALLOCATE", "Z I"}, a.say(run("")...))
	require.Equal(t, []string{`E 26000 prepared statement "a1" does not exist`, "Z I"}, a.say(run("a1")...))
}

func TestPrepared_closedNameMayBeGivenAgain(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		direct := raw(t, c.URL("postgres", "postgres"))
		a := raw(t, p.url())
		for _, step := range [][]pgproto3.Message{
			{parse("s", "select 1"), syncNow()},
			{closeStatement("s"), syncNow()},
			{parse("s", "select 'text', 2"), describe("s"), syncNow()},
			run("s"),
			{closeStatement("s"), closeStatement("s"), closeStatement("never"), closePortal("never"), syncNow()},
			run("s"),
			{parse("s", "select 1"), closeStatement("s"), parse("s", "select 2"), bind("s"), execute(), syncNow()},
			{closeStatement("s"), parse("s", "select 3"), closeStatement("s"), syncNow(), parse("s", "select 4"), bind("s"), execute(), syncNow()},
			run("s"),
		} {
			require.Equal(t, direct.say(step...), a.say(step...), "%s", pgtest.Strings(decoded(t, step)))
		}
	})
}

// An error that names a statement names it as the client does, is the server's own, and does not end the connection.
// PgBouncer's #1118.
func TestPrepared_unknownAndDuplicateNamesAreTheServersErrors(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		direct := raw(t, c.URL("postgres", "postgres"))
		a := raw(t, p.url())
		long := strings.Repeat("n", 100) // longer than an identifier
		for _, step := range [][]pgproto3.Message{
			run("nope"),
			{describe("nope"), syncNow()},
			{bind("no\"quo'te"), syncNow()},
			run("pgsidecar_1"),
			run(""),
			{describe(""), syncNow()},
			{executePortal("nope", 0), syncNow()},
			{describePortal("nope"), syncNow()},
			{parse("s", "select 1"), syncNow()},
			{parse("s", "select 2"), syncNow()},
			{parse("s", "select 1"), syncNow()}, // the same text is a duplicate too
			{parse("s", "select syntax error here"), syncNow()},
			run("s"),
			{parse("t", "select 1"), parse("t", "select 2"), bind("t"), execute(), syncNow()},
			run("t"),
			{parse("u", "select 1"), syncNow(), parse("u", "select 2"), syncNow(), bind("u"), execute(), syncNow()},
			{query("begin"), parse("s", "select 2"), syncNow(), parse("v", "select 1"), syncNow(), bind("s"), syncNow(), query("rollback")},
			run("s"),
			run("v"),
			{parse(long, "select 1"), syncNow()},
			{parse(long, "select 1"), syncNow()},
			run(long),
			{query("deallocate nope")},
			{query("execute nope")},
		} {
			want, got := direct.say(step...), a.say(step...)
			if strings.Contains(want[0], "pgsidecar_") {
				require.Contains(t, got[0], "E 26000 ") // named with a sign in front, so that it can be nobody's
				continue
			}
			require.Equal(t, want, got, "%s", pgtest.Strings(decoded(t, step)))
		}
	})
}

// A failed Parse is remembered by nobody: the name is free, and the statement can be prepared when its table is there.
func TestPrepared_failedParseIsNotCached(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		a, b := raw(t, p.url()), raw(t, p.url())
		name := "t_failed_parse"
		c.Exec(t, "drop table if exists "+name)
		sql := "select * from " + name
		missing := []string{`E 42P01 relation "` + name + `" does not exist`, "Z I"}
		for range 3 {
			require.Equal(t, missing, a.say(parse("s", sql), syncNow()))
			require.Equal(t, missing, a.say(parse("", sql), syncNow()))
			require.Equal(t, missing, b.say(parse("s", sql), bind("s"), execute(), syncNow()))
			require.Equal(t, []string{`E 26000 prepared statement "s" does not exist`, "Z I"}, a.say(run("s")...))
		}
		c.Exec(t, "create table "+name+" as select 7 as n")
		for _, client := range []*rawClient{a, b} {
			require.Equal(t, []string{"1", "Z I"}, client.say(parse("s", sql), syncNow()))
			require.Equal(t, []string{"2", "D 7", "C SELECT 1", "Z I"}, client.say(run("s")...))
		}
		c.Exec(t, "drop table "+name)
		// A statement that another server has, and whose table is gone: the server's error, and the client keeps its name.
		for range 2 {
			b.say(query("begin"))
			require.Equal(t, missing, a.say(run("s")...))
			b.say(query("rollback"))
			require.Equal(t, missing, a.say(run("s")...))
		}
		c.Exec(t, "create table "+name+" as select 8 as n")
		require.Equal(t, []string{"2", "D 8", "C SELECT 1", "Z I"}, a.say(run("s")...))
		c.Exec(t, "drop table "+name)
	})
}

// bounded starts a proxy of one server that holds at most so many statements.
func bounded(t *testing.T, c *pgtest.Cluster, statements int) *testProxy {
	t.Helper()
	return start(t, c, func(config *proxy.Config) {
		config.Pool.MaxConnections = 1
		config.Session.PreparedPerServer = statements
	})
}

func TestPrepared_serverNeverHoldsMoreThanTheBound(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		const bound = 5
		p := bounded(t, c, bound)
		a, b := raw(t, p.url()), raw(t, p.url())
		for i := range 12 {
			for _, client := range []*rawClient{a, b} {
				sql := fmt.Sprintf("select %d, count(*) from pg_prepared_statements", i)
				require.Equal(t, []string{"1", "Z I"}, client.say(parse(fmt.Sprint("s", i), sql), syncNow()))
			}
			require.Equal(t, fmt.Sprintf("D %d", min(i+1, bound)), held(t, a))
		}
		for i := range 24 {
			n := i * 7 % 12
			require.Equal(t, fmt.Sprintf("D %d,%d", n, bound), b.say(run(fmt.Sprint("s", n))...)[1])
		}
		// The five used last are there: using them prepares nothing.
		before := p.Snapshot().Totals.ReparsesNamed
		for i := 19; i < 24; i++ {
			a.say(run(fmt.Sprint("s", i*7%12))...)
		}
		require.Equal(t, before, p.Snapshot().Totals.ReparsesNamed)
		require.Equal(t, bound, p.Snapshot().Prepared.Servers)
		require.Equal(t, 24, p.Snapshot().Prepared.Clients)
	})
}

// One pipeline with more statements than the server may hold, in one segment and in many, is answered in order and leaves
// the server with no more than it may hold.
// PgBouncer's #1555.
func TestPrepared_evictionInsidePipelines(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for _, bound := range []int{2, 3, 4, 10} {
			p := bounded(t, c, bound)
			a := raw(t, p.url())
			var send []pgproto3.Message
			var want []string
			for round := range 3 {
				for i := range 7 {
					name := fmt.Sprint("s", i)
					if round == 0 {
						send = append(send, parse(name, fmt.Sprintf("select %d, count(*) <= %d from pg_prepared_statements", i, bound)))
						want = append(want, "1")
					}
					send = append(send, bind(name), execute())
					want = append(want, "2", fmt.Sprintf("D %d,t", i), "C SELECT 1")
					if (round+i)%3 == 2 {
						send, want = append(send, syncNow()), append(want, "Z I")
					}
				}
			}
			send, want = append(send, closeStatement("s0"), syncNow()), append(want, "3", "Z I")
			require.Equal(t, want, a.say(send...), "bound %d", bound)
			require.Equal(t, fmt.Sprintf("D %d", min(bound, 7)), held(t, a))
		}
	})
}

// An error drops what a segment would have prepared and closed behind it. What was evicted on the way is right afterwards.
func TestPrepared_evictionAndErrorInOnePipeline(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		const bound = 3
		const divide = "select %d / (select $1::int where random() >= 0)" // not tried by the planner
		p := bounded(t, c, bound)
		direct := raw(t, c.URL("postgres", "postgres"))
		a, b := raw(t, p.url()), raw(t, p.url())
		for i := range 6 {
			m := []pgproto3.Message{parse(fmt.Sprint("s", i), fmt.Sprintf(divide, i)), syncNow()}
			require.Equal(t, direct.say(m...), a.say(m...))
		}
		use := func(i int, by string) []pgproto3.Message {
			return []pgproto3.Message{bind(fmt.Sprint("s", i), by), execute()}
		}
		for round := range 12 {
			fails := round % 6
			var send []pgproto3.Message
			for i := range 6 {
				by := "1"
				if i == fails {
					by = "0"
				}
				send = append(send, use(i, by)...)
				if round%2 == 0 && i == 3 {
					send = append(send, syncNow())
				}
			}
			send = append(send, parse(fmt.Sprint("n", round), "select 'new'"), closeStatement("s5"), syncNow())
			send = append(send, together(use(round%5, "1"), syncNow(), use((round+1)%5, "1"), syncNow())...)
			require.Equal(t, direct.say(send...), a.say(send...), "round %d", round)
			for i := range 6 {
				again := together(use(i, "1"), syncNow())
				require.Equal(t, direct.say(again...), a.say(again...), "round %d, statement %d", round, i)
			}
			reparse := []pgproto3.Message{closeStatement("s5"), parse("s5", fmt.Sprintf(divide, 5)), syncNow()}
			require.Equal(t, direct.say(reparse...), a.say(reparse...))
			n := b.say(query(fmt.Sprintf("select count(*) <= %d from pg_prepared_statements", bound)))[1]
			require.Equal(t, "D t", n, "round %d", round)
		}
	})
}

// Names beyond the bound are forgotten, the one used longest ago first; the client then gets the server's own error.
func TestPrepared_namesOfAClientAreBounded(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Session.PreparedPerClient = 3 })
	a := raw(t, p.url())
	for i := range 5 {
		a.say(parse(fmt.Sprint("s", i), fmt.Sprintf("select %d", i)), syncNow())
	}
	require.Equal(t, []string{`E 26000 prepared statement "s1" does not exist`, "Z I"}, a.say(run("s1")...))
	require.Equal(t, "D 2", a.say(run("s2")...)[1])
	require.Equal(t, 3, p.Snapshot().Prepared.Clients)
}

// Statements of SQL's PREPARE and those of the protocol share their names on a server.
func TestPrepared_protocolMayUseAndCloseWhatSQLHasPrepared(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		direct := raw(t, c.URL("postgres", "postgres"))
		a, b := raw(t, p.url()), raw(t, p.url())
		for _, step := range [][]pgproto3.Message{
			{query("prepare q as select 'by sql'")},
			run("q"),
			{query("execute q")},
			{describe("q"), syncNow()},
			{closeStatement("q"), syncNow()},
			{query("execute q")},
			run("q"),
			{query("prepare q as select 'again'")},
			{query("deallocate q")},
			{query("execute q")},
		} {
			b.say(query("begin"))
			require.Equal(t, direct.say(step...), a.say(step...), "%s", pgtest.Strings(decoded(t, step)))
			b.say(query("rollback"))
		}
	})
}
