package proxy_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// sqlxConn is one connection of sqlx, the Rust library: what it sends is written down from its source, as Rust cannot be
// built where these tests run.
type sqlxConn struct {
	*rawClient
	statements int      // given a name so far
	cache      []string // SQL of the cached statements, the one used last at the end
	names      map[string]string
	capacity   int // of the cache
}

// sqlxConnect logs in: a request for TLS that is declined (sslmode prefer), then the startup packet, its parameters in
// sqlx's order.
func sqlxConnect(t *testing.T, to string) *sqlxConn {
	t.Helper()
	u, err := url.Parse(to)
	require.NoError(t, err)
	c := &rawClient{Client: pgtest.Dial(t, u.Host), t: t}
	c.SendBytes([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f})
	var answer [1]byte
	_, err = io.ReadFull(c.Conn, answer[:])
	require.NoError(t, err)
	require.Equal(t, "N", string(answer[:]))
	body := []byte{0, 3, 0, 0}
	for _, s := range []string{
		"user", u.User.Username(), "database", strings.TrimPrefix(u.Path, "/"), "DateStyle", "ISO, MDY", "client_encoding", "UTF8",
		"TimeZone", "UTC", "extra_float_digits", "2", "application_name", "service",
	} {
		body = append(append(body, s...), 0)
	}
	body = append(body, 0)
	c.SendBytes(append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...))
	c.login = c.ReceiveUntil('Z')
	return &sqlxConn{rawClient: c, names: make(map[string]string), capacity: 100}
}

// exchange sends messages in one write and returns what comes up to so many ReadyForQuery, with the numbers of tables, which
// differ from one run to the next, left out.
func (c *sqlxConn) exchange(ready int, messages ...pgproto3.Message) (heard []string) {
	c.t.Helper()
	c.Send(messages...)
	for range ready {
		for _, m := range c.ReceiveUntil('Z') {
			decoded, err := m.Decode()
			require.NoError(c.t, err)
			if d, ok := decoded.(*pgproto3.RowDescription); ok {
				for i := range d.Fields {
					d.Fields[i].TableOID = 0
				}
				m.Body, err = d.Encode(nil)
				require.NoError(c.t, err)
			}
			heard = append(heard, fmt.Sprintf("%c %q", m.Type, m.Body))
		}
	}
	return heard
}

// ping is what a pool of sqlx sends before it hands a connection out (test_before_acquire, on by default).
func (c *sqlxConn) ping() []string { return c.exchange(1, syncNow()) }

// simple is how sqlx begins and ends transactions.
func (c *sqlxConn) simple(sql string) []string { return c.exchange(1, query(sql)) }

// fetch runs a query with 32-bit integers as its parameters. A statement that is not in the cache is prepared and described
// first, in a cycle of its own, and when the cache is full the one used longest ago is closed, in another.
func (c *sqlxConn) fetch(sql string, arguments ...int32) (heard []string) {
	name, cached := c.names[sql]
	if !cached {
		c.statements++
		name = fmt.Sprint("sqlx_s_", c.statements)
		heard = append(heard, c.prepare(name, sql, len(arguments))...)
		if heard[0][0] == 'E' {
			return heard
		}
		heard = append(heard, c.remember(name, sql)...)
	}
	return append(heard, c.execute(name, arguments)...)
}

// once runs a query that is not to be kept (persistent(false)): through the unnamed statement, in two cycles all the same.
func (c *sqlxConn) once(sql string, arguments ...int32) []string {
	return append(c.prepare("", sql, len(arguments)), c.execute("", arguments)...)
}

func (c *sqlxConn) prepare(name, sql string, parameters int) []string {
	types := make([]uint32, parameters)
	for i := range types {
		types[i] = 23 // int4
	}
	return c.exchange(1, &pgproto3.Parse{Name: name, Query: sql, ParameterOIDs: types}, describe(name), syncNow())
}

func (c *sqlxConn) execute(name string, arguments []int32) []string {
	b := &pgproto3.Bind{PreparedStatement: name, ParameterFormatCodes: []int16{1}, ResultFormatCodes: []int16{1}}
	for _, a := range arguments {
		b.Parameters = append(b.Parameters, binary.BigEndian.AppendUint32(nil, uint32(a)))
	}
	return c.exchange(1, b, execute(), closePortal(""), syncNow())
}

// remember puts a statement into the cache.
func (c *sqlxConn) remember(name, sql string) []string {
	if c.capacity == 0 {
		return nil // never used again, and never closed
	}
	c.names[sql] = name
	c.cache = append(c.cache, sql)
	if len(c.cache) <= c.capacity {
		return nil
	}
	oldest := c.cache[0]
	c.cache = c.cache[1:]
	gone := c.names[oldest]
	delete(c.names, oldest)
	return c.exchange(1, closeStatement(gone), syncNow())
}

