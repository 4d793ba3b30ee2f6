package proxy_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/session"
)

// reloadable is a proxy and the configuration that it runs with.
type reloadable struct {
	*testProxy
	config proxy.Config
}

func startReloadable(t *testing.T, c *pgtest.Cluster, change func(*proxy.Config)) *reloadable {
	t.Helper()
	r := new(reloadable)
	r.testProxy = start(t, c, func(config *proxy.Config) {
		config.Server.Source = c.URL("postgres", pgtest.Superuser)
		if change != nil {
			change(config)
		}
		r.config = *config
	})
	return r
}

// reload changes the configuration and puts it in force.
func (r *reloadable) reload(t *testing.T, change func(*proxy.Config)) {
	t.Helper()
	if change != nil {
		change(&r.config)
	}
	require.NoError(t, r.Reload(r.config))
}

// upstream names another server.
func upstream(t *testing.T, config *proxy.Config, url string) {
	t.Helper()
	parsed, err := pgconn.ParseConfig(url)
	require.NoError(t, err)
	config.Server.Upstream, config.Server.Source = parsed, url
	config.Auth.Upstream = auth.Identity{User: parsed.User, Password: parsed.Password}
}

// PgBouncer's #1157.
func TestReload_ofNothing_recyclesNothing(t *testing.T) {
	r := startReloadable(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Pool.MaxConnections = 2 })
	idle, busy := pgtest.Connect(t, r.url()), pgtest.Connect(t, r.url())
	one(t, busy, "begin")
	inTransaction, between := pidOf(t, busy), pidOf(t, idle)
	connects := r.Snapshot().ServerConnects
	for range 3 {
		r.reload(t, nil)
		require.Equal(t, inTransaction, pidOf(t, busy))
		require.Equal(t, between, pidOf(t, idle))
	}
	one(t, busy, "commit")
	require.Equal(t, connects, r.Snapshot().ServerConnects)
	for _, reason := range r.Snapshot().ServersClosed {
		require.Zero(t, reason.Count, reason.Label)
	}
}

// PgBouncer's #1157.
func TestReload_ofTheUpstream_movesEveryoneWithoutAnError(t *testing.T) {
	versions := pgtest.Versions(t)
	old, fresh := pgtest.Shared(t, versions[0]), pgtest.Start(t, pgtest.Config{Major: versions[len(versions)-1]})
	r := startReloadable(t, old, func(config *proxy.Config) { config.Loops, config.Pool.MaxConnections = 2, 3 })
	const port = "select current_setting('port')"
	inBlock := pgtest.Connect(t, r.url())
	one(t, inBlock, "begin")
	ctx, stop := context.WithCancel(t.Context())
	var ends []<-chan error
	for i := range 10 {
		conn := pgtest.Connect(t, r.url("application_name", fmt.Sprint("client ", i)))
		ends = append(ends, started(func() error {
			for ctx.Err() == nil {
				var name string
				// Prepared at both, under the client's own settings.
				err := conn.QueryRow(context.Background(), "select current_setting('application_name') where $1::int > 0", 1).Scan(&name)
				if err != nil {
					return err
				}
				if name != fmt.Sprint("client ", i) {
					return fmt.Errorf("client %d is %q", i, name)
				}
			}
			return nil
		}))
	}
	r.reload(t, func(config *proxy.Config) { upstream(t, config, fresh.URL("postgres", pgtest.Superuser)) })
	conn := pgtest.Connect(t, r.url())
	await(t, "new transactions are at the new server", func() bool { return one(t, conn, port) == fmt.Sprint(fresh.Port()) })
	require.Equal(t, fmt.Sprint(old.Port()), one(t, inBlock, port), "a transaction ends where it has begun")
	one(t, inBlock, "commit")
	require.Equal(t, fmt.Sprint(fresh.Port()), one(t, inBlock, port))
	await(t, "new clients are told of the new server", func() bool {
		return pgtest.Connect(t, r.url()).PgConn().ParameterStatus("server_version") == one(t, conn, "show server_version")
	})
	stop()
	for _, end := range ends {
		require.NoError(t, <-end)
	}
	require.Empty(t, r.Snapshot().Errors)
}

