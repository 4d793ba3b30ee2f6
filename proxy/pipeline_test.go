package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// requireSame sends each step to PostgreSQL and through the proxy, and compares the answers message by message. An anonymous
// other client leaves its own unnamed statement on the server in between.
func requireSame(t *testing.T, c *pgtest.Cluster, p *testProxy, steps ...[]any) {
	t.Helper()
	direct, proxied, other := raw(t, c.URL("postgres", "postgres")), raw(t, p.url()), raw(t, p.url())
	for _, step := range steps {
		send := together(step...)
		want := direct.say(send...)
		require.Equal(t, want, proxied.say(send...), "%s", pgtest.Strings(decoded(t, send)))
		if want[len(want)-1] == "Z I" {
			require.Equal(t, "D other", other.say(together(parse("", "select 'other'"), run(""))...)[2])
		}
	}
}

// PgBouncer's #1555.
func TestPipeline_answersAreInTheOrderOfTheRequests(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		requireSame(t, c, bounded(t, c, 3),
			// Parses that the server is not asked for again, between others that it is.
			[]any{parse("a", "select 1"), parse("b", "select 2"), parse("c", "select 3"), syncNow()},
			[]any{closeStatement("a"), parse("a", "select 1"), bind("a"), closeStatement("b"), parse("b", "select 2"), describe("b"), execute(), syncNow()},
			[]any{closeStatement("a"), closeStatement("c"), run("b"), closeStatement("b"), syncNow()},
			[]any{parse("a", "select 1"), closeStatement("a"), parse("a", "select 2"), closeStatement("a"), syncNow(), run("a")},
			[]any{parse("a", "select 1"), parse("b", "select 2"), parse("c", "select 3"), parse("d", "select 4"), parse("e", "select 5"), run("a"), run("e"), run("b")},
			[]any{syncNow(), syncNow(), run("a"), syncNow(), query("select 0"), syncNow(), run("b"), query(""), run("c")},
			// Behind an error nothing is made up.
			[]any{bind("nope"), closeStatement("a"), parse("f", "select 6"), syncNow(), run("a"), run("f")},
			[]any{closeStatement("a"), bind("nope"), closeStatement("b"), syncNow(), run("a"), run("b")},
			[]any{closeStatement("b"), parse("b", "select 2"), bind("nope"), parse("c", "no"), syncNow(), run("b"), run("c")},
			// In a failed transaction nothing is prepared, and everything may be closed.
			[]any{query("begin"), bind("nope"), syncNow(), parse("g", "select 7"), syncNow(), closeStatement("c"), syncNow(), run("c"), query("rollback"), run("c"), run("g")},
			[]any{parse("begin", "begin"), parse("end", "rollback"), syncNow(), run("begin"), run("nope"), closeStatement("b"), parse("b", "select 2"), syncNow(), run("end"), run("b")},
			[]any{closeStatement("d"), syncNow(), parse("d", "select 'd'"), syncNow(), run("d"), closeStatement("d"), syncNow(), run("d")},
		)
	})
}

// A reset in front of a statement's Parse, in one write, as Npgsql sends it.
// PgBouncer's #1535 and #1543.
func TestPipeline_resetAheadOfParse(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		requireSame(t, c, poolOf(t, c, 1),
			[]any{parse("s", "select 1"), run("s")},
			[]any{query("discard all"), parse("s", "select 1"), describe("s"), syncNow(), run("s")},
			[]any{query("deallocate all"), parse("s", "select 2"), run("s"), run("s")},
			[]any{parse("", "deallocate all"), bind(""), execute(), parse("s", "select 3"), run("s"), run("s")},
			[]any{query("begin"), query("discard all"), query("rollback"), run("s")}, // refused
			[]any{query("deallocate s"), parse("s", "select 4"), run("s")},
			[]any{query("deallocate s"), query("deallocate s"), run("s"), parse("s", "select 5"), run("s")},
			[]any{parse("", "select 6"), syncNow(), query("discard all"), run(""), parse("", "select 7"), run("")},
			[]any{parse("x", "select 8"), query("deallocate all"), closeStatement("x"), parse("x", "select 9"), run("x")},
		)
	})
}

