package proxy_test

import (
	"context"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/server"
)

func TestMain(m *testing.M) { pgtest.Main(m, goleak.IgnoreCurrent()) }

// testProxy is a proxy that runs for one test.
type testProxy struct {
	*proxy.Proxy
	upstream *url.URL
}

// start runs a proxy in front of a cluster until the test ends. change, if not nil, changes its configuration.
func start(t testing.TB, c *pgtest.Cluster, change func(*proxy.Config)) *testProxy {
	t.Helper()
	return startFor(t, c.URL("postgres", pgcluster.Superuser), change)
}

// startFor is start for any server. What is logged goes to logs, too, from the level Info on.
func startFor(t testing.TB, upstream string, change func(*proxy.Config), logs ...io.Writer) *testProxy {
	t.Helper()
	parsed, err := pgconn.ParseConfig(upstream)
	require.NoError(t, err)
	config := proxy.Config{
		Listen: []string{"127.0.0.1:0"},
		Auth:   auth.Config{Upstream: auth.Identity{User: parsed.User, Password: parsed.Password}},
		Server: server.Config{Upstream: parsed},
	}
	config.Pool.MaxConnections = 4
	config.Session.SentinelEvery = 1
	if change != nil {
		change(&config)
	}
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	if len(logs) > 0 {
		level = min(level, slog.LevelInfo)
	}
	out := io.MultiWriter(append(logs, t.Output())...)
	p, err := proxy.New(config, slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level})))
	require.NoError(t, err)
	require.NoError(t, p.Listen(t.Context()))
	served := make(chan error, 1)
	go func() { served <- p.Serve(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		require.NoError(t, <-served)
	})
	u, err := url.Parse(upstream)
	require.NoError(t, err)
	return &testProxy{Proxy: p, upstream: u}
}

// url names the proxy's first listener, with the upstream's user and database.
func (p *testProxy) url(params ...string) string {
	u := *p.upstream
	u.Host = p.Addresses()[0]
	q := url.Values{"sslmode": {"disable"}}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20")
	return u.String()
}

func TestProxy_carriesQueries(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, nil)
		conn := pgtest.Connect(t, p.url("application_name", "first test"))
		var name string
		var n int
		require.NoError(t, conn.QueryRow(t.Context(), "select current_setting('application_name'), $1::int", 7).Scan(&name, &n))
		require.Equal(t, "first test", name)
		require.Equal(t, 7, n)
		_, err := conn.Exec(t.Context(), "select 1/0")
		require.ErrorContains(t, err, "22012")
		require.NoError(t, conn.QueryRow(t.Context(), "select 1").Scan(&n))
	})
}
