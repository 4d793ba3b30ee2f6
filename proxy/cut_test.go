package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/session"
)

// step is what a client sends in one write, before it waits for the answer.
type step struct {
	send  []pgproto3.Message
	until string // types of messages: the answer ends when one of each has come, in this order
}

// exchanges are one of each kind. Wherever they are cut, an even number of rows has come into the table.
func exchanges(table string) map[string][]step {
	insert := "insert into " + table + " values ($1), ($2)"
	copyIn, copyOut := "copy "+table+" from stdin", "copy (values (1), (2)) to stdout"
	return map[string][]step{
		"simple": {
			{together(query("set work_mem to '5MB'")), "Z"},
			{together(query("begin")), "Z"},
			{together(query("insert into " + table + " values (1)")), "Z"},
			{together(query("insert into "+table+" values (2)"), query("commit")), "ZZ"},
		},
		"extended": {
			{together(parse("", "begin"), run("")), "Z"},
			{together(parse("", insert), describe(""), bind("", "1", "2"), execute(), flushNow()), "C"},
			{together(run("", "3", "4"), parse("", "commit"), run("")), "ZZ"},
		},
		"pipeline": {
			{together(parse("", "select 1/0"), bind(""), execute(), bind(""), syncNow(),
				parse("a", insert), run("a", "1", "2"), bind("a", "3", "4"), execute(), query("select 1"), syncNow()), "ZZZZ"},
		},
		"prepared": {
			{together(parse("s", insert), describe("s"), syncNow()), "Z"},
			{run("s", "1", "2"), "Z"},
			{together(parse("s", "select 1"), syncNow()), "Z"},
			{together(closeStatement("s"), run("s")), "Z"},
		},
		"copy in": {
			{together(query(copyIn)), "G"},
			{together(copyData("1\n"), copyData("2\n"), copyDone()), "Z"},
			{together(parse("", copyIn), bind(""), execute(), syncNow()), "G"},
			{together(copyData("3\n4\n"), copyDone(), syncNow()), "Z"},
		},
		"copy out": {
			{together(query(copyOut)), "Z"},
			{together(parse("", copyOut), run("")), "Z"},
		},
		"pinned": {
			{together(query("create temp table own (a int)"), query("select pg_advisory_lock(7)")), "ZZ"},
			{together(query("select 1")), "Z"},
		},
	}
}

// encoded are a step's bytes.
func (s step) encoded(t *testing.T) (b []byte) {
	t.Helper()
	for _, m := range s.send {
		var err error
		b, err = m.Encode(b)
		require.NoError(t, err)
	}
	return b
}

// perform sends so many bytes of an exchange, or all with -1, and returns the short forms of what has come back until then, or
// until the server was lost.
func perform(t *testing.T, c *pgtest.Client, steps []step, bytes int) (heard []string) {
	t.Helper()
	for _, s := range steps {
		b := s.encoded(t)
		if bytes >= 0 && bytes < len(b) {
			_ = c.Peer.SendBytes(b[:bytes])
			return heard
		}
		bytes -= len(b)
		if c.Peer.SendBytes(b) != nil {
			return heard
		}
		for ends := s.until; ends != ""; {
			m, err := c.Peer.Receive()
			if err != nil {
				require.NotContains(t, err.Error(), "timeout", "behind %q", heard)
				return heard
			}
			heard = append(heard, m.String())
			if lost[m.String()] {
				return heard
			}
			if m.Type == ends[0] {
				ends = ends[1:]
			}
		}
	}
	return heard
}

// cutting is a proxy with an exact bound, which the server enforces too, and a client of it that must notice nothing.
type cutting struct {
	*testProxy
	other *pgtest.Client
	check string // what the other client asks
}

// cutTable makes a table for a role, with a short name: each of its bytes is cut at. The role outlives it.
func cutTable(t *testing.T, c *pgtest.Cluster, role string) string {
	t.Helper()
	name := "c_" + role
	c.Exec(t, "create table "+name+" (a int); grant all on "+name+" to "+role)
	t.Cleanup(func() { c.Exec(t, "drop table "+name) })
	return name
}

