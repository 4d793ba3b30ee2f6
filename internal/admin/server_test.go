package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/internal/admin"
	"pgsidecar/proxy/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is a Source and a Control that notes what it was asked for.
type process struct {
	notReady  atomic.Pointer[string]
	reloadErr error
	drains    atomic.Int32
	notices   atomic.Int32
}

func (p *process) Snapshot() stats.Snapshot {
	return stats.Snapshot{
		Phase: stats.Serving, Started: time.Now().Add(-time.Minute), Clients: stats.Clients{Idle: 1, Active: 2, Waiting: 3}, Limit: 20,
		Pools: []stats.PoolSnapshot{
			{Database: "app", User: "<script>", Idle: 4, Active: 5, Waiting: 3, OldestWait: 1500 * time.Millisecond, Transactions: 6},
			{Database: "other", User: "app", Idle: 7, Dialing: 1, Closing: 2, Transactions: 1},
		},
		Errors: []stats.ErrorCount{{SQLState: "57P03", Origin: stats.FromProxy, Count: 8}},
		Pinned: []stats.Count{{Label: "temp table", Count: 9}},
		PinnedClients: []stats.PinnedClient{{
			Client: "127.0.0.1:1", Application: "<b>", Database: "app", User: "app", Kind: "temporary object", Reason: `temp table "t"`,
			Statement: "create temp table t ()", Since: time.Now().Add(-time.Hour),
		}},
		PinningStatements: []stats.PinningStatement{{
			PinnedClient: stats.PinnedClient{Reason: "advisory lock", Statement: "select pg_advisory_lock(?)", Since: time.Unix(1, 0)}, Count: 12,
		}},
		Logins: stats.LoginCounts{stats.LoggedIn: 10},
	}
}

func (p *process) Ready() error {
	if why := p.notReady.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

func (p *process) Reload(context.Context) ([]admin.Change, error) {
	return []admin.Change{{Key: "loops", From: "1", To: "2"}}, p.reloadErr
}

func (p *process) Drain()  { p.drains.Add(1) }
func (p *process) Notice() { p.notices.Add(1) }

// start serves p on the addresses and returns the base URL of the first; it ends with the test.
func start(t *testing.T, p *process, addresses ...string) (base string, server *admin.Server) {
	t.Helper()
	return startWith(t, p, admin.Config{Listen: addresses})
}

// startWith is start with a configuration.
func startWith(t *testing.T, p *process, cfg admin.Config) (base string, server *admin.Server) {
	t.Helper()
	cfg.Version = "1.2.3"
	cfg.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metrics") })
	server = admin.New(cfg, p, p, slog.New(slog.DiscardHandler))
	require.NoError(t, server.Listen(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve() }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		server.Shutdown(ctx)
		require.NoError(t, <-ended)
	})
	return "http://" + server.Addresses()[0].String(), server
}

// ask sends a request and returns the status code and the body.
func ask(t *testing.T, method, url string, header ...string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

func TestProbes_readinessFollowsTheProxyAndLivenessDoesNot(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, body := ask(t, http.MethodGet, base+"/readyz")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "ready\n", body)

	why := "draining"
	p.notReady.Store(&why)
	code, body = ask(t, http.MethodGet, base+"/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "draining\n", body)
	code, _ = ask(t, http.MethodGet, base+"/livez")
	require.Equal(t, http.StatusOK, code)
}

func TestStatus_json_addsUpThePools(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, body := ask(t, http.MethodGet, base+"/status")
	require.Equal(t, http.StatusOK, code)
	var status admin.Status
	require.NoError(t, json.Unmarshal([]byte(body), &status))
	require.Equal(t, "1.2.3", status.Version)
	require.Equal(t, "serving", status.Phase)
	require.InDelta(t, 60, status.Uptime, 5)
	require.Equal(t, admin.Clients{Idle: 1, Active: 2, Waiting: 3}, status.Clients)
	require.Equal(t, admin.Servers{Idle: 11, Active: 5, Dialing: 1, Closing: 2, Limit: 20}, status.Servers)
	require.EqualValues(t, 7, status.Transactions)
	require.Equal(t, []admin.Error{{SQLState: "57P03", Origin: "proxy", Count: 8}}, status.Errors)
	require.EqualValues(t, 10, status.Logins["logged_in"])
	require.Len(t, status.Pools, 2)
	require.InDelta(t, 1.5, status.Pools[0].OldestWait, 1e-9)
	require.InDelta(t, 1.2, status.ClientsPerBusyServer, 1e-9)
	require.InDelta(t, 3600, status.PinnedClients[0].Seconds, 5)
	require.Equal(t, `temp table "t"`, status.PinnedClients[0].Reason)
	require.Equal(t, "select pg_advisory_lock(?)", status.PinningStatements[0].Statement)
	require.EqualValues(t, 12, status.PinningStatements[0].Count)
}

func TestPage_namesFromClients_areEscaped(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, body := ask(t, http.MethodGet, base+"/")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "pgsidecar 1.2.3: serving")
	require.Contains(t, body, "&lt;script&gt;")
	require.Contains(t, body, "<td class=\"text\">temp table &#34;t&#34;</td><td>3600</td>")
	require.Contains(t, body, "1.2 clients for each server in use")
	require.Contains(t, body, "select pg_advisory_lock(?)")
	require.NotContains(t, body, "<b>")
	require.NotContains(t, body, "<script>")
	require.NotContains(t, body, "src=")
}

