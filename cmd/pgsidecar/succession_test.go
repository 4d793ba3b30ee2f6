package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
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
	next := &pod{t: p.t, name: p.name, dir: p.dir, grace: p.grace, stderr: new(buffer), exited: make(chan struct{})}
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

// TestSuccession_listeners_hearEachNotificationOnce notifies without pause while the listeners move.
func TestSuccession_listeners_hearEachNotificationOnce(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "listen", "PGSIDECAR_LOOPS=2", "PGSIDECAR_POOL_MAX_CONNECTIONS=8")
	listeners := make([]*pgtest.Client, 6)
	for i := range listeners {
		listeners[i], _ = p.raw()
		listeners[i].Query("listen a")
		if i%2 == 0 {
			listeners[i].Query("listen b; listen c")
			listeners[i].Query("unlisten c")
		}
	}
	notifier, err := pgx.Connect(t.Context(), cluster.URL("postgres", pgcluster.Superuser))
	require.NoError(t, err)
	stop, sent := make(chan struct{}), make(chan int, 1)
	go func() {
		n := 0
		for done := false; !done; n++ {
			_, err := notifier.Exec(t.Context(), fmt.Sprintf("notify a, '%d'; notify b, '%d'; notify c, '%d'", n, n, n))
			require.NoError(t, err)
			select {
			case <-stop:
				done = true
			default:
			}
		}
		sent <- n
	}()
	for range 3 {
		next := p.successor()
		p.awaitSuccession(next)
		require.Contains(t, p.stderr.String(), `msg="handed over" clients=6`)
		p = next
	}
	close(stop)
	total := <-sent
	require.NoError(t, notifier.Close(t.Context()))
	for i, c := range listeners {
		end := fmt.Sprint("end ", i) // The others hear of it, too.
		c.Send(&pgproto3.Query{String: "notify a, '" + end + "'"})
		heard := map[string][]string{}
		for last := ""; last != end; {
			m := c.Receive()
			if m.Type != 'A' {
				continue
			}
			decoded, err := m.Decode()
			require.NoError(t, err)
			n := decoded.(*pgproto3.NotificationResponse)
			if last = n.Payload; !strings.HasPrefix(last, "end") {
				heard[n.Channel] = append(heard[n.Channel], n.Payload)
			}
		}
		// The first notifications may have come before it listened.
		first, err := strconv.Atoi(heard["a"][0])
		require.NoError(t, err)
		require.Len(t, heard["a"], total-first, "listener %d, channel a: %d are missing or double", i, total-first-len(heard["a"]))
		for n, payload := range heard["a"] {
			require.Equal(t, strconv.Itoa(first+n), payload, "in their order")
		}
		require.Empty(t, heard["c"])
		if i%2 == 0 {
			require.Equal(t, heard["a"], heard["b"])
		} else {
			require.Empty(t, heard["b"])
		}
		require.NoError(t, c.Conn.Close())
	}
	p.end(cluster)
}

// asleep counts the queries that sleep.
func asleep(t *testing.T, cluster *pgtest.Cluster) int {
	t.Helper()
	return pgtest.Value[int](t, cluster, "select count(*)::int from pg_stat_activity where wait_event = 'PgSleep' and query like 'select pg_sleep(600)%'")
}

// awaitAsleep waits until so many queries sleep.
func awaitAsleep(t *testing.T, cluster *pgtest.Cluster, want int) {
	t.Helper()
	require.Eventually(t, func() bool { return asleep(t, cluster) == want }, time.Minute, 5*time.Millisecond)
}

var sleep = &pgproto3.Query{String: "select pg_sleep(600)"}

