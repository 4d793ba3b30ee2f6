package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy/stats"
)

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	pgtest.Main(m)
}

const databaseURL = "DATABASE_URL=postgres://app:secret@127.0.0.1:1/app"

// fakeProxy is a proxy that does as the test says, to see what the process asks of it.
type fakeProxy struct {
	listenErr error
	listening chan struct{}                   // Closed by Listen; HTTP is served by then.
	serveErr  chan error                      // What Serve returns, once there is something.
	shutdown  func(ctx context.Context) error // Nil ends Serve at once.

	phase    atomic.Uint32 // A stats.Phase.
	cut      atomic.Bool   // The shutdown's time was over.
	reloaded chan config.Config
	once     sync.Once
}

func newFake() *fakeProxy {
	return &fakeProxy{
		listening: make(chan struct{}), serveErr: make(chan error, 1), reloaded: make(chan config.Config, 9),
	}
}

func (f *fakeProxy) Listen(context.Context) error {
	close(f.listening)
	return f.listenErr
}

func (f *fakeProxy) Addresses() []string         { return nil }
func (f *fakeProxy) Serve(context.Context) error { return <-f.serveErr }
func (f *fakeProxy) Emptied() time.Time          { return time.Time{} }
func (f *fakeProxy) Enter(phase stats.Phase)     { f.phase.Store(uint32(phase)) }

func (f *fakeProxy) Ready() error {
	if phase := stats.Phase(f.phase.Load()); phase >= stats.Lingering {
		return fmt.Errorf("the proxy is %s", phase)
	}
	return nil
}

func (f *fakeProxy) Snapshot() stats.Snapshot {
	return stats.Snapshot{
		Phase: stats.Phase(f.phase.Load()), Limit: 20, Clients: stats.Clients{Active: 3},
		Pools: []stats.PoolSnapshot{{Database: "app\x1b[31m", User: "alice", Active: 3, Transactions: 42}},
		PinnedClients: []stats.PinnedClient{{
			Client: "127.0.0.1:5", Application: "re\tport", Database: "app", User: "alice", Reason: "advisory lock",
			Statement: "select pg_advisory_lock(?)", Since: time.Now().Add(-time.Hour),
		}},
		PinningStatements: []stats.PinningStatement{{
			PinnedClient: stats.PinnedClient{Database: "app", User: "alice", Reason: "LOAD", Statement: "load ?", Since: time.Now()}, Count: 7,
		}},
	}
}

func (f *fakeProxy) Shutdown(ctx context.Context) error {
	var err error
	if f.shutdown != nil {
		err = f.shutdown(ctx)
	}
	f.cut.Store(err != nil)
	f.end()
	return err
}

func (f *fakeProxy) end() { f.once.Do(func() { f.serveErr <- nil }) }

func (f *fakeProxy) open(config.Config, *slog.Logger) (parts, error) {
	return parts{serving: f, observed: f, ending: f, reload: func(c config.Config) error { f.reloaded <- c; return nil }}, nil
}

// running is an invocation of run that goes on.
type running struct {
	t       *testing.T
	signals chan os.Signal
	code    chan int
	stderr  *buffer
	socket  string // Where HTTP is served.
	file    string // The configuration.
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// start runs the program with the fake and the configuration until the test ends it.
func start(t *testing.T, open opener, content string, environ ...string) *running {
	t.Helper()
	dir := t.TempDir() // Names of tests are kept short enough for the sockets in it.
	r := &running{
		t: t, signals: make(chan os.Signal), code: make(chan int, 1), stderr: new(buffer),
		socket: filepath.Join(dir, "http"), file: filepath.Join(dir, "pgsidecar.yaml"),
	}
	r.write(content)
	in := invocation{
		args: []string{"--config", r.file}, environ: append([]string{databaseURL, "PGSIDECAR_HTTP_LISTEN=" + r.socket, "PGSIDECAR_LISTEN=" + dir}, environ...),
		stdout: new(buffer), stderr: r.stderr, signals: r.signals, open: open,
	}
	go func() { r.code <- run(context.WithoutCancel(t.Context()), in) }()
	return r
}

func (r *running) write(content string) {
	r.t.Helper()
	require.NoError(r.t, os.WriteFile(r.file, []byte(content), 0o600))
}

// end waits for the exit code.
func (r *running) end(want int) {
	r.t.Helper()
	require.Equal(r.t, want, <-r.code, "%s", r.stderr)
}

// ask runs a command that asks the proxy, and returns its exit code and what it printed.
func (r *running) ask(args ...string) (int, string) {
	r.t.Helper()
	return call(append(args, "--http", r.socket), nil)
}

// call runs the program to its end.
func call(args, environ []string) (int, string) {
	var out buffer
	code := run(context.Background(), invocation{args: args, environ: environ, stdout: &out, stderr: &out, open: openProxy})
	return code, out.String()
}

func lines(text string) []string { return strings.Split(strings.TrimSpace(text), "\n") }