// After an error everything up to the Sync is skipped, also what arrives when the client has seen the error.
// PgBouncer's #759.
func TestPipeline_errorSkipsToTheSync(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		direct, a, b := raw(t, c.URL("postgres", "postgres")), raw(t, p.url()), raw(t, p.url())
		for _, step := range []struct{ before, behind []pgproto3.Message }{
			{[]pgproto3.Message{bind("nope")}, together(parse("s", "select 1"), run("s"))},
			{[]pgproto3.Message{parse("", "select 1/0"), bind(""), execute()}, together(parse("s", "select 1"), run("s"))},
			{[]pgproto3.Message{parse("s", "no")}, together(closeStatement("s"), closePortal(""), describe("s"), flushNow(), copyData("x"), copyDone(), run("s"))},
			{[]pgproto3.Message{bind("nope")}, together(skippedQuery("select 'skipped'"), flushNow(), skippedQuery("select"), syncNow())},
		} {
			for _, client := range []*rawClient{direct, a} {
				client.Send(append(step.before, flushNow())...)
			}
			want := pgtest.Strings(direct.ReceiveUntil('E'))
			require.Equal(t, want, pgtest.Strings(a.ReceiveUntil('E')))
			require.Equal(t, direct.say(step.behind...), a.say(step.behind...))
			again := together(run("s"), query("select 'alive'"))
			require.Equal(t, direct.say(again...), a.say(again...))
			require.Equal(t, "D b", b.say(query("select 'b'"))[1], "the server is free")
		}
	})
}

// A simple Query behind an extended request that fails is skipped by the server and gets no answer of its own.
func TestPipeline_simpleQueryBehindAFailure(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		requireSame(t, c, poolOf(t, c, 1),
			[]any{bind("nope"), skippedQuery("select 1"), syncNow()},
			[]any{bind("nope"), skippedQuery("select 1"), skippedQuery("select 2"), syncNow(), query("select 3")},
			[]any{parse("", "select 1"), query("select 2"), bind("nope"), skippedQuery("select 3"), syncNow(), query("select 4")},
			[]any{parse("s", "select 5"), bind("s"), query("select 6"), execute(), syncNow()}, // the Query closes the portal
			[]any{parse("", "begin"), bind(""), execute(), query("select 7"), query("select 1/0"), query("select 8"), syncNow(), query("rollback")},
			[]any{query("select 1/0; select 9"), run("s"), query("select 10; select 1/0; select 11"), run("s")},
		)
	})
}

// While one of a client's pipelined requests is not answered, its server is nobody else's.
// PgBouncer's #52 and #714.
func TestPipeline_serverIsKeptUntilTheLastSyncIsAnswered(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		a, b, lock := raw(t, p.url()), raw(t, p.url()), pgtest.Connect(t, c.URL("postgres", "postgres"))
		pid := a.pid()
		one(t, lock, "select pg_advisory_lock(59)")
		a.Send(together(parse("", "select 'first'"), run(""),
			parse("", "select pg_advisory_xact_lock_shared(59)"), run(""), parse("", "select 'last'"), run(""))...)
		require.Equal(t, []string{"1", "2", "D first", "C SELECT 1", "Z I"}, a.hear(1))
		b.Send(query("select pg_backend_pid()"))
		await(t, "b's wait", func() bool { return p.waiting() == 1 })
		one(t, lock, "select pg_advisory_unlock(59)")
		require.Equal(t, []string{"1", "2", "D", "C SELECT 1", "Z I", "1", "2", "D last", "C SELECT 1", "Z I"}, a.hear(2))
		require.Equal(t, []string{"T pg_backend_pid", pid, "C SELECT 1", "Z I"}, b.hear(1))
	})
}