func TestRoutes_methodsAndPaths(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	for _, test := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/metrics", http.StatusOK},
		{http.MethodHead, "/livez", http.StatusOK},
		{http.MethodGet, "/debug/pprof/", http.StatusOK},
		{http.MethodGet, "/debug/pprof/goroutine", http.StatusOK},
		{http.MethodGet, "/nothing", http.StatusNotFound},
		{http.MethodGet, "/drain", http.StatusMethodNotAllowed},
		{http.MethodGet, "/reload", http.StatusMethodNotAllowed},
		{http.MethodPost, "/livez", http.StatusMethodNotAllowed},
		{http.MethodPut, "/drain", http.StatusMethodNotAllowed},
	} {
		code, _ := ask(t, test.method, base+test.path)
		require.Equal(t, test.want, code, "%s %s", test.method, test.path)
	}
	require.Zero(t, p.drains.Load())
}

func TestDrain_fromThisMachine_begins(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, body := ask(t, http.MethodPost, base+"/drain")
	require.Equal(t, http.StatusAccepted, code, body)
	require.EqualValues(t, 1, p.drains.Load())
}

func TestDrain_fromAWebPage_isRefused(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, _ := ask(t, http.MethodPost, base+"/drain", "Origin", "https://attacker.example")
	require.Equal(t, http.StatusForbidden, code)
	code, _ = ask(t, http.MethodPost, base+"/drain", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, code)
	require.Zero(t, p.drains.Load())
}

// The address of an interface stands for the pod's: the kubelet may probe there, but nobody may drain.
func TestRoutes_onTheMachinesAddress_onlyProbesAnswer(t *testing.T) {
	address := interfaceAddress(t)
	var p process
	base, _ := start(t, &p, net.JoinHostPort(address, "0"))
	code, _ := ask(t, http.MethodGet, base+"/livez")
	require.Equal(t, http.StatusOK, code)
	for _, path := range []string{"/drain", "/reload"} {
		code, body := ask(t, http.MethodPost, base+path)
		require.Equal(t, http.StatusForbidden, code)
		require.Contains(t, body, "only on loopback or a unix socket")
	}
	code, _ = ask(t, http.MethodGet, base+"/debug/pprof/heap")
	require.Equal(t, http.StatusForbidden, code)
	require.Zero(t, p.drains.Load())
}

// interfaceAddress returns an address of this machine that is not loopback.
func interfaceAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && !n.IP.IsLoopback() {
			return n.IP.String()
		}
	}
	t.Skip("this machine has only loopback addresses")
	return ""
}

