package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// Two clients share one server. Each prepares its unnamed statement, waits, and executes it, with the other one's in between.
// A proxy that leaves the unnamed statement to the server runs the other client's SQL here, without an error.
func TestUnnamed_interleavedClientsRunTheirOwn(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		a, b := raw(t, p.url()), raw(t, p.url())
		for i := range 250 { // more than a server holds
			forA, forB := fmt.Sprintf("select 'a', %d", i), fmt.Sprintf("select 'b', %d", i)
			require.Equal(t, []string{"1", "t", "T ?column?,?column?", "Z I"}, a.say(parse("", forA), describe(""), syncNow()))
			b.say(parse("", forB), describe(""), syncNow())
			for range 1 + i%2 {
				require.Equal(t, []string{"2", fmt.Sprintf("D a,%d", i), "C SELECT 1", "Z I"}, a.say(run("")...))
				require.Equal(t, []string{"2", fmt.Sprintf("D b,%d", i), "C SELECT 1", "Z I"}, b.say(run("")...))
			}
		}
		require.EqualValues(t, 1, p.Snapshot().ServerConnects)
	})
}

// Many drivers at once, each with statements of its own text, in modes that prepare the unnamed statement in one request and
// use it in the next.
func TestUnnamed_twentyDriversOnTwoServers(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	const clients, rounds = 20, 60
	var all sync.WaitGroup
	faults := make(chan error, clients)
	for i := range clients {
		conn := pgtest.Connect(t, p.url("default_query_exec_mode", "describe_exec"))
		all.Go(func() { faults <- unnamedRounds(t.Context(), conn, i, rounds) })
	}
	all.Wait()
	for range clients {
		require.NoError(t, <-faults)
	}
	require.NotZero(t, p.Snapshot().Totals.ReparsesUnnamed, "statements met servers that did not have them")
}

func unnamedRounds(ctx context.Context, conn *pgx.Conn, client, rounds int) error {
	for round := range rounds {
		var who, what, parameter int
		sql := fmt.Sprintf("select %d, %d, $1::int", client, round)
		if err := conn.QueryRow(ctx, sql, -round).Scan(&who, &what, &parameter); err != nil {
			return fmt.Errorf("client %d, round %d: %w", client, round, err)
		}
		if who != client || what != round || parameter != -round {
			return fmt.Errorf("client %d, round %d: got %d, %d, %d", client, round, who, what, parameter)
		}
	}
	return nil
}

// The unnamed statement lives and dies as on a connection of the client's own, whatever happens on the server meanwhile.
func TestUnnamed_livesAsLongAsWithoutAProxy(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		direct := raw(t, c.URL("postgres", "postgres"))
		a, b := raw(t, p.url()), raw(t, p.url())
		for _, step := range [][]any{
			{run("")},
			{parse("", "select 1"), syncNow()},
			{run("")},
			{run(""), run("")},
			{parse("n", "select 2"), syncNow()}, // a named one changes nothing
			{run("n")},
			{run("")},
			{query("select 3")}, // a simple query drops it
			{run("")},
			{parse("", "select 4"), syncNow()},
			{parse("", "syntax error"), syncNow()}, // so does a Parse that fails
			{run("")},
			{parse("", "select 5"), syncNow()},
			{closeStatement(""), syncNow()},
			{run("")},
			{parse("", "select 6"), syncNow()},
			{bind("nope"), skippedQuery("select 'skipped'"), closeStatement(""), parse("", "select 'skipped'"), syncNow()},
			{run("")}, // what was skipped has not dropped it
			{parse("", "select 7"), bind("nope"), syncNow()},
			{run("")},
			{parse("", "select 1/0"), bind(""), execute(), syncNow()},
			{run("")},
			{parse("", "begin"), bind(""), execute(), syncNow()},
			{parse("", "select 8"), describe(""), syncNow()},
			{run("")},
			{bind("nope"), syncNow()},
			{run("")},
			{parse("end", "rollback"), syncNow()},
			{parse("", "rollback"), bind(""), execute(), syncNow()},
			{run("")},
			{parse("", "select 9"), syncNow()},
			{query("")}, // the empty query, which the proxy answers itself, drops it too
			{run("")},
			{parse("", "select 10"), syncNow()},
			{query("discard all")},
			{run("")},
			{parse("", "select $1::int"), syncNow()},
			{bind("", "11"), execute(), bind("", "12"), execute(), syncNow()},
			{bind("", "x"), syncNow()},
			{bind("", "13"), execute(), syncNow()},
		} {
			send := together(step...)
			require.Equal(t, direct.say(send...), a.say(send...), "%s", pgtest.Strings(decoded(t, send)))
			// In between, b leaves its own on the server, unless a is in a transaction.
			if direct.say(syncNow())[0] == "Z I" {
				require.Equal(t, "D b's", b.say(together(parse("", "select 'b''s'"), run(""))...)[2])
			}
		}
	})
}