// All requests of a pipeline are on their way before the first answer is back.
func TestPipeline_isNotSerialised(t *testing.T) {
	c := pgtest.Shared(t, 0)
	gate := openGate(t, c.Addr())
	p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=disable")), nil)
	a := raw(t, p.url())
	a.say(parse("s", "select $1::int"), syncNow())
	const segments = 100
	for name, segment := range map[string]func(i int) ([]pgproto3.Message, []string){
		"named": func(i int) ([]pgproto3.Message, []string) {
			return run("s", fmt.Sprint(i)), []string{"2", fmt.Sprintf("D %d", i), "C SELECT 1", "Z I"}
		},
		"unnamed": func(i int) ([]pgproto3.Message, []string) {
			return together(parse("", fmt.Sprintf("select %d", i)), run("")), []string{"1", "2", fmt.Sprintf("D %d", i), "C SELECT 1", "Z I"}
		},
		"newly named": func(i int) ([]pgproto3.Message, []string) {
			n := fmt.Sprint("n", i)
			return together(parse(n, fmt.Sprintf("select %d", i)), run(n)), []string{"1", "2", fmt.Sprintf("D %d", i), "C SELECT 1", "Z I"}
		},
		"failing": func(int) ([]pgproto3.Message, []string) {
			return run("s", "x"), []string{`E 22P02 invalid input syntax for type integer: "x"`, "Z I"}
		},
		"simple": func(i int) ([]pgproto3.Message, []string) {
			return []pgproto3.Message{query(fmt.Sprintf("select %d as n", i))}, []string{"T n", fmt.Sprintf("D %d", i), "C SELECT 1", "Z I"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.idle(t) // nothing of the proxy's own is on its way
			gate.hold()
			before := gate.seen()
			var want []string
			for i := range segments {
				send, heard := segment(i)
				a.Send(send...)
				want = append(want, heard...)
			}
			await(t, "all requests at the server", func() bool { return gate.seen()-before == segments })
			gate.release()
			require.Equal(t, want, a.hear(segments))
		})
	}
}

// Flush makes the server answer what it has; the client's server stays its own until the Sync, as postgres.js and asyncpg need.
func TestPipeline_flushWithoutSync(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		a, b := raw(t, p.url()), raw(t, p.url())
		b.say(parse("shared", "select 1"), syncNow())
		for round := range 3 {
			name := fmt.Sprint("s", round)
			a.Send(parse(name, "select $1::int as n"), describe(name), flushNow())
			a.Expect("1", "t", "T n")
			a.Send(bind(name, "7"), flushNow())
			a.Expect("2")
			a.Send(execute(), flushNow())
			a.Expect("D 7", "C SELECT 1")
			a.Send(flushNow(), closePortal(""), flushNow())
			a.Expect("3")
			// What the proxy answers itself, the server having been asked nothing.
			a.Send(parse("again"+name, "select $1::int as n"), closeStatement("nope"), flushNow())
			a.Expect("1", "3")
			b.Send(query("select 'waits'"))
			await(t, "b's wait", func() bool { return p.waiting() == 1 })
			a.Send(syncNow())
			a.Expect("Z I")
			require.Equal(t, "D waits", b.hear(1)[1])
			// The unnamed statement, over a Sync and with another client between.
			a.Send(parse("", "select 'mine'"), describe(""), flushNow())
			a.Expect("1", "t", "T ?column?")
			a.Send(syncNow())
			a.Expect("Z I")
			b.say(together(parse("", "select 'other'"), run(""))...)
			a.Send(bind(""), execute(), flushNow())
			a.Expect("2", "D mine", "C SELECT 1")
			a.Send(syncNow())
			a.Expect("Z I")
			// An error is told at once, and the rest skipped.
			a.Send(bind("nope"), bind(name, "1"), flushNow())
			a.Expect("E 26000")
			a.Send(execute(), flushNow(), syncNow())
			a.Expect("Z I")
		}
		// A Flush that nothing precedes needs no server.
		a.Send(flushNow(), flushNow(), closeStatement("s0"), flushNow())
		a.Expect("3")
		require.Equal(t, 1, p.idle(t))
		a.Send(syncNow())
		a.Expect("Z I")
	})
}

