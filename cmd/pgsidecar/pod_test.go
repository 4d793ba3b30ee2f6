package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// asProgram makes the test binary be pgsidecar: what is killed and waited for has to be a process of its own, and this one
// has the race detector.
const asProgram = "PGSIDECAR_TEST_AS_PROGRAM"

// pod is a sidecar that runs as a process, and what the kubelet would do with it.
type pod struct {
	t      *testing.T
	name   string // Its application_name at the server.
	user   string // As whom clients log in.
	dir    string // Of its sockets.
	grace  time.Duration
	cmd    *exec.Cmd
	stderr *buffer
	exited chan struct{} // Closed when the process has ended.
}

// newPod starts a sidecar and returns when its startup probe has passed, as the kubelet would wait to start the application.
func newPod(t *testing.T, cluster *pgtest.Cluster, name string, grace time.Duration, environ ...string) *pod {
	t.Helper()
	return newPodIn(t, cluster, t.TempDir(), name, grace, environ...)
}

// newPodIn is newPod with a directory for the sockets.
func newPodIn(t *testing.T, cluster *pgtest.Cluster, dir, name string, grace time.Duration, environ ...string) *pod {
	t.Helper()
	p := describe(t, cluster, dir, name, grace, environ...)
	p.start(p.ready)
	return p
}

// describe makes a sidecar that is not started.
func describe(t *testing.T, cluster *pgtest.Cluster, dir, name string, grace time.Duration, environ ...string) *pod {
	t.Helper()
	p := &pod{t: t, name: name, user: pgcluster.Superuser, dir: dir, grace: grace, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append([]string{
		"GORACE=atexit_sleep_ms=10", // A whole second otherwise, at each end.
		asProgram + "=1", "DATABASE_URL=" + cluster.URL("postgres", pgcluster.Superuser) + "&application_name=" + name,
		"PGSIDECAR_LISTEN=" + dir, "PGSIDECAR_HTTP_LISTEN=" + p.http(), "PGSIDECAR_POOL_MAX_CONNECTIONS=4",
	}, environ...)
	return p
}

// ready tells whether its startup probe has passed.
func (p *pod) ready() bool { return p.probe("/readyz") == http.StatusOK }

// start starts the process and returns when it is ready. The test ends it.
func (p *pod) start(ready func() bool) {
	p.t.Helper()
	p.stderr, p.exited = new(buffer), make(chan struct{})
	t := p.t
	p.cmd.Stderr = p.stderr
	require.NoError(t, p.cmd.Start())
	go p.wait()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // It has ended, unless the test has failed.
		<-p.exited
	})
	for ctx := t.Context(); !ready(); {
		select {
		case <-p.exited:
			require.Fail(t, "the sidecar has not started", "%s", p.stderr)
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// wait is the goroutine that notes the end of the process.
func (p *pod) wait() {
	_ = p.cmd.Wait() // ProcessState says how it ended.
	close(p.exited)
}

func (p *pod) http() string { return filepath.Join(p.dir, "http") }

// probe returns the status code of a probe, 0 without an answer.
func (p *pod) probe(path string) int {
	code, _, err := newClient(p.http()).ask(context.Background(), http.MethodGet, path)
	if err != nil {
		return 0
	}
	return code
}

// phase returns the phase that the status tells.
func (p *pod) phase() string {
	_, body, _ := newClient(p.http()).ask(context.Background(), http.MethodGet, "/status")
	for _, phase := range []string{"serving", "noticed", "lingering", "draining", "closing"} {
		if strings.Contains(string(body), `"phase": "`+phase+`"`) {
			return phase
		}
	}
	return ""
}

func (p *pod) signal() { require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM)) }