// startCutting has as few connections as the mode lets the other client and one more have.
func startCutting(t *testing.T, c *pgtest.Cluster, mode session.Mode) (*cutting, map[string][]step) {
	t.Helper()
	connections := 1
	if mode == session.WholeSession {
		connections = 2
	}
	role := c.Role(t, "connection limit "+strconv.Itoa(connections))
	name := cutTable(t, c, role)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
		config.Mode, config.Pool.MaxConnections = mode, connections
		config.Pool.Hold = -1 // A dial that PostgreSQL refuses is told at once.
	})
	return &cutting{testProxy: p, other: p.loggedIn(t), check: "select current_setting('work_mem'), count(*) % 2, " +
		"(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) from " + name}, exchanges(name)
}

// undisturbed asks as the other client.
func (p *cutting) undisturbed(t *testing.T, where any) {
	t.Helper()
	const want = "T current_setting,?column?,count | D 4MB,0,0 | C SELECT 1 | Z I"
	require.Equal(t, want, texts(p.other.Query(p.check)), "cut at byte %v", where)
}

// atRest checks in the end that nothing is left of those who were cut.
func (p *cutting) atRest(t *testing.T, c *pgtest.Cluster) {
	t.Helper()
	await(t, "only the other client is there", func() bool { return p.Snapshot().Clients.All() == 1 }, p.testProxy)
	w := watch(t, c)
	await(t, "PostgreSQL sees no more than one connection", func() bool { return w.backends(p.upstream.User.Username()) == 1 }, p.testProxy)
	s := p.Snapshot()
	require.Zero(t, s.Totals.StateLeaks)
	require.Empty(t, s.Pinned)
	for _, e := range s.Errors {
		require.NotEqual(t, "53300", e.SQLState, "the bound was exceeded")
	}
}

// TestCut_clientAtEveryByte_disturbsNobody cuts the client when its earlier requests have been answered and the next one has
// come as far as the byte.
// PgBouncer's #1446 and #1520.
func TestCut_clientAtEveryByte_disturbsNobody(t *testing.T) {
	c := pgtest.Shared(t, 0)
	for modeName, mode := range modes() {
		for name := range exchanges("") {
			t.Run(modeName+"/"+name, func(t *testing.T) {
				t.Parallel()
				p, all := startCutting(t, c, mode)
				steps, total := all[name], 0
				for _, s := range steps {
					total += len(s.encoded(t))
				}
				for n := range total + 1 {
					client := p.loggedIn(t)
					perform(t, client, steps, n)
					if n%4 == 3 {
						require.NoError(t, client.Reset())
					} else {
						require.NoError(t, client.Conn.Close())
					}
					p.undisturbed(t, n)
				}
				p.atRest(t, c)
			})
		}
	}
}

// TestCut_clientAtEveryByteOfItsLogin_disturbsNobody has a driver log in, over a connection that takes so many bytes.
// PgBouncer's #1446 and #1520.
func TestCut_clientAtEveryByteOfItsLogin_disturbsNobody(t *testing.T) {
	own := newIdentity(t)
	for name, how := range map[string]struct {
		mode   string
		stride int64 // A TLS handshake is long, and another package's.
	}{"plain": {"disable", 1}, "TLS": {"require", 7}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
				own.offer(config)
				config.Auth.Method, config.Auth.Users = auth.SCRAM, listed(pgtest.Superuser)
				config.Pool.MaxConnections = 1
			})
			parsed, err := pgconn.ParseConfig(p.url("sslmode", how.mode))
			require.NoError(t, err)
			if parsed.TLSConfig != nil {
				parsed.TLSConfig.CurvePreferences = []tls.CurveID{tls.X25519} // It makes the shortest handshake.
			}
			observer := pgtest.Connect(t, p.url("sslmode", how.mode))
			logins := 0
			for n := int64(0); ; n += how.stride {
				fault := pgtest.Fault{After: n, Then: pgtest.Close}
				if n%4 == 3 {
					fault.Then = pgtest.Reset
				}
				parsed.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					var dialer net.Dialer
					conn, err := dialer.DialContext(ctx, network, addr)
					if err != nil {
						return nil, fmt.Errorf("dial: %w", err)
					}
					return pgtest.Break(conn, pgtest.Fault{}, fault), nil
				}
				conn, err := pgconn.ConnectConfig(t.Context(), parsed)
				require.Equal(t, "1", one(t, observer, "select 1"), "cut at byte %d", n)
				if err == nil {
					_ = conn.Close(context.WithoutCancel(t.Context())) // which may be cut
					break
				}
				logins++
			}
			require.Greater(t, logins, 50)
			await(t, "only the observer is there", func() bool { return p.Snapshot().Clients.All() == 1 }, p)
			require.Equal(t, 1, p.idle(t))
		})
	}
}