func TestReload_ofLimits_isInForceAtOnce(t *testing.T) {
	c := pgtest.Shared(t, 0)
	r := startReloadable(t, c, func(config *proxy.Config) { config.Pool.MaxConnections, config.Session.AcquireTimeout = 1, time.Minute })
	a, b := pgtest.Connect(t, r.url()), pgtest.Connect(t, r.url())
	one(t, a, "begin")
	served := started(func() error { _, err := try(b, "begin"); return err })
	await(t, "it waits", func() bool { return r.waiting() == 1 })
	r.reload(t, func(config *proxy.Config) { config.Pool.MaxConnections = 2 })
	require.NoError(t, <-served, "the waiter gets one of the new connections")

	r.reload(t, func(config *proxy.Config) {
		config.Pool.MaxConnections, config.MaxClients = 1, 2
		config.Session.AcquireTimeout = 100 * time.Millisecond
	})
	require.Equal(t, "53300", loginError(t, r.url()).Code)
	one(t, a, "commit")
	one(t, b, "commit")
	await(t, "what is above the limit is closed", func() bool {
		s := r.Snapshot().Pools[0]
		return s.Idle+s.Active+s.Closing == 1
	})
	one(t, a, "begin")
	await(t, "the acquire timeout is the new one", func() bool { _, err := try(b, "select 1"); return err != nil })
	require.Equal(t, "57014", refusal(t, b, "select 1").Code)
}

func TestReload_ofUsers_isForThoseWhoLogInLater(t *testing.T) {
	c := pgtest.Shared(t, 0)
	first, second := c.Role(t), c.Role(t)
	r := startReloadable(t, c, func(config *proxy.Config) { config.Auth.Method, config.Auth.Users = auth.SCRAM, listed(first) })
	conn := pgtest.Connect(t, r.as(t, "postgres", first))
	require.Equal(t, "28P01", loginError(t, r.as(t, "postgres", second)).Code)
	r.reload(t, func(config *proxy.Config) { config.Auth.Users = listed(second) })
	require.Equal(t, second, one(t, pgtest.Connect(t, r.as(t, "postgres", second)), "select current_user"))
	require.Equal(t, "28P01", loginError(t, r.as(t, "postgres", first)).Code)
	require.Equal(t, first, one(t, conn, "select current_user"), "who is there stays")
}

func TestReload_ofTheMode_isForThoseWhoLogInLater(t *testing.T) {
	r := startReloadable(t, pgtest.Shared(t, 0), nil)
	before := pgtest.Connect(t, r.url())
	r.reload(t, func(config *proxy.Config) { config.Mode = session.Statement })
	after := pgtest.Connect(t, r.url())
	one(t, before, "begin; select 1")
	one(t, before, "commit")
	require.Equal(t, "0A000", refusal(t, after, "begin").Code)
}

func TestReload_ofWhatIsFaulty_leavesEverythingAsItWas(t *testing.T) {
	r := startReloadable(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
	conn := pgtest.Connect(t, r.url())
	pid := pidOf(t, conn)
	for name, change := range map[string]func(*proxy.Config){
		"certificate": func(config *proxy.Config) {
			config.TLS = &login.CertFiles{Cert: filepath.Join(t.TempDir(), "no.crt"), Key: "no.key"}
		},
		"users":    func(config *proxy.Config) { config.Auth.Users = listed("same", "same") },
		"method":   func(config *proxy.Config) { config.Auth.Method = "handshake" },
		"upstream": func(config *proxy.Config) { config.Server.Upstream = nil },
	} {
		config := r.config
		config.MaxClients = 1
		config.Server.Source = "another"
		change(&config)
		require.Error(t, r.Reload(config), name)
	}
	require.Equal(t, pid, pidOf(t, conn))
	require.Equal(t, "1", one(t, pgtest.Connect(t, r.url()), "select 1"))
}