// sqlxService is a day in the life of a service with a pool of three connections.
func sqlxService(t *testing.T, to string) (heard []string) {
	t.Helper()
	var pool []*sqlxConn
	for range 3 { // the pool warms up
		c := sqlxConnect(t, to)
		var told []string
		for _, m := range c.login {
			if m.Type != 'K' {
				told = append(told, m.String())
			}
		}
		slices.Sort(told) // PostgreSQL's order of parameters is not the same in all versions
		heard = append(heard, told...)
		pool = append(pool, c)
	}
	note := func(more []string) { heard = append(heard, more...) }

	note([]string{"migrate"})
	a := pool[0]
	note(a.ping())
	note(a.fetch("SELECT current_database()")[:2])
	note(a.fetch("SELECT pg_advisory_lock($1)", 7))
	note(a.simple("CREATE TABLE IF NOT EXISTS _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN NOT NULL)"))
	note(a.once("SELECT version FROM _sqlx_migrations WHERE success = false ORDER BY version LIMIT 1"))
	note(a.simple("BEGIN"))
	note(a.simple("CREATE TABLE item (id int PRIMARY KEY, owner int); INSERT INTO item SELECT n, n % 3 FROM generate_series(1, 30) n"))
	note(a.fetch("INSERT INTO _sqlx_migrations VALUES ($1, true)", 1))
	note(a.simple("COMMIT"))
	note(pool[1].ping())
	note(pool[1].fetch("SELECT pg_try_advisory_lock($1)", 7)) // somebody else migrates
	note(a.fetch("SELECT pg_advisory_unlock($1)", 7))

	note([]string{"the same names for other statements on each connection"})
	for round := range 3 {
		for i, c := range pool {
			note(c.ping())
			note(c.fetch(fmt.Sprintf("SELECT count(*), %d FROM item WHERE owner = $1", i), int32(i)))
			note(c.once("SELECT id FROM item WHERE owner = $1 ORDER BY id LIMIT $2", int32(i), int32(round+1)))
			note(c.fetch("SELECT count(*), -1 FROM item WHERE owner = $1", int32(i)))
		}
	}

	note([]string{"transactions, one of them dropped"})
	note(pool[1].simple("BEGIN"))
	note(pool[2].simple("BEGIN"))
	note(pool[1].fetch("UPDATE item SET owner = $1 WHERE id = $2 RETURNING id, owner", 9, 1))
	note(pool[2].fetch("SELECT owner FROM item WHERE id = $1", 1))
	note(pool[2].fetch("SELECT 1 / $1", 0))
	note(pool[2].fetch("SELECT owner FROM item WHERE id = $1", 1)) // in a failed transaction
	note(pool[2].fetch("SELECT 2 / $1", 1))
	note(pool[1].simple("COMMIT"))
	note(pool[2].exchange(2, query("ROLLBACK"), syncNow())) // queued by the drop, sent with the ping of the next use
	note(pool[2].fetch("SELECT owner FROM item WHERE id = $1", 1))
	note(pool[2].fetch("SELECT nothing FROM item"))
	note(pool[2].once("SELECT nothing FROM item")[:2])
	note(pool[2].ping())

	note([]string{"more statements than the cache holds"})
	pool[0].capacity = 5
	for i := range 12 {
		note(pool[0].fetch(fmt.Sprintf("SELECT $1 + %d", i), int32(i)))
		note(pool[0].fetch(fmt.Sprintf("SELECT $1 + %d", i/2), int32(i)))
	}
	note([]string{"no cache"})
	pool[1].capacity = 0
	for i := range 12 {
		note(pool[1].ping())
		note(pool[1].fetch("SELECT $1", int32(i)))
	}
	for _, c := range pool {
		c.Send(&pgproto3.Terminate{})
		c.ExpectEnd()
	}
	return heard
}

// What sqlx sends gets, through the proxy, the answers that PostgreSQL itself gives: the same bytes.
func TestSqlx_getsTheSameAnswers(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		want := sqlxService(t, c.URL(c.Database(t), pgtest.Superuser))
		for _, servers := range []int{2, 3} { // one that pins, for the migration, and at least one for the others
			database := c.Database(t)
			p := startFor(t, c.URL(database, pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = servers })
			got := sqlxService(t, p.url())
			require.Len(t, got, len(want))
			for i := range want {
				require.Equal(t, want[i], got[i], "%s", strings.Join(got[max(0, i-4):i], "\n"))
			}
		}
	})
}