// await waits for the end of the process within what is left of the grace period, and checks that it leaves nothing behind.
func (p *pod) await(cluster *pgtest.Cluster, since time.Time) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(time.Until(since.Add(p.grace))):
		require.Fail(p.t, "the kubelet would have killed it", "%s", p.stderr)
	}
	require.Zero(p.t, p.cmd.ProcessState.ExitCode(), "%s", p.stderr)
	require.Zero(p.t, pgtest.Value[int](p.t, cluster, "select count(*)::int from pg_stat_activity where application_name = $1", p.name),
		"connections are left at the server: %s", p.stderr)
}

// connect is a client of the pod.
func (p *pod) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, "host="+p.dir+" port=6432 user="+p.user+" dbname=postgres")
}

// application is workers that run transactions until they are told to stop; then each ends what it is at, opens one more
// connection to finish its work, as applications do, and leaves.
type application struct {
	stop chan struct{}
	done sync.WaitGroup
	ran  atomic.Int64
	errs chan error

	tolerant bool // Failures are counted, and the worker tries again.
	failed   failures
}

// failures counts what a tolerant application has met. At most one login a worker is tried every retryEvery.
type failures struct{ logins, transactions atomic.Int64 }

const retryEvery = 10 * time.Millisecond

// errLogin marks a failure to log in.
var errLogin = errors.New("connect")

func (p *pod) application(workers int) *application {
	return p.run(&application{}, workers)
}

// run starts the workers of an application.
func (p *pod) run(a *application, workers int) *application {
	a.stop, a.errs = make(chan struct{}), make(chan error, workers)
	for i := range workers {
		a.done.Go(func() {
			if err := a.work(p, i); err != nil {
				a.errs <- err
			}
		})
	}
	return a
}

// work is the goroutine of one worker.
func (a *application) work(p *pod, worker int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		last := false
		select {
		case <-a.stop:
			last = true
		default:
		}
		err := a.connection(ctx, p, worker, last)
		if err != nil && a.tolerant {
			a.count(err)
			<-time.After(retryEvery)
			err = nil
		}
		if err != nil || last {
			return err
		}
	}
}

func (a *application) count(err error) {
	if errors.Is(err, errLogin) {
		a.failed.logins.Add(1)
		return
	}
	a.failed.transactions.Add(1)
}

// connection runs some transactions on one connection.
func (a *application) connection(ctx context.Context, p *pod, worker int, last bool) error {
	conn, err := p.connect(ctx)
	if err != nil {
		return fmt.Errorf("%w (last: %t): %w", errLogin, last, err)
	}
	for range 20 {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "update work set n = n + 1 where worker = $1", worker); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "select pg_sleep(0.002)")
			return err
		})
		if err != nil {
			return errors.Join(fmt.Errorf("transaction (last: %t): %w", last, err), conn.Close(ctx))
		}
		a.ran.Add(1)
		select {
		case <-a.stop:
			if !last {
				return conn.Close(ctx)
			}
		default:
		}
	}
	return conn.Close(ctx)
}

// end tells the application to end, and waits for that.
func (a *application) end(t *testing.T) {
	t.Helper()
	close(a.stop)
	a.done.Wait()
	close(a.errs)
	for err := range a.errs {
		require.NoError(t, err)
	}
	require.Positive(t, a.ran.Load())
}

// asking runs a statement on a connection of its own; what comes of it is sent once. Whatever it returns, COPY data too, is
// read and thrown away.
func (p *pod) asking(ctx context.Context, t *testing.T, sql string) <-chan error {
	t.Helper()
	conn, err := p.connect(ctx)
	require.NoError(t, err)
	result := make(chan error, 1)
	go func() {
		_, err := conn.PgConn().CopyTo(ctx, io.Discard, sql)
		result <- err
		_ = conn.Close(ctx) // It has been closed by the other side.
	}()
	return result
}

// waitClosed reads from a connection on which nothing was asked until it is closed, and returns why.
func waitClosed(ctx context.Context, conn *pgconn.PgConn) error {
	for {
		if err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
	}
}

// sqlState returns the SQLSTATE of an error.
func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}