// TestSuccession_cancel_findsItsClientInEitherProcess cancels clients that have moved, and those that could not.
func TestSuccession_cancel_findsItsClientInEitherProcess(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "cancel")
	movedClient, movedLogin := p.raw()
	pinned, pinnedLogin := p.raw()
	pinned.Query("create temp table t ()")
	next := p.successor()
	p.awaitLog("handing over to a successor")
	next.awaitClients(1)

	movedClient.Send(sleep)
	awaitAsleep(t, cluster, 1)
	movedClient.Cancel(movedLogin)
	movedClient.Expect("T pg_sleep", "E 57014", "Z I")

	pinned.Send(sleep)
	awaitAsleep(t, cluster, 1)
	pinned.Cancel(pinnedLogin) // Reaches the successor, which passes it on.
	pinned.Expect("T pg_sleep", "E 57014", "Z I")

	unknown := slices.Clone(movedLogin)
	k := slices.IndexFunc(unknown, func(m pgtest.Message) bool { return m.Type == 'K' })
	unknown[k].Body = slices.Clone(unknown[k].Body)
	unknown[k].Body[7] ^= 1
	movedClient.Cancel(unknown) // Has no effect, and is answered all the same.

	pinned.Query("drop table t") // Nothing holds it any more: it moves.
	p.awaitSuccession(next)
	pinned.Send(sleep)
	awaitAsleep(t, cluster, 1)
	pinned.Cancel(pinnedLogin)
	pinned.Expect("T pg_sleep", "E 57014", "Z I")
	next.end(cluster)
}

// awaitClients waits until so many clients have moved to p.
func (p *pod) awaitClients(n int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		_, body, err := newClient(p.http()).ask(context.Background(), http.MethodGet, "/metrics")
		return err == nil && strings.Contains(string(body), fmt.Sprintf("pgsidecar_takeover_clients_total{direction=\"in\"} %d\n", n))
	}, time.Minute, 5*time.Millisecond, "%s", p.stderr)
}

// TestSuccession_whoCannotMove_staysUntilTheDeadline is about TLS, which the kernel knows nothing of, and pinned sessions.
func TestSuccession_whoCannotMove_staysUntilTheDeadline(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	dir := t.TempDir()
	ca, err := pgcluster.NewCA()
	require.NoError(t, err)
	issued, err := ca.Issue("localhost", "127.0.0.1")
	require.NoError(t, err)
	cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	require.NoError(t, os.WriteFile(cert, issued.Cert, 0o600))
	require.NoError(t, os.WriteFile(key, issued.Key, 0o600))
	p := newPodIn(t, cluster, dir, "stays", time.Minute, "PGSIDECAR_LISTEN=[127.0.0.1:0, "+dir+"]", "PGSIDECAR_DRAIN_TIMEOUT=8s",
		"PGSIDECAR_TAKEOVER_SOCKET="+filepath.Join(dir, "takeover"),
		"PGSIDECAR_POOL_MAX_CONNECTIONS=10", "PGSIDECAR_CLIENT_TLS_MODE=allow", "PGSIDECAR_CLIENT_TLS_CERT_FILE="+cert, "PGSIDECAR_CLIENT_TLS_KEY_FILE="+key)
	port := regexp.MustCompile(`msg=serving listen="\[127\.0\.0\.1:(\d+)`).FindStringSubmatch(p.stderr.String())[1]
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), "host=127.0.0.1 sslmode=require dbname=postgres user="+pgcluster.Superuser+" port="+port)
		require.NoError(t, err)
		return conn
	}
	encrypted, other := connect(), connect()
	pinned, _ := p.raw()
	pinned.Query("create temp table t ()")
	inBlock, _ := p.raw()
	inBlock.Query("begin")

	since := time.Now()
	next := p.successor()
	p.awaitLog("handing over to a successor")
	_, err = encrypted.Exec(t.Context(), "select 1")
	require.NoError(t, err, "%s", p.stderr)
	require.Equal(t, []string{"C INSERT 0 1", "Z I"}, pgtest.Strings(pinned.Query("insert into t default values")), "it has its table")
	require.NoError(t, connect().Close(t.Context()), "the successor speaks TLS, too")
	require.Equal(t, []string{"C COMMIT", "Z I"}, pgtest.Strings(inBlock.Query("commit")))
	next.awaitClients(1) // The one whose transaction has ended.
	require.NoError(t, other.Close(t.Context()))

	another := p.successor() // One at a time.
	<-another.exited
	require.Equal(t, exitFailure, another.cmd.ProcessState.ExitCode())
	require.Contains(t, another.stderr.String(), "it has just taken over itself")

	pinned.Expect("E 57P01")
	require.Equal(t, "57P01", sqlState(waitClosed(t.Context(), encrypted.PgConn())))
	require.GreaterOrEqual(t, time.Since(since), 8*time.Second)
	<-p.exited
	require.Zero(t, p.cmd.ProcessState.ExitCode())
	require.Contains(t, p.stderr.String(), "idle=2 finished=0 cut=0")
	require.Equal(t, []string{"T ?column?", "D 1", "C SELECT 1", "Z I"}, pgtest.Strings(inBlock.Query("select 1")))
	next.awaitLog("msg=\"taken over\"")
	next.end(cluster)
}