func TestReload_tellsChangesOrFaults(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, body := ask(t, http.MethodPost, base+"/reload")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"changes": [{"key": "loops", "from": "1", "to": "2", "live": false}]}`, body)

	p.reloadErr = errors.New("f.yaml:1: loops: is wrong")
	code, body = ask(t, http.MethodPost, base+"/reload")
	require.Equal(t, http.StatusUnprocessableEntity, code)
	require.Contains(t, body, "f.yaml:1: loops: is wrong")
}

func TestListen_unixSocket_servesAndReplacesAStaleFile(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "http.sock")
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	require.NoError(t, err)
	stale.SetUnlinkOnClose(false)
	require.NoError(t, stale.Close())

	var p process
	start(t, &p, socket)
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	response, err := client.Post("http://pgsidecar/drain", "", nil)
	require.NoError(t, err)
	response.Body.Close()
	require.Equal(t, http.StatusAccepted, response.StatusCode)

	second := admin.New(admin.Config{Listen: []string{socket}}, &p, &p, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, second.Listen(t.Context()), "address already in use", "one that answers is left alone")
}

func TestListen_fileThatIsNoSocket_isLeftAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	var p process
	server := admin.New(admin.Config{Listen: []string{file}}, &p, &p, slog.New(slog.DiscardHandler))
	require.Error(t, server.Listen(t.Context()))
	require.FileExists(t, file)
}

func TestListen_secondAddressTaken_freesTheFirst(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := free.Addr().String()
	require.NoError(t, free.Close())

	server := admin.New(admin.Config{Listen: []string{address, strings.TrimPrefix(base, "http://")}}, &p, &p, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, server.Listen(t.Context()), "address already in use")
	again, err := net.Listen("tcp", address)
	require.NoError(t, err)
	require.NoError(t, again.Close())
}

func TestPodTerminating_kubeletMayCallItOnlyWhereItIsAllowedTo(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		code, _ := ask(t, method, base+"/pod-terminating")
		require.Equal(t, http.StatusOK, code)
	}
	require.EqualValues(t, 2, p.notices.Load())
	code, _ := ask(t, http.MethodGet, base+"/pod-terminating", "X-Forwarded-For", "10.0.0.1")
	require.Equal(t, http.StatusOK, code, "the connection counts")

	var open, shut process
	outside := func(base string) string { return strings.Replace(base, "[::]", "127.0.0.1", 1) }
	base, _ = start(t, &shut, "[::]:0")
	request := func(base string) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, outside(base)+"/pod-terminating", nil)
		require.NoError(t, err)
		request.Host = "10.0.0.7:6433" // As if the kubelet had asked on the pod's address.
		response, err := http.DefaultTransport.RoundTrip(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	require.Equal(t, http.StatusForbidden, request(base))
	require.Zero(t, shut.notices.Load())
	base, _ = startWith(t, &open, admin.Config{Listen: []string{"[::]:0"}, PodTerminating: true})
	require.Equal(t, http.StatusOK, request(base))
	require.EqualValues(t, 1, open.notices.Load())
	require.Zero(t, open.drains.Load())
}

// switcher takes a step and ends as it is told.
type switcher struct {
	asked admin.SwitchoverRequest
	err   error
}

func (s *switcher) Switchover(_ context.Context, request admin.SwitchoverRequest, tell func(admin.SwitchoverStep)) error {
	s.asked = request
	tell(admin.SwitchoverStep{Step: "held", Text: "all wait", Seconds: 0.5})
	return s.err
}

func TestSwitchover_eachStepIsALine(t *testing.T) {
	var p process
	var s switcher
	base, _ := startWith(t, &p, admin.Config{Listen: []string{"127.0.0.1:0"}, Switcher: &s})
	code, body := ask(t, http.MethodPost, base+"/switchover?to=b&promote=true&finish=3s&wait=1m&catch_up=2s")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, admin.SwitchoverRequest{To: "b", Promote: true, Finish: 3 * time.Second, Wait: time.Minute, CatchUp: 2 * time.Second}, s.asked)
	require.JSONEq(t, `{"step": "held", "text": "all wait", "seconds": 0.5}`, body)

	s.err = errors.New("it was undone")
	_, body = ask(t, http.MethodPost, base+"/switchover")
	require.Contains(t, body, `{"step":"failed","text":"it was undone","seconds":0}`)
	for _, wrong := range []string{"promote=perhaps", "wait=5", "finish=-1s", "wait=9000h"} {
		code, _ = ask(t, http.MethodPost, base+"/switchover?"+wrong)
		require.Equal(t, http.StatusBadRequest, code, wrong)
	}
	code, _ = ask(t, http.MethodGet, base+"/switchover")
	require.Equal(t, http.StatusMethodNotAllowed, code)
}

func TestQuitQuitQuit_isThereOnlyIfAskedFor(t *testing.T) {
	var p process
	base, _ := start(t, &p, "127.0.0.1:0")
	code, _ := ask(t, http.MethodPost, base+"/quitquitquit")
	require.Equal(t, http.StatusNotFound, code)
	base, _ = startWith(t, &p, admin.Config{Listen: []string{"127.0.0.1:0"}, QuitQuitQuit: true})
	code, _ = ask(t, http.MethodGet, base+"/quitquitquit")
	require.Equal(t, http.StatusMethodNotAllowed, code)
	require.Zero(t, p.drains.Load())
	code, _ = ask(t, http.MethodPost, base+"/quitquitquit")
	require.Equal(t, http.StatusAccepted, code)
	require.EqualValues(t, 1, p.drains.Load())
}
