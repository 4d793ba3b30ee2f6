package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// bouncerGrace is the grace period of the pods that are compared: short, as all of it passes where somebody does not leave.
const bouncerGrace = 10 * time.Second

// TestRollout_pgbouncerInThePod runs the same rollouts with either proxy in the pod, and logs what came of them. It runs with
// PGSIDECAR_ROLLOUTS only. PgBouncer is the program that PGBOUNCER names, else the one on the PATH.
func TestRollout_pgbouncerInThePod_forComparison(t *testing.T) {
	if os.Getenv("PGSIDECAR_ROLLOUTS") == "" {
		t.Skip("make rollouts runs it")
	}
	program := os.Getenv("PGBOUNCER")
	if program == "" {
		program = "pgbouncer"
	}
	bouncer, err := exec.LookPath(program)
	if err != nil {
		t.Skip("PgBouncer is neither on the PATH nor where PGBOUNCER says")
	}
	cluster := pgtest.Start(t, pgtest.Config{})
	bouncers := func(classic bool) func(int) *pod {
		return func(i int) *pod { return newBouncer(t, cluster, bouncer, fmt.Sprintf("bouncer_%t_%d", classic, i)) }
	}
	pods := func(classic bool) func(int) *pod {
		environ := []string{"PGSIDECAR_DRAIN_TIMEOUT=5s", "PGSIDECAR_DRAIN_POD_GRACE=10s"}
		if classic {
			environ = append(environ, "PGSIDECAR_LIFECYCLE=classic", "PGSIDECAR_DRAIN_MIN_LINGER=300ms", "PGSIDECAR_DRAIN_QUIET_PERIOD=300ms")
		}
		return func(i int) *pod {
			return newPod(t, cluster, fmt.Sprintf("sidecar_%t_%d", classic, i), bouncerGrace, environ...)
		}
	}
	for _, classic := range []bool{false, true} {
		sidecar := restarts(t, cluster, classic, pods(classic))
		other := restarts(t, cluster, classic, bouncers(classic))
		t.Logf("classic %t: pgsidecar %s; PgBouncer %s", classic, sidecar, other)
		require.Zero(t, sidecar.logins+sidecar.transactions, "pgsidecar fails nobody")
		require.Zero(t, sidecar.killed)
	}
	t.Logf("clients that stay: pgsidecar %v", staying(t, pods(false)(1000)))
	t.Logf("clients that stay: PgBouncer %v", staying(t, bouncers(false)(1000)))
}

// newBouncer starts PgBouncer as a sidecar. It has a role of its own, by which its connections are known at the server.
func newBouncer(t *testing.T, cluster *pgtest.Cluster, program, name string) *pod {
	t.Helper()
	cluster.Exec(t, "create role "+name+" superuser login")
	return startBouncer(t, program, name, fmt.Sprintf("host=%s port=%d user=%s", cluster.Host(), cluster.Port(), name))
}

// startBouncer starts PgBouncer for a user, in front of what a connection string names. Its file is pgbouncer.ini in its directory.
func startBouncer(t *testing.T, program, name, target string) *pod {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // It runs as another account.
	require.NoError(t, os.Chmod(dir, 0o777))
	ini := filepath.Join(dir, "pgbouncer.ini")
	configureBouncer(t, dir, target)
	p := &pod{t: t, name: name, user: name, dir: dir, grace: bouncerGrace, cmd: exec.Command(program, "-q", ini)}
	if os.Geteuid() == 0 { // It refuses to serve as root.
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	p.start(func() bool {
		conn, err := p.connect(t.Context())
		if err == nil {
			err = conn.Close(t.Context())
		}
		return err == nil
	})
	return p
}

// configureBouncer writes PgBouncer's file: pools of four, as short a patience with servers as it can have, and no other limit.
func configureBouncer(t *testing.T, dir, target string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pgbouncer.ini"), fmt.Appendf(nil, "[databases]\n* = %s\n[pgbouncer]\nlisten_addr =\n"+
		"unix_socket_dir = %s\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 4\nmax_prepared_statements = 200\n"+
		"server_connect_timeout = 2\nserver_login_retry = 0.1\ntcp_user_timeout = 2000\n", target, dir), 0o644))
}

