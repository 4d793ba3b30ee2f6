package pgtest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"pgsidecar/internal/pgcluster"
)

// Connect opens a connection that is closed when the test ends.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := TryConnect(t, url)
	check(t, err)
	return conn
}

// TryConnect is Connect for tests that expect it to fail.
func TryConnect(t testing.TB, url string) (*pgx.Conn, error) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { closeConn(conn) })
	return conn, nil
}

func closeConn(conn *pgx.Conn) {
	ctx, cancel := bounded()
	defer cancel()
	_ = conn.Close(ctx) // The test may have closed it, or its server.
}

// Exec runs SQL as the superuser in the database postgres, past any proxy. Without args it may be several statements.
func (c *Cluster) Exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	c.ExecIn(t, "postgres", sql, args...)
}

// ExecIn is Exec in another database.
func (c *Cluster) ExecIn(t testing.TB, database, sql string, args ...any) {
	t.Helper()
	c.asSuperuser(t, database, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// Query runs a statement as the superuser in the database postgres and returns its rows, all values in text form; NULL is "".
func (c *Cluster) Query(t testing.TB, sql string) [][]string {
	t.Helper()
	var rows [][]string
	c.asSuperuser(t, "postgres", func(ctx context.Context, conn *pgx.Conn) error {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			return err
		}
		for _, row := range results[len(results)-1].Rows {
			texts := make([]string, len(row))
			for i, value := range row {
				texts[i] = string(value)
			}
			rows = append(rows, texts)
		}
		return nil
	})
	return rows
}

// Value runs a statement as the superuser in the database postgres and returns the one value of its one row.
func Value[T any](t testing.TB, c *Cluster, sql string, args ...any) T {
	t.Helper()
	var value T
	c.asSuperuser(t, "postgres", func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, sql, args...).Scan(&value)
	})
	return value
}

// asSuperuser runs a function on a connection over the unix socket.
func (c *Cluster) asSuperuser(t testing.TB, database string, run func(ctx context.Context, conn *pgx.Conn) error) {
	t.Helper()
	ctx, cancel := bounded()
	defer cancel()
	conn, err := pgx.Connect(ctx, c.SocketURL(database, Superuser))
	check(t, err)
	defer func() { _ = conn.Close(ctx) }()
	check(t, run(ctx, conn))
}

// Database creates a database with a name of its own and drops it, with force, when the test ends.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	name := uniqueName("db")
	c.Exec(t, "CREATE DATABASE "+name)
	t.Cleanup(func() {
		if c.Running() {
			c.Exec(t, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		}
	})
	return name
}

// Role creates a role with a name of its own, LOGIN and Password(name), and drops it when the test ends. The options, such as
// "SUPERUSER", go into CREATE ROLE. It owns nothing, so create its database first, or let it own what is in one.
func (c *Cluster) Role(t testing.TB, options ...string) string {
	t.Helper()
	name := uniqueName("role")
	c.Exec(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' %s", name, Password(name), strings.Join(options, " ")))
	t.Cleanup(func() {
		if c.Running() {
			c.Exec(t, "DROP ROLE IF EXISTS "+name)
		}
	})
	return name
}

// Password is the password of a role that Role made, and of the superuser.
func Password(user string) string { return pgcluster.Password(user) }

// names counts the names given out, because tests run in parallel on one cluster.
//
//nolint:gochecknoglobals // See above.
var names atomic.Int64

func uniqueName(kind string) string { return fmt.Sprintf("%s_%d", kind, names.Add(1)) }