// Portals are suspended and go on, several side by side, until their transaction ends.
func TestPipeline_portalsWithRowLimits(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		requireSame(t, c, poolOf(t, c, 1),
			[]any{parse("s", "select generate_series($1::int, $1::int + 4) as n"), syncNow()},
			[]any{bind("s", "1"), executePortal("", 2), executePortal("", 2), executePortal("", 2), executePortal("", 2), syncNow(), executePortal("", 1), syncNow()},
			[]any{query("begin")},
			[]any{bindPortal("p", "s", "10"), bindPortal("q", "s", "20"), executePortal("p", 2), executePortal("q", 1), syncNow()},
			[]any{executePortal("p", 1), syncNow(), executePortal("q", 3), describePortal("q"), syncNow()},
			[]any{closePortal("p"), executePortal("q", 0), syncNow()},
			[]any{bindPortal("q", "s", "30"), syncNow()}, // the name is taken
			[]any{executePortal("q", 0), syncNow(), query("rollback"), executePortal("q", 0), syncNow()},
			[]any{query("begin"), query("declare c cursor for select generate_series(1, 5)"), query("fetch 2 from c")},
			[]any{describePortal("c"), executePortal("c", 2), syncNow(), query("fetch all from c"), query("commit")},
			[]any{parse("empty", ""), bind("empty"), describePortal(""), execute(), syncNow()},
			[]any{parse("none", "select where false"), bind("none"), describePortal(""), executePortal("", 5), syncNow()},
		)
	})
}

func TestPipeline_functionCall(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		oid := func(signature string) uint32 {
			return pgtest.Value[uint32](t, c, "select $1::regprocedure::oid", signature)
		}
		call := func(signature string, arguments ...string) pgproto3.Message {
			m := &pgproto3.FunctionCall{Function: oid(signature)}
			for _, a := range arguments {
				m.Arguments = append(m.Arguments, []byte(a))
			}
			return m
		}
		requireSame(t, c, poolOf(t, c, 1),
			[]any{call("int4pl(int4,int4)", "40", "2")},
			[]any{call("int4div(int4,int4)", "1", "0")},
			[]any{&pgproto3.FunctionCall{Function: 1}},
			[]any{call("upper(text)", strings.Repeat("long", 40_000)), call("upper(text)", "x"), syncNow()},
			[]any{parse("", "select 1"), bind(""), call("upper(text)", "between"), execute(), syncNow()},
			[]any{query("begin"), call("int4div(int4,int4)", "1", "0"), call("upper(text)", "no"), query("rollback"), call("upper(text)", "yes")},
		)
	})
}

// Notices, and parameters that a statement changes, arrive where PostgreSQL sends them, and only at whom they are for.
func TestPipeline_noticesAndParametersKeepTheirPlace(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		notice := "do $$ begin raise notice 'one'; raise warning 'two'; end $$"
		requireSame(t, c, poolOf(t, c, 1),
			[]any{query(notice)},
			[]any{parse("n", notice), run("n"), run("n")},
			[]any{query("select 1; " + notice + "; select 2")},
			[]any{query("rollback")}, // a warning
			[]any{query("set application_name to 'x'; select 1; set application_name to 'y'")},
			[]any{parse("", "set timezone to 'Asia/Tokyo'"), run("")},
			[]any{query("begin; set timezone to 'Europe/Rome'"), query("rollback")},
			[]any{query("set client_min_messages to error"), query(notice), query("reset client_min_messages")},
			[]any{query("do $$ begin raise notice '%', repeat('long', 100000); end $$")},
		)
	})
}
