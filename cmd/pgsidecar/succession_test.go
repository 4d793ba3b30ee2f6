package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// upgrades is how many upgrades in a row are run; PGSIDECAR_UPGRADES asks for more.
func upgrades(t *testing.T) int {
	t.Helper()
	if text := os.Getenv("PGSIDECAR_UPGRADES"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		return n
	}
	return 3
}

// newGeneration starts a proxy that may be succeeded.
func newGeneration(t *testing.T, cluster *pgtest.Cluster, name string, environ ...string) *pod {
	t.Helper()
	dir := t.TempDir()
	return newPodIn(t, cluster, dir, name, time.Minute, append([]string{"PGSIDECAR_TAKEOVER_SOCKET=" + filepath.Join(dir, "takeover")}, environ...)...)
}

// successor starts a process that takes over from p, with the same environment and what is added to it.
func (p *pod) successor(environ ...string) *pod {
	p.t.Helper()
	return p.limitedSuccessor("", environ...)
}

// limitedSuccessor is successor with a command of the shell before it.
func (p *pod) limitedSuccessor(limit string, environ ...string) *pod {
	p.t.Helper()
	next := &pod{t: p.t, name: p.name, user: p.user, dir: p.dir, grace: p.grace, stderr: new(buffer), exited: make(chan struct{})}
	next.cmd = exec.Command("sh", "-c", limit+`exec "$0" run --takeover`, os.Args[0])
	next.cmd.Env = append(append([]string(nil), p.cmd.Env...), environ...)
	next.cmd.Stderr = next.stderr
	require.NoError(p.t, next.cmd.Start())
	go next.wait()
	p.t.Cleanup(func() {
		_ = next.cmd.Process.Kill()
		<-next.exited
	})
	return next
}

// awaitSuccession waits until p has nothing left to do, as everything is next's.
func (p *pod) awaitSuccession(next *pod) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-next.exited:
		require.Fail(p.t, "the successor has ended", "%s\n%s", next.stderr, p.stderr)
	case <-time.After(time.Minute):
		require.Fail(p.t, "the predecessor has not ended", "%s\n%s", next.stderr, p.stderr)
	}
	require.Zero(p.t, p.cmd.ProcessState.ExitCode(), "%s", p.stderr)
	require.Contains(p.t, p.stderr.String(), "idle=0 finished=0 cut=0")
	next.awaitLog("msg=\"taken over\"")
	require.NotContains(p.t, next.stderr.String(), "level=ERROR")
}

// awaitLog waits for a line.
func (p *pod) awaitLog(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.stderr.String(), text) }, time.Minute, 5*time.Millisecond, "%s", p.stderr)
}

// bench runs pgbench through the proxy until the test is done with its upgrades, and then checks that nothing has failed.
func (p *pod) bench(ctx context.Context, t *testing.T, protocol string, clients int) (await func()) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	command := exec.CommandContext(ctx, pgtest.Program(t, "pgbench"), "-n", "-b", "tpcb-like", "-M", protocol, "-c", strconv.Itoa(clients), "-j", strconv.Itoa(clients), // A thread each: pgbench waits in PQprepare.
		"-T", "600", "-P", "1", "-h", p.dir, "-p", "6432", "-U", pgcluster.Superuser, "postgres")
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	out := new(buffer)
	command.Stdout, command.Stderr = out, out
	require.NoError(t, command.Start())
	t.Cleanup(stop)
	require.Eventually(t, func() bool { return strings.Contains(out.String(), "progress:") }, time.Minute, 5*time.Millisecond, "%s", out)
	return func() {
		t.Helper()
		stop()
		_ = command.Wait() // Ended by a signal.
		require.NotContains(t, out.String(), "error", protocol)
		require.NotContains(t, out.String(), "aborted", protocol)
		require.Regexp(t, `progress: .* tps, .* 0 failed`, out.String())
	}
}

// TestSuccession_pgbenchRunsThrough_nothingFails is the promise of the handover: a hundred clients in all three protocols, and
// those that connect meanwhile, run through upgrades in a row.
func TestSuccession_pgbenchRunsThrough_nothingFails(t *testing.T) {
	const most = 6
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "bench", "PGSIDECAR_POOL_MAX_CONNECTIONS="+strconv.Itoa(most), "PGSIDECAR_LOOPS=2")
	command := exec.CommandContext(t.Context(), pgtest.Program(t, "pgbench"), "-i", "-s", "5", "-q", cluster.URL("postgres", pgcluster.Superuser))
	out, err := command.CombinedOutput()
	require.NoError(t, err, string(out))
	total := workTable(t, cluster, workers)

	application := p.application(workers)
	var done []func()
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		done = append(done, p.bench(t.Context(), t, protocol, 34))
	}
	bound := watchBound(t, cluster, "bench")
	for range upgrades(t) {
		next := p.successor()
		p.awaitSuccession(next)
		require.Equal(t, http.StatusOK, next.probe("/readyz"))
		before := application.ran.Load()
		require.Eventually(t, func() bool { return application.ran.Load() > before+20 }, time.Minute, 5*time.Millisecond, "it is served as before")
		p = next
	}
	application.end(t)
	for _, one := range done {
		one()
	}
	require.LessOrEqual(t, bound(), most, "PostgreSQL never sees more connections than one process may have")
	require.Equal(t, application.ran.Load(), total(), "each transaction that was acknowledged is there, once")
	p.signal()
	p.await(cluster, time.Now())
}

