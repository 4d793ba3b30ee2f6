package proxy_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// replicated is a cluster that can be replicated from in both ways, for one test.
func replicated(t *testing.T) *pgtest.Cluster {
	t.Helper()
	return pgtest.Start(t, pgtest.Config{Settings: map[string]string{"wal_level": "logical"}})
}

// walsender connects for replication.
func walsender(t *testing.T, to string) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), to)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// stream reads logical decoding's output up to a text that it has to hold.
func stream(t *testing.T, conn *pgconn.PgConn, text string) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	for {
		m, err := conn.ReceiveMessage(ctx)
		require.NoError(t, err)
		if data, ok := m.(*pgproto3.CopyData); ok && data.Data[0] == 'w' && strings.Contains(string(data.Data), text) {
			return
		}
	}
}

func TestReplication_logicalDecodingStreams(t *testing.T) {
	c := replicated(t)
	c.Exec(t, "create table t (what text)")
	p := start(t, c, func(config *proxy.Config) { config.Pool.MaxConnections = 2 })
	conn := walsender(t, p.url("replication", "database"))
	system, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	require.NoError(t, err)
	require.Equal(t, "postgres", string(system[0].Rows[0][3]))
	_, err = conn.Exec(t.Context(), "CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL test_decoding").ReadAll()
	if err != nil && strings.Contains(err.Error(), "test_decoding") {
		t.Skip("this PostgreSQL comes without the extension test_decoding")
	}
	require.NoError(t, err)
	plain, err := conn.Exec(t.Context(), "select 1").ReadAll() // logical walsenders run SQL too
	require.NoError(t, err)
	require.Equal(t, "1", string(plain[0].Rows[0][0]))
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION SLOT s LOGICAL 0/0"})
	require.NoError(t, conn.Frontend().Flush())

	client := pgtest.Connect(t, p.url())
	for i := range 3 {
		what := fmt.Sprint("row ", i)
		one(t, client, "insert into t values ('"+what+"')")
		stream(t, conn, what)
	}
	one(t, client, "insert into t values (repeat('long row ', 100000))")
	stream(t, conn, strings.Repeat("long row ", 100_000))
	require.Equal(t, []int{1, 2}, []int{watch(t, c).count("select count(*) from pg_stat_replication"), servers(p)}, "it has a server of its own, under the bound")
	require.NoError(t, conn.Close(t.Context()))
	await(t, "its server ends with it", func() bool { return servers(p) == 1 })
}

// servers counts the proxy's connections to the server.
func servers(p *testProxy) (n int) {
	for _, pool := range p.Snapshot().Pools {
		n += pool.Idle + pool.Active + pool.Closing + pool.Dialing
	}
	return n
}

func TestReplication_ofPgoutputToASubscriber(t *testing.T) {
	publisher, subscriber := replicated(t), pgtest.Start(t, pgtest.Config{})
	publisher.Exec(t, "create table t (id int primary key); create publication p for table t; insert into t values (1)")
	p := start(t, publisher, nil)
	host, port, _ := strings.Cut(p.Addresses()[0], ":")
	subscriber.Exec(t, "create table t (id int primary key)")
	// Its first copy is one more walsender with SQL and COPY, and its apply worker one that stays.
	subscriber.Exec(t, fmt.Sprintf("create subscription s connection 'host=%s port=%s user=%s dbname=postgres' publication p", host, port, pgtest.Superuser))
	await(t, "the first copy", func() bool { return pgtest.Value[int](t, subscriber, "select count(*) from t") == 1 })
	publisher.Exec(t, "insert into t values (2)")
	await(t, "what comes later", func() bool { return pgtest.Value[int](t, subscriber, "select count(*) from t") == 2 })
	subscriber.Exec(t, "drop subscription s")
	require.Equal(t, 0, pgtest.Value[int](t, publisher, "select count(*) from pg_replication_slots"))
}