// Pipelines in which the fate of the unnamed statement hangs on requests that have not been answered yet.
func TestUnnamed_pipelinesWithErrors(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		direct := raw(t, c.URL("postgres", "postgres"))
		a, b := raw(t, p.url()), raw(t, p.url())
		for _, step := range [][]any{
			{parse("", "select 1"), syncNow(), run(""), run("")},
			{parse("", "no"), syncNow(), run(""), parse("", "select 2"), run("")},
			{parse("", "no"), syncNow(), parse("", "select 3"), syncNow(), run("")},
			{parse("", "no"), syncNow(), parse("", "select 4"), run(""), run("")},
			{run("")},
			{bind("nope"), skippedQuery("select 5"), syncNow(), run("")},
			{query("select 6"), run("")},
			{parse("", "select 7"), query("select 1/0"), run("")},
			{parse("", "select 8"), syncNow(), closeStatement(""), run("")},
			{parse("", "select 9"), bind("nope"), closeStatement(""), syncNow(), run("")},
			{parse("n", "select 10"), syncNow(), bind("n"), execute(), describe(""), syncNow()},
			{parse("", "select 11"), syncNow(), bind("n"), execute(), bind(""), execute(), syncNow(), closeStatement("n"), syncNow()},
		} {
			send := together(step...)
			require.Equal(t, "D b's", b.say(together(parse("", "select 'b''s'"), run(""))...)[2])
			require.Equal(t, direct.say(send...), a.say(send...), "%s", pgtest.Strings(decoded(t, send)))
			require.Equal(t, "D b's", b.say(run("")...)[1])
		}
	})
}

// The queries that the proxy itself puts on a client's server drop the server's unnamed statement, not the client's.
func TestUnnamed_survivesTheProxysOwnQueries(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 1)
		a, b := raw(t, p.url(), "application_name=a"), raw(t, p.url(), "application_name=b")
		show := "select current_setting('application_name') || $1"
		a.say(parse("", show), describe(""), syncNow())
		for range 3 {
			require.Equal(t, "D b!", b.say(together(parse("", show), bind("", "!"), execute(), syncNow())...)[2])
			require.Equal(t, "D a?", a.say(bind("", "?"), execute(), syncNow())[1], "after a replay of settings")
		}
		a.say(parse("set", "select set_config('work_mem', '7MB', false)"), bind("set"), execute(), syncNow())
		require.Equal(t, "D a?", a.say(bind("", "?"), execute(), syncNow())[1], "after an audit")
		a.say(parse("temp", "create temp table kept (n int)"), bind("temp"), execute(), syncNow())
		for range 2 {
			require.Equal(t, "D a?", a.say(bind("", "?"), execute(), syncNow())[1], "pinned")
		}
		require.NotEmpty(t, p.Snapshot().Pinned)
	})
}

// A statement that is too large to be kept exists on one server only, where the client finds it until it lets it go.
func TestUnnamed_tooLargeToBeKept(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	a, b := raw(t, p.url()), raw(t, p.url())
	sql := "select $1::text /* " + strings.Repeat("x", 2<<20) + " */"
	a.say(parse("named", sql), parse("", sql), describe(""), syncNow())
	for i := range 5 {
		b.say(parse("", "select 'b'"), syncNow())
		require.Equal(t, fmt.Sprintf("D %d", i), a.say(bind("", fmt.Sprint(i)), execute(), syncNow())[1])
		require.Equal(t, fmt.Sprintf("D n%d", i), a.say(bind("named", fmt.Sprintf("n%d", i)), execute(), syncNow())[1])
		require.Equal(t, "D b", b.say(run("")...)[1])
	}
	require.NotEmpty(t, p.Snapshot().Pinned)
	a.say(parse("", "select 1"), closeStatement("named"), syncNow())
	await(t, "an end of the pin", func() bool { return len(p.Snapshot().Pinned) == 0 })
	require.Equal(t, "D 1", a.say(run("")...)[1])
}
