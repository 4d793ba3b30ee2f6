package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/internal/admin"
	"pgsidecar/proxy/stats"
)

func TestSignal_first_endsAtTransactionBoundaries(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	fake, draining, transaction := newFake(), make(chan struct{}), make(chan struct{})
	fake.shutdown = func(ctx context.Context) error {
		deadline, ok := ctx.Deadline()
		require.True(t, ok)
		require.False(t, deadline.IsZero())
		close(draining)
		<-transaction
		return nil
	}
	r := start(t, fake.open, "")
	<-fake.listening
	code, out := r.ask("health")
	require.Equal(t, exitOK, code, out)

	r.signals <- syscall.SIGTERM
	<-draining
	code, out = r.ask("health")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "the proxy answers 503: the proxy is draining")
	code, _ = r.ask("health", "--live")
	require.Equal(t, exitOK, code, "liveness holds to the end")

	close(transaction)
	r.end(exitOK)
	require.False(t, fake.cut.Load(), "one signal does not cut")
	require.Contains(t, r.stderr.String(), "level=INFO msg=ended idle=0 finished=0 cut=0 lingered=0s drained=")
}

func TestSignal_second_cuts(t *testing.T) {
	fake := newFake()
	fake.shutdown = func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r := start(t, fake.open, "drain: {timeout: 1h}")
	r.signals <- syscall.SIGINT
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
	require.True(t, fake.cut.Load())
	require.Contains(t, r.stderr.String(), "forced=true")
}

func TestDrain_overHTTP_isNotTheFirstOfTwoSignals(t *testing.T) {
	fake, transaction := newFake(), make(chan struct{})
	fake.shutdown = func(context.Context) error {
		<-transaction
		return nil
	}
	r := start(t, fake.open, "")
	<-fake.listening
	for range 2 {
		code, out := r.ask("drain")
		require.Equal(t, exitOK, code, out)
	}
	r.signals <- syscall.SIGTERM
	r.signals <- syscall.SIGHUP // Has been seen to when the next reload is; so has the signal before.
	<-fake.reloaded
	close(transaction)
	r.end(exitOK)
	require.Contains(t, r.stderr.String(), "forced=false late=false", "SIGTERM after a drain does not cut")
}

func TestDrain_timedOut_endsWithSuccessAndSaysSo(t *testing.T) {
	fake := newFake()
	fake.shutdown = func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	r := start(t, fake.open, "drain: {timeout: 1ms}")
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
	require.Contains(t, r.stderr.String(), "late=true")
}

func TestClassic_lingersAsLongAsThereAreClients(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "lifecycle: classic\ndrain: {timeout: 1h, pod_grace: 2h}")
	<-fake.listening
	r.signals <- syscall.SIGTERM
	r.signals <- syscall.SIGHUP
	<-fake.reloaded // The signal before has been seen to.
	require.Equal(t, stats.Lingering, stats.Phase(fake.phase.Load()))
	code, out := r.ask("health")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "503: the proxy is lingering")
	code, out = r.ask("drain", "--wait") // The application is known to be done.
	require.Equal(t, exitOK, code, out)
	require.Equal(t, "draining\nended\n", out)
	r.end(exitOK)
	require.Regexp(t, "lingered=[1-9]", r.stderr.String())
}

func TestPodTerminating_isNoticedAndChangesNoReadiness(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "")
	<-fake.listening
	code, body, err := newClient(r.socket).ask(t.Context(), "GET", "/pod-terminating")
	require.NoError(t, err)
	require.Equal(t, 200, code, string(body))
	require.Equal(t, stats.Noticed, stats.Phase(fake.phase.Load()))
	code, out := r.ask("health")
	require.Equal(t, exitOK, code, out)
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
}

func TestSystemd_isToldOfTheStartAndTheEnd(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	told := func() string {
		b := make([]byte, 100)
		n, err := conn.Read(b)
		require.NoError(t, err)
		return string(b[:n])
	}
	fake := newFake()
	r := start(t, fake.open, "", "NOTIFY_SOCKET="+socket)
	require.Equal(t, "READY=1", told())
	r.signals <- syscall.SIGTERM
	require.Equal(t, "STOPPING=1", told())
	r.end(exitOK)
}

func TestRun_proxyBreaks_isAFailure(t *testing.T) {
	fake := newFake()
	fake.serveErr <- errors.New("epoll went away")
	r := start(t, fake.open, "")
	r.end(exitFailure)
	require.Contains(t, r.stderr.String(), "pgsidecar: serve clients: epoll went away")
}

func TestRun_addressTaken_saysWhichKeyToSet(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	fake := newFake()
	fake.listenErr = errors.New("listen on 127.0.0.1:6432: address already in use")
	r := start(t, fake.open, "")
	r.end(exitFailure)
	require.Contains(t, r.stderr.String(), "address already in use; set listen to another address")

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, taken.Close()) }()
	r = start(t, newFake().open, "", "PGSIDECAR_HTTP_LISTEN="+taken.Addr().String())
	r.end(exitFailure)
	require.Contains(t, r.stderr.String(), "address already in use; set http.listen to another address")
}

