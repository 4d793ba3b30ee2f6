package proxy_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// patience is how long a test waits for what others are about to do. It is long because machines that run tests are busy.
const patience = 30 * time.Second

// await waits, in the test's goroutine, until a condition holds. When it does not, the state of the watched proxies is told.
func await(t testing.TB, what string, condition func() bool, watched ...*testProxy) {
	t.Helper()
	limit, tick := time.NewTimer(patience), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-limit.C:
			for _, p := range watched {
				s := p.Snapshot()
				t.Logf("clients %+v, pools %+v, pinned %v", s.Clients, s.Pools, s.Pinned)
			}
			t.Fatalf("not seen within %v: %s", patience, what)
		}
	}
}

// as is url for another database and user.
func (p *testProxy) as(t testing.TB, database, user string, params ...string) string {
	t.Helper()
	u, err := url.Parse(p.url(params...))
	require.NoError(t, err)
	u.Path, u.User = "/"+database, url.UserPassword(user, pgtest.Password(user))
	return u.String()
}

// spaced writes the spaces in a URL as libpq and pgconn read them.
func spaced(url string) string { return strings.ReplaceAll(url, "+", "%20") }

// waiting tells how many clients wait for a server.
func (p *testProxy) waiting() int { return p.Snapshot().Clients.Waiting }

// witness looks at a server past the proxy.
type witness struct {
	t    testing.TB
	conn *pgx.Conn
}

func watch(t testing.TB, c *pgtest.Cluster) *witness {
	t.Helper()
	return &witness{t: t, conn: pgtest.Connect(t, c.SocketURL("postgres", pgtest.Superuser))}
}

// count runs a query that returns a number.
func (w *witness) count(sql string, args ...any) (n int) {
	w.t.Helper()
	require.NoError(w.t, w.conn.QueryRow(context.Background(), sql, args...).Scan(&n))
	return n
}

// backends counts the server processes of a role.
func (w *witness) backends(role string) int {
	w.t.Helper()
	return w.count("select count(*) from pg_stat_activity where usename = $1", role)
}

// terminate ends the server processes that a condition on pg_stat_activity selects, and returns how many they were.
func (w *witness) terminate(where string, args ...any) int {
	w.t.Helper()
	return w.count("select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() and "+where, args...)
}

// remove ends the server processes of a role, and returns when they are gone.
func (w *witness) remove(role string) {
	w.t.Helper()
	await(w.t, "the server processes end", func() bool { return w.terminate("usename = $1", role) == 0 })
}

// pidOf returns the process that serves a client's query.
func pidOf(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	return one(t, conn, "select pg_backend_pid()")
}

// refusal runs a query that has to fail, in the simple protocol, and returns the error.
func refusal(t *testing.T, conn *pgx.Conn, sql string) *pgconn.PgError {
	t.Helper()
	_, err := conn.PgConn().Exec(context.WithoutCancel(t.Context()), sql).ReadAll()
	return pgError(t, err)
}

// pgError is the server's or the proxy's own error in err.
func pgError(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	return e
}

// loginError is what a login is refused with.
func loginError(t *testing.T, to string) *pgconn.PgError {
	t.Helper()
	_, err := pgtest.TryConnect(t, to)
	return pgError(t, err)
}

// texts are the short forms of messages as one text.
func texts(messages []pgtest.Message) string { return strings.Join(pgtest.Strings(messages), " | ") }

// started runs f in a goroutine of its own and returns where its result comes out.
func started[T any](f func() T) <-chan T {
	out := make(chan T, 1)
	go func() { out <- f() }()
	return out
}

// try runs a query in the simple protocol, for goroutines other than the test's.
func try(conn *pgx.Conn, sql string) (string, error) {
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return "", err
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return "", nil
	}
	return string(last.Rows[0][0]), nil
}