// watchBound watches how many connections the proxies have, and returns the most that it has seen.
func watchBound(t *testing.T, cluster *pgtest.Cluster, name string) (most func() int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), cluster.URL("postgres", pgcluster.Superuser))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	seen := make(chan int, 1)
	go func() {
		highest := 0
		for ctx.Err() == nil {
			var n int
			if conn.QueryRow(ctx, "select count(*)::int from pg_stat_activity where application_name = $1", name).Scan(&n) == nil {
				highest = max(highest, n)
			}
		}
		seen <- highest
	}()
	t.Cleanup(stop)
	return func() int {
		stop()
		return <-seen
	}
}

// raw is a client that sends what it is told to.
func (p *pod) raw(parameters ...string) (c *pgtest.Client, login []pgtest.Message) {
	p.t.Helper()
	c = pgtest.Dial(p.t, filepath.Join(p.dir, ".s.PGSQL.6432"))
	login = c.Login("postgres", pgcluster.Superuser, parameters...)
	require.Equal(p.t, "Z I", login[len(login)-1].String())
	return c, login
}

// end ends the last process of a line.
func (p *pod) end(cluster *pgtest.Cluster) {
	p.t.Helper()
	p.signal()
	p.await(cluster, time.Now())
}

// TestSuccession_session_movesWithAllThatItHolds takes clients through several processes.
func TestSuccession_session_movesWithAllThatItHolds(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "session")
	idle, _ := p.raw() // Never asks for anything.
	c, _ := p.raw("search_path=pg_catalog", "client_encoding=LATIN1")
	c.Query("set timezone = 'Asia/Tokyo'; set my.own = '\xe4'")
	c.Query("set datestyle = 'German'")
	c.Send(&pgproto3.Parse{Name: "named", Query: "select $1::int + 1, '2020-01-31'::date, '\xe4'"},
		&pgproto3.Parse{Query: "select 'nameless'"}, &pgproto3.Sync{})
	c.Expect("1", "1", "Z I")
	unread, _ := p.raw() // Has sent a part of a message that is wanted whole.
	unread.SendBytes([]byte("Q\x00\x00\x00\x0dsele"))
	for range 3 {
		next := p.successor()
		p.awaitSuccession(next)
		require.Contains(t, p.stderr.String(), `msg="handed over" clients=3`)
		p = next
		c.Send(&pgproto3.Bind{}, &pgproto3.Execute{},
			&pgproto3.Bind{PreparedStatement: "named", Parameters: [][]byte{[]byte("41")}}, &pgproto3.Execute{}, &pgproto3.Sync{})
		c.Expect("2", "D nameless", "C SELECT 1", "2", "D 42,31.01.2020,\xe4", "C SELECT 1", "Z I")
		c.Send(&pgproto3.Parse{Name: "named", Query: "select 1"}, &pgproto3.Sync{})
		c.Expect("E 42P05", "Z I")
		c.Send(&pgproto3.Parse{Query: "select 'nameless'"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{})
		c.Expect("1", "2", "D nameless", "C SELECT 1", "Z I")
		c.Send(&pgproto3.Parse{Name: "settings", Query: "select current_setting('search_path'), current_setting('timezone'), current_setting('my.own'), current_setting('client_encoding')"},
			&pgproto3.Bind{PreparedStatement: "settings"}, &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'S', Name: "settings"}, &pgproto3.Sync{})
		c.Expect("1", "2", "D pg_catalog,Asia/Tokyo,\xe4,LATIN1", "C SELECT 1", "3", "Z I")
	}
	c.Query("reset timezone")
	require.NotContains(t, pgtest.Strings(c.Query("show timezone")), "D Asia/Tokyo")
	require.Contains(t, pgtest.Strings(c.Query("show search_path")), "D pg_catalog", "what it has come with")
	unread.SendBytes([]byte("ct 1\x00"))
	unread.Expect("T ?column?", "D 1", "C SELECT 1", "Z I")
	require.Contains(t, pgtest.Strings(idle.Query("show application_name")), "D session")
	p.end(cluster)
}
