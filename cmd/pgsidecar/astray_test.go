package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// Servers that answer and must not be written to, through the whole program.

// says waits until the status contains a text.
func (f *followed) says(text string) {
	f.t.Helper()
	awaitThat(f.t, "status says: "+text, func() bool { _, out := f.ask("status"); return strings.Contains(out, text) })
}

// atRest waits until the only client has no server: what a database hides may have to be learned first, and every transaction
// is followed by a question until then.
func (f *followed) atRest() { f.says("clients: 1 idle, 0 active, 0 waiting") }

// client connects as soon as there is a primary.
func (f *followed) client() (conn *pgx.Conn) {
	f.t.Helper()
	awaitThat(f.t, "there is a primary", func() bool {
		c, err := pgtest.TryConnect(f.t, f.url)
		conn = c
		return err == nil
	})
	return conn
}

// answer returns the only value of a query that has to succeed.
func answer(t *testing.T, conn *pgx.Conn, sql string) (value string) {
	t.Helper()
	require.NoError(t, conn.QueryRow(context.Background(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&value))
	return value
}

// held checks that a statement gets no server, and that its client is told why.
func held(t *testing.T, conn *pgx.Conn, why string) {
	t.Helper()
	_, err := conn.Exec(context.Background(), "insert into t values (0)")
	var e *pgconn.PgError
	require.ErrorAs(t, err, &e)
	require.Equal(t, "57P03", e.Code)
	require.Contains(t, e.Message, why)
	require.False(t, conn.IsClosed())
}

// impatient holds clients for a short while only.
const impatient = "failover: {hold: 50ms}"

func TestFailover_primaryDemotedAndStillAnswering_isNotWrittenTo(t *testing.T) {
	one := pgtest.Start(t, pgtest.Config{})
	other := one.Standby(t, nil)
	one.Exec(t, "create table t (n int)")
	f := follow(t, "", one, other)
	conn := f.client()
	require.Equal(t, "false", answer(t, conn, "select pg_is_in_recovery()::text"))
	f.atRest()
	one.WaitForStandby(t, other)
	one.Stop(t, pgtest.Fast)
	other.Promote(t)
	one.Rewind(t, other) // It is a standby at the address of the primary, and answers SELECT 1.
	for range 20 {
		_, err := conn.Exec(context.Background(), "insert into t values (1)")
		require.NoError(t, err)
	}
	require.Equal(t, "20", answer(t, conn, "select count(*)::text from t"))
	f.says("is a standby")
}

func TestFailover_writesSwitchedOff_clientsAreHeldUntilTheyAreOnAgain(t *testing.T) {
	one := pgtest.Start(t, pgtest.Config{})
	other := one.Standby(t, nil)
	one.Exec(t, "create table t (n int)")
	f := followURL(t, impatient, "postgres://postgres@"+one.Addr()+","+other.Addr()+"/postgres?sslmode=disable&target_session_attrs=read-write")
	conn := f.client()
	require.Equal(t, "1", answer(t, conn, "select '1'"))
	one.Exec(t, "alter system set default_transaction_read_only to on")
	one.Exec(t, "select pg_reload_conf()")
	f.says("has writes switched off")
	held(t, conn, "has writes switched off")
	one.Exec(t, "alter system reset default_transaction_read_only")
	one.Exec(t, "select pg_reload_conf()")
	awaitThat(t, "writes go on", func() bool { _, err := conn.Exec(context.Background(), "insert into t values (1)"); return err == nil })
}

// The name of the primary suddenly leads to another database cluster, which is a primary, too.
func TestFailover_anotherClusterBehindTheName_isRefused(t *testing.T) {
	versions := pgtest.Versions(t)
	if len(versions) < 2 {
		t.Skip("clusters of one version are copies of each other here, and have the same identifier: it takes two versions")
	}
	one, stranger := pgtest.Start(t, pgtest.Config{Major: versions[0]}), pgtest.Start(t, pgtest.Config{Major: versions[1]})
	other := one.Standby(t, nil)
	for _, c := range []*pgtest.Cluster{one, stranger} {
		c.Exec(t, "create table t (n int)")
	}
	name := filepath.Join(t.TempDir(), "name")
	require.NoError(t, os.Symlink(one.SocketFile(), name))
	relay := pgtest.StartRelay(t, name)
	f := followURL(t, impatient, "postgres://"+pgcluster.Superuser+"@"+relay.Addr()+","+other.Addr()+"/postgres?sslmode=disable")
	conn := f.client()
	_, err := conn.Exec(context.Background(), "insert into t values (1)")
	require.NoError(t, err)
	f.atRest()
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.Symlink(stranger.SocketFile(), name))
	relay.Cut()
	f.says("belongs to another database cluster")
	held(t, conn, "belongs to another database cluster")
	require.Zero(t, pgtest.Value[int](t, stranger, "select count(*) from t"))
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.Symlink(one.SocketFile(), name))
	relay.Cut()
	awaitThat(t, "writes go on", func() bool { _, err := conn.Exec(context.Background(), "insert into t values (2)"); return err == nil })
	require.Zero(t, pgtest.Value[int](t, stranger, "select count(*) from t"))
}