func TestReplication_physicalCopyOfACluster(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{Major: 15}) // the client programs of this machine are of that version
	program := pgtest.Program(t, "pg_basebackup")
	c.Exec(t, "create table t as select generate_series(1, 100000) as id")
	p := start(t, c, nil)
	dir := filepath.Join(t.TempDir(), "copy")
	out, err := exec.CommandContext(t.Context(), program, "-d", p.url(), "-D", dir, "-X", "stream", "--checkpoint=fast", "-v").CombinedOutput()
	require.NoError(t, err, string(out))
	require.FileExists(t, filepath.Join(dir, "PG_VERSION"))
	out, err = exec.CommandContext(t.Context(), pgtest.Program(t, "pg_verifybackup"), dir).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "backup successfully verified")
}

func TestReplication_walReceiverFollows(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{Major: 15})
	p := start(t, c, nil)
	dir := t.TempDir()
	receiver := exec.Command(pgtest.Program(t, "pg_receivewal"), "-d", p.url(), "-D", dir, "--synchronous", "-n")
	var output strings.Builder
	receiver.Stdout, receiver.Stderr = &output, &output
	require.NoError(t, receiver.Start())
	ended := started(receiver.Wait)
	server := watch(t, c)
	await(t, "the receiver", func() bool {
		return server.count("select count(*) from pg_stat_replication where state = 'streaming'") == 1
	})
	c.Exec(t, "create table t as select generate_series(1, 100000)")
	await(t, "all of it has been received", func() bool {
		return server.count("select count(*) from pg_stat_replication where flush_lsn >= pg_current_wal_lsn()") == 1
	})
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	require.NoError(t, receiver.Process.Signal(os.Interrupt))
	require.NoError(t, <-ended, output.String())
	await(t, "its server ends", func() bool { return servers(p) == 0 })
}

func TestReplication_isRefusedInTheServersWordsAndDisturbsNobody(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), nil)
	client := pgtest.Connect(t, p.url())
	for _, kind := range []string{"database", "true", "on", "1"} {
		direct := loginError(t, c.URL("postgres", role, "replication="+kind))
		require.Equal(t, "42501", direct.Code)
		refused := loginError(t, p.url("replication", kind))
		require.Equal(t, []string{"FATAL", direct.Code, direct.Message, direct.Detail}, []string{refused.Severity, refused.Code, refused.Message, refused.Detail})
		require.Equal(t, "1", one(t, client, "select 1"))
	}
	require.Equal(t, "22023", loginError(t, p.url("replication", "perhaps")).Code)
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url("replication", "false")), "select 1"), "that is none")
}

func TestReplication_countsAgainstTheBoundAndMakesIdleOnesGo(t *testing.T) {
	c := replicated(t)
	p := onOne(t, c)
	client := pgtest.Connect(t, p.url())
	conn := walsender(t, p.url("replication", "database"))
	require.Equal(t, 1, servers(p), "the idle one has been evicted")
	served := started(func() error { _, err := try(client, "select 1"); return err })
	await(t, "the other client waits", func() bool { return p.waiting() == 1 })
	require.NoError(t, conn.Close(t.Context()))
	require.NoError(t, <-served)
}

func TestReplication_receiverThatIsKilled_leavesNoServer(t *testing.T) {
	c := replicated(t)
	p := start(t, c, nil)
	conn := walsender(t, p.url("replication", "true"))
	system, err := conn.Exec(t.Context(), "IDENTIFY_SYSTEM").ReadAll()
	require.NoError(t, err)
	conn.Frontend().SendQuery(&pgproto3.Query{String: "START_REPLICATION " + string(system[0].Rows[0][2])})
	require.NoError(t, conn.Frontend().Flush())
	server := watch(t, c)
	await(t, "it streams", func() bool { return server.count("select count(*) from pg_stat_replication") == 1 })
	require.NoError(t, conn.Conn().Close())
	await(t, "its server ends", func() bool { return servers(p) == 0 && p.Snapshot().Clients.All() == 0 })
}