// TestSuccession_successorFails_nothingHasChanged starts successors that cannot be.
func TestSuccession_successorFails_nothingHasChanged(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "fails")
	c, _ := p.raw()
	c.Query("set my.own = 'mine'")
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, bad := range map[string]struct {
		environ []string
		code    int
		want    string
		limit   string
	}{
		"a configuration that cannot be used": {[]string{"PGSIDECAR_POOL_MAX_CONNECTIONS=-1"}, exitUsage, "PGSIDECAR_POOL_MAX_CONNECTIONS: -1 is out of range", ""},
		"no socket":                           {[]string{"PGSIDECAR_TAKEOVER_SOCKET="}, exitUsage, "takeover.socket: is not set", ""},
		"too few descriptors":                 {[]string{"PGSIDECAR_POOL_MAX_CONNECTIONS=1000"}, exitFailure, "RLIMIT_NOFILE", "ulimit -n 256; "},
		"an address that is taken":            {[]string{"PGSIDECAR_LISTEN=[" + p.dir + ", " + taken.Addr().String() + "]"}, exitFailure, "address already in use", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next := p.limitedSuccessor(bad.limit, bad.environ...)
			<-next.exited
			require.Equal(t, bad.code, next.cmd.ProcessState.ExitCode(), "%s", next.stderr)
			require.Contains(t, next.stderr.String(), bad.want)
			require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
			another, _ := p.raw()
			require.Contains(t, pgtest.Strings(another.Query("select 1")), "D 1")
			require.NoError(t, another.Conn.Close())
			require.Equal(t, "serving", p.phase())
		})
	}
	p.end(cluster)
}

// TestSuccession_successorKilled_theOtherServesOn kills successors at random moments.
func TestSuccession_successorKilled_theOtherServesOn(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "killed", "PGSIDECAR_DRAIN_TIMEOUT=1h")
	pinned, _ := p.raw() // Keeps the old process alive.
	pinned.Query("create temp table t ()")
	for i := range 8 {
		clients := make([]*pgtest.Client, 20)
		for i := range clients {
			clients[i], _ = p.raw()
		}
		next := p.successor()
		if i > 0 { // Before that it is still starting.
			require.Eventually(t, func() bool { return strings.Count(p.stderr.String(), "handing over to a successor") == i }, time.Minute, time.Millisecond)
		}
		<-time.After(time.Duration(i-1) * 3 * time.Millisecond)
		require.NoError(t, next.cmd.Process.Kill())
		<-next.exited
		require.Eventually(t, func() bool {
			c, err := p.connect(t.Context())
			return err == nil && c.Close(t.Context()) == nil
		}, time.Minute, 5*time.Millisecond, "%s", p.stderr)
		served := 0
		for _, c := range clients { // One that had moved is gone with who had it; all others are served.
			if c.Peer.Send(&pgproto3.Query{String: "select 1"}) == nil && c.Peer.Expect("T ?column?", "D 1", "C SELECT 1", "Z I") == nil {
				served++
			}
			_ = c.Conn.Close()
		}
		t.Log("killed after", (i-1)*3, "ms: served on", served, "of", len(clients))
		require.Contains(t, pgtest.Strings(pinned.Query("select 1 from t")), "C SELECT 0")
	}
	require.NoError(t, pinned.Conn.Close())
	last := p.successor()
	p.awaitSuccession(last)
	last.end(cluster)
}

