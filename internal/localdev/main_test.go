package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// proxyEnv makes this test binary play pgsidecar: it is ready once it has reached DATABASE_URL, and ends with SIGTERM. With the
// value "fail" it ends at once.
const proxyEnv = "LOCALDEV_TEST_PROXY"

func TestMain(m *testing.M) {
	switch os.Getenv(proxyEnv) {
	case "":
		pgtest.Main(m)
	case "fail":
		fmt.Fprintln(os.Stdout, "config is wrong")
	default:
		playProxy()
	}
}

func playProxy() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	conn, err := pgconn.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	defer func() { _ = conn.Close(context.Background()) }()
	listener, err := net.Listen("tcp", os.Getenv("PGSIDECAR_HTTP_LISTEN"))
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = server.Serve(listener) }()
	<-ctx.Done()
	_ = server.Close()
	fmt.Fprintln(os.Stdout, "proxy ended in order")
}

// screen collects what is printed and calls a function once it contains a text.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
	want string
	then func()
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(b)
	if s.then != nil && strings.Contains(s.text.String(), s.want) {
		s.then()
		s.then = nil
	}
	return len(b), nil
}

// newConfig is for a proxy of ours with an HTTP port of its own.
func newConfig(t *testing.T, out *screen, environ ...string) config {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())
	environ = append(os.Environ(), append([]string{proxyEnv + "=yes", "PGSIDECAR_HTTP_LISTEN=" + addr, "DATABASE_URL="}, environ...)...)
	return config{dir: filepath.Join(t.TempDir(), "run"), proxy: os.Args[0], environ: environ, out: out}
}

func TestRun_leavesNothingBehind(t *testing.T) {
	pgtest.Versions(t)
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{want: "stop      Ctrl-C", then: stop}
	cfg := newConfig(t, out)
	require.NoError(t, run(ctx, cfg))

	text := out.text.String()
	require.Contains(t, text, "postgres://app@127.0.0.1:6432/app")
	require.Contains(t, text, "proxy ended in order")
	require.NoDirExists(t, cfg.dir)
	servers := regexp.MustCompile(`(?:primary|standby) (127\.0\.0\.1:\d+)`).FindAllStringSubmatch(text, -1)
	require.Len(t, servers, 2)
	for _, server := range servers {
		_, err := net.Dial("tcp", server[1])
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	}
}

// TestRun_failover_asItIsPrinted types what the user is told to.
func TestRun_failover_asItIsPrinted(t *testing.T) {
	pgtest.Versions(t)
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{want: "stop      Ctrl-C"}
	out.then = func() {
		defer stop()
		text := out.text.String()
		commands := regexp.MustCompile(`(?m)^  failover  (kill .*)\n +(touch .*)$`).FindStringSubmatch(text)
		require.Len(t, commands, 3, text)
		standby := regexp.MustCompile(`standby (127\.0\.0\.1:\d+)`).FindStringSubmatch(text)[1]
		for _, command := range commands[1:] {
			said, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput()
			require.NoError(t, err, "%s", said)
		}
		require.Eventually(t, func() bool {
			conn, err := pgconn.Connect(ctx, "postgres://app:"+pgtest.Password("app")+"@"+standby+"/app?target_session_attrs=primary")
			return err == nil && conn.Close(ctx) == nil
		}, time.Minute, 50*time.Millisecond)
	}
	require.NoError(t, run(ctx, newConfig(t, out)))
	require.Contains(t, out.text.String(), "proxy ended in order")
}

func TestRun_frontsDatabaseURL(t *testing.T) {
	server := pgtest.Serve(t, pgtest.Script{pgtest.Welcome(), pgtest.Expect("X")})
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{want: "stop      Ctrl-C", then: stop}
	require.NoError(t, run(ctx, newConfig(t, out, "DATABASE_URL=postgres://me:secret@"+server.Addr()+"/db", "PGSIDECAR_LISTEN=127.0.0.1:7777")))

	text := out.text.String()
	require.Contains(t, text, "in front of "+server.Addr())
	require.Contains(t, text, "postgres://me@127.0.0.1:7777/db")
	require.NotContains(t, text, "secret")
	require.Equal(t, 1, server.Logins())
}

func TestRun_proxyThatFailsIsReported(t *testing.T) {
	out := &screen{}
	cfg := newConfig(t, out, "DATABASE_URL=postgres://me@127.0.0.1:1/db", proxyEnv+"=fail")
	require.ErrorContains(t, run(t.Context(), cfg), "pgsidecar did not start")
	require.Contains(t, out.text.String(), "config is wrong")
	require.NoDirExists(t, cfg.dir)
}

func TestRun_oneAtATimeInADirectory(t *testing.T) {
	server := pgtest.Serve(t, pgtest.Script{pgtest.Welcome(), pgtest.Expect("X")})
	ctx, stop := context.WithCancel(t.Context())
	out := &screen{want: "stop      Ctrl-C"}
	cfg := newConfig(t, out, "DATABASE_URL=postgres://me@"+server.Addr()+"/db")
	var second error
	out.then = func() {
		second = run(ctx, cfg)
		stop()
	}
	require.NoError(t, run(ctx, cfg))
	require.ErrorContains(t, second, "another make run")
}