func TestReload_signal_appliesWhatIsLive(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "pool: {max_connections: 3}\nloops: 1\n")
	<-fake.listening // The file has been read.
	r.write("pool: {max_connections: 4}\nloops: 2\nlog: {level: debug}\n")
	r.signals <- syscall.SIGHUP
	c := <-fake.reloaded
	require.Equal(t, 4, c.Pool.MaxConnections)
	require.Equal(t, 1, c.Loops, "needs a restart")
	r.signals <- syscall.SIGHUP
	<-fake.reloaded
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
	require.Contains(t, r.stderr.String(), `msg="configuration changed" key=pool.max_connections from=3 to=4 needs_restart=false`)
	require.Contains(t, r.stderr.String(), `msg="configuration changed" key=loops from=1 to=2 needs_restart=true`)
	require.Contains(t, r.stderr.String(), `msg="configuration reloaded" changes=1`, "the second reload finds only what waits")
}

func TestReload_overHTTP_faultyFileChangesNothing(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "")
	<-fake.listening
	post := func() (int, string) {
		code, body, err := newClient(r.socket).ask(t.Context(), "POST", "/reload")
		require.NoError(t, err)
		return code, string(body)
	}
	metrics := func() string {
		_, body, err := newClient(r.socket).ask(t.Context(), "GET", "/metrics")
		require.NoError(t, err)
		return string(body)
	}
	require.Contains(t, metrics(), "\npgsidecar_config_last_reload_success 1\n")

	r.write("pool: {max_connections: many}")
	code, body := post()
	require.Equal(t, 422, code)
	require.Contains(t, body, "pool.max_connections")
	require.Empty(t, fake.reloaded)
	require.Contains(t, metrics(), "\npgsidecar_config_last_reload_success 0\n")

	r.write("pool: {max_connections: 7}")
	code, body = post()
	require.Equal(t, 200, code)
	require.Contains(t, body, `"key": "pool.max_connections"`)
	require.Contains(t, metrics(), "\npgsidecar_config_last_reload_success 1\n")

	r.signals <- syscall.SIGTERM
	r.end(exitOK)
}

func TestStatus_textAndJSON(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "")
	<-fake.listening
	code, out := r.ask("status")
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "clients: 0 idle, 3 active, 0 waiting\n")
	require.Contains(t, out, "servers: 0 idle, 3 active, 0 dialing, 0 closing, at most 20\n")
	require.Regexp(t, `(?m)^app\?\[31m +alice +0 +3 +0 +0 +0 +0\.000 s +42$`, out)
	require.Contains(t, out, "multiplexing: 1.0 clients for each busy server\n")
	require.Regexp(t, `(?m)^127\.0\.0\.1:5 +re\?port +app +alice +1h0m\ds +advisory lock +select pg_advisory_lock\(\?\)$`, out)
	require.Regexp(t, `(?m)^pins +app +alice +7 +\S+ \S+ +LOAD +load \?$`, out)
	require.NotContains(t, out, "\x1b", "names from clients do not steer the terminal")

	code, out = r.ask("status", "--json")
	require.Equal(t, exitOK, code)
	var status admin.Status
	require.NoError(t, json.Unmarshal([]byte(out), &status))
	require.EqualValues(t, 42, status.Transactions)

	// The address may also come from the configuration, whose other faults do not matter here.
	code, out = call([]string{"health"}, []string{"PGSIDECAR_HTTP_LISTEN=" + r.socket, "PGSIDECAR_POOL_MODE=wrong"})
	require.Equal(t, exitOK, code, out)
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
}

func TestLog_json_isOneObjectALine(t *testing.T) {
	fake := newFake()
	r := start(t, fake.open, "log: {format: json}")
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
	for _, line := range lines(r.stderr.String()) {
		require.True(t, json.Valid([]byte(line)), line)
	}
	require.NotContains(t, r.stderr.String(), "secret")
}

func TestReachable_prefersWhereEverythingIsAllowed(t *testing.T) {
	for _, test := range []struct {
		listen []string
		want   string
	}{
		{[]string{"127.0.0.1:6433"}, "127.0.0.1:6433"},
		{[]string{"0.0.0.0:6433"}, "127.0.0.1:6433"},
		{[]string{":6433"}, "127.0.0.1:6433"},
		{[]string{"[::]:6433"}, "[::1]:6433"},
		{[]string{"10.0.0.1:6433"}, "10.0.0.1:6433"},
		{[]string{"10.0.0.1:6433", "/run/http"}, "/run/http"},
		{[]string{"127.0.0.1:0", "127.0.0.1:1"}, "127.0.0.1:1"},
	} {
		have, err := reachable(test.listen)
		require.NoError(t, err)
		require.Equal(t, test.want, have)
	}
	_, err := reachable(nil)
	require.ErrorContains(t, err, "name one with --http")
}