// restarted is what came of restarts.
type restarted struct {
	restarts, harmed     int // harmed: those in which anything failed.
	ran                  int64
	logins, transactions int64 // That failed.
	killed               int   // Had not ended within the grace period.
	slowest              time.Duration
}

func (r *restarted) String() string {
	return fmt.Sprintf("%d restarts, %d with failures: %d transactions, %d failed; %d logins failed; %d killed; slowest end %s",
		r.restarts, r.harmed, r.ran, r.transactions, r.logins, r.killed, r.slowest.Round(time.Millisecond))
}

// restarts restarts pods in the order of the kubelet, with an application that goes on after failures.
func restarts(t *testing.T, cluster *pgtest.Cluster, classic bool, newPod func(int) *pod) *restarted {
	t.Helper()
	sum := new(restarted)
	total := workTable(t, cluster, workers)
	tolerant := func(p *pod) *application { return p.run(&application{tolerant: true}, workers) }
	old := newPod(0)
	app := tolerant(old)
	for i := range rollouts(t) {
		next := newPod(i + 1)
		nextApp := tolerant(next)
		begun := time.Now()
		if classic { // Both get SIGTERM; the application works on for a while.
			old.signal()
			before := app.tried()
			require.Eventually(t, func() bool { return app.tried() > before+50 }, time.Minute, 5*time.Millisecond)
		}
		app.end(t)
		if !classic {
			begun = time.Now()
			old.signal()
		}
		sum.add(app, old.ended(begun), time.Since(begun))
		old, app = next, nextApp
	}
	app.end(t)
	sum.ran += app.ran.Load()
	old.signal()
	old.ended(time.Now())
	require.GreaterOrEqual(t, total(), sum.ran, "what was acknowledged is there")
	return sum
}

func (r *restarted) add(a *application, inTime bool, took time.Duration) {
	r.restarts++
	r.ran += a.ran.Load()
	r.logins += a.failed.logins.Load()
	r.transactions += a.failed.transactions.Load()
	if a.failed.logins.Load()+a.failed.transactions.Load() > 0 {
		r.harmed++
	}
	if !inTime {
		r.killed++
	}
	r.slowest = max(r.slowest, took)
}

// tried returns how much a tolerant application has done or failed to do.
func (a *application) tried() int64 {
	return a.ran.Load() + a.failed.logins.Load() + a.failed.transactions.Load()
}

// ended waits for the end of the process, and kills it as the kubelet does when the grace period is over.
func (p *pod) ended(since time.Time) (inTime bool) {
	select {
	case <-p.exited:
		return true
	case <-time.After(time.Until(since.Add(p.grace))):
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	return false
}

// staying ends a pod that has clients of each kind, and returns what each was told and when.
func staying(t *testing.T, p *pod) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	told := map[string]string{}
	idle, err := p.connect(ctx)
	require.NoError(t, err)
	open, err := p.connect(ctx)
	require.NoError(t, err)
	_, err = open.Exec(ctx, "begin; select 1")
	require.NoError(t, err)
	slow := p.asking(ctx, t, "select pg_sleep(60)")
	<-time.After(100 * time.Millisecond) // It is being run by now; PgBouncer has nobody to ask.
	begun := time.Now()
	p.signal()
	result := make(chan [2]string, 3)
	note := func(what string, err error) {
		result <- [2]string{what, fmt.Sprintf("%s after %s", sqlState(err), time.Since(begun).Round(100*time.Millisecond))}
	}
	go func() { note("idle", waitClosed(ctx, idle.PgConn())) }()
	go func() { note("transaction held open", waitClosed(ctx, open.PgConn())) }()
	go func() { note("slow query", <-slow) }()
	require.Eventually(t, func() bool { // The signal takes its time.
		_, err = p.connect(ctx)
		return err != nil
	}, time.Minute, time.Millisecond)
	told["new"] = sqlState(err)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		told["new"] = "nobody listens"
	}
	told["in time"] = strconv.FormatBool(p.ended(begun))
	for range 3 {
		r := <-result
		told[r[0]] = r[1]
	}
	return told
}