// TestSuccession_predecessorKilled_theSuccessorServes kills the old process in the midst of it.
func TestSuccession_predecessorKilled_theSuccessorServes(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "orphan", "PGSIDECAR_POOL_MAX_CONNECTIONS=1", "PGSIDECAR_DRAIN_TIMEOUT=1h")
	client, _ := p.raw()
	pinned, _ := p.raw()
	pinned.Query("create temp table t ()") // Has the only connection.
	next := p.successor()
	next.awaitClients(1)
	require.NoError(t, p.cmd.Process.Kill())
	<-p.exited
	require.Equal(t, []string{"T ?column?", "D 1", "C SELECT 1", "Z I"}, pgtest.Strings(client.Query("select 1")))
	pinned.ExpectEnd()
	last := next.successor() // It has a place of its own in the line.
	next.awaitSuccession(last)
	last.end(cluster)
}

// TestSuccession_garbageOnTheSocket_disturbsNobody writes to the takeover socket what no successor would.
func TestSuccession_garbageOnTheSocket_disturbsNobody(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "garbage")
	c, _ := p.raw()
	for _, garbage := range []string{"GET / HTTP/1.0\r\n\r\n", "pgsc\x01\xff\x00\x00", strings.Repeat("\x00", 100_000), "pgsc\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02[]"} {
		stranger := pgtest.Dial(t, filepath.Join(p.dir, "takeover"))
		_, _ = stranger.Conn.Write([]byte(garbage)) // It may be cut off before it has written all.
		stranger.CloseWrite()
		stranger.ExpectEnd()
		require.Contains(t, pgtest.Strings(c.Query("select 1")), "D 1")
	}
	require.Contains(t, p.stderr.String(), "no handover, everything stays as it was")
	next := p.successor()
	p.awaitSuccession(next)
	next.end(cluster)
}

// TestSuccession_nobodyThere_startsAsUsual is the first start of a service that always says --takeover.
func TestSuccession_nobodyThere_startsAsUsual(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "first")
	p.end(cluster)
	next := p.successor()
	next.awaitLog("nobody to take over from")
	next.awaitLog("msg=serving")
	c, _ := next.raw()
	require.Contains(t, pgtest.Strings(c.Query("select 1")), "D 1")
	require.NoError(t, c.Conn.Close())
	next.end(cluster)
}

// TestSuccession_detached_isWhatSystemdNeeds reloads as the unit does: a command that ends when the new process serves, and a new
// main process that systemd is told of.
func TestSuccession_detached_isWhatSystemdNeeds(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	notify := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: notify})
	require.NoError(t, err)
	defer told.Close()
	hear := func() string {
		require.NoError(t, told.SetReadDeadline(time.Now().Add(time.Minute)))
		buf := make([]byte, 100)
		n, err := told.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	p := newGeneration(t, cluster, "detached", "NOTIFY_SOCKET="+notify)
	require.Equal(t, "READY=1", hear())
	c, _ := p.raw()
	c.Query("set my.own = 'mine'")
	reload := func(environ ...string) (code int, stderr string) {
		file, err := os.CreateTemp(t.TempDir(), "stderr")
		require.NoError(t, err)
		defer file.Close()
		command := exec.Command(os.Args[0], "run", "--takeover", "--detach")
		command.Env, command.Stderr = append(append([]string(nil), p.cmd.Env...), environ...), file
		_ = command.Run() // The code says it.
		text, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		return command.ProcessState.ExitCode(), string(text)
	}

	code, stderr := reload("PGSIDECAR_POOL_MAX_CONNECTIONS=none")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "PGSIDECAR_POOL_MAX_CONNECTIONS")
	require.Equal(t, "serving", p.phase())

	code, stderr = reload()
	require.Equal(t, exitOK, code, stderr)
	mainPID, found := strings.CutPrefix(hear(), "MAINPID=")
	require.True(t, found)
	require.Equal(t, "READY=1", hear())
	pid, err := strconv.Atoi(mainPID)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	<-p.exited
	require.Zero(t, p.cmd.ProcessState.ExitCode())
	require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
	c.Expect("E 57P01")
	require.Equal(t, "STOPPING=1", hear())
	c.ExpectEnd()
}
