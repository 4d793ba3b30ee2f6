package proxy_test

import (
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/server"
)

func TestSockets_clientsComeByUnixSocketToo(t *testing.T) {
	dir := t.TempDir()
	named := filepath.Join(dir, ".s.PGSQL.7777")
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Listen = []string{dir, named, "127.0.0.1:0", "[::1]:0"}
	})
	for _, port := range []string{"6432", "7777"} {
		conn := pgtest.Connect(t, spaced(fmt.Sprintf("postgres://postgres@/postgres?host=%s&port=%s", dir, port)))
		require.Equal(t, "1", one(t, conn, "select 1"))
		client := pgtest.Dial(t, filepath.Join(dir, ".s.PGSQL."+port))
		login := client.Login("postgres", pgtest.Superuser)
		require.Contains(t, texts(client.Query("select 2")), "D 2")
		client.Cancel(login)
	}
	for _, address := range p.Addresses()[2:] {
		conn := pgtest.Connect(t, "postgres://postgres@"+address+"/postgres?sslmode=disable")
		require.Equal(t, "1", one(t, conn, "select 1"))
	}
	out, err := exec.CommandContext(t.Context(), pgtest.Program(t, "psql"), "-h", dir, "-p", "6432", "-U", "postgres", "-Atc", "select 'by libpq'").CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "by libpq\n", string(out))
}

func TestSockets_serverIsReachedByUnixSocketToo(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := startFor(t, c.SocketURL("postgres", pgtest.Superuser), nil)
		to := "postgres://postgres@" + p.Addresses()[0] + "/postgres?sslmode=disable"
		conn := pgtest.Connect(t, to)
		require.Empty(t, one(t, conn, "select client_addr from pg_stat_activity where pid = pg_backend_pid()"))
		require.Len(t, one(t, conn, "select repeat('x', 3000000)"), 3_000_000)
		client := pgtest.Dial(t, p.Addresses()[0])
		login := client.Login("postgres", pgtest.Superuser)
		ended := started(func() string { return texts(client.Query("select pg_sleep(600), 'socket'")) })
		server := watch(t, c)
		await(t, "the query", func() bool { return server.busyWith("select pg_sleep(600), 'socket'") == 1 })
		pgtest.Dial(t, p.Addresses()[0]).Cancel(login)
		require.Contains(t, <-ended, "E 57014")
	})
}

func TestSockets_whatADeadProcessLeftIsReplacedAndALivingOnesIsNot(t *testing.T) {
	c := pgtest.Shared(t, 0)
	dir := t.TempDir()
	file := filepath.Join(dir, ".s.PGSQL.6432")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: file, Net: "unix"})
	require.NoError(t, err)
	left.SetUnlinkOnClose(false)
	require.NoError(t, left.Close())
	listen := func(config *proxy.Config) { config.Listen = append(config.Listen, dir) }
	start(t, c, listen)
	require.Equal(t, "1", one(t, pgtest.Connect(t, "postgres://postgres@/postgres?host="+dir+"&port=6432"), "select 1"))

	upstream, err := pgconn.ParseConfig(c.URL("postgres", pgtest.Superuser))
	require.NoError(t, err)
	second, err := proxy.New(proxy.Config{Listen: []string{dir}, Server: server.Config{Upstream: upstream}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.ErrorContains(t, second.Listen(t.Context()), "another process serves this socket")
	require.Equal(t, "1", one(t, pgtest.Connect(t, "postgres://postgres@/postgres?host="+dir+"&port=6432"), "select 1"))
}

// hosts is a URL that names several clusters, in their order.
func hosts(params string, clusters ...*pgtest.Cluster) string {
	var addresses []string
	for _, c := range clusters {
		addresses = append(addresses, c.Addr())
	}
	return "postgres://postgres@" + strings.Join(addresses, ",") + "/postgres?sslmode=disable" + params
}

// startForHosts is startFor for a URL of several hosts, which net/url does not take.
func startForHosts(t *testing.T, url string, change func(*proxy.Config)) *testProxy {
	t.Helper()
	upstream, err := pgconn.ParseConfig(url)
	require.NoError(t, err)
	return startFor(t, "postgres://postgres@"+net.JoinHostPort(upstream.Host, strconv.Itoa(int(upstream.Port)))+"/postgres", func(config *proxy.Config) {
		config.Server.Upstream = upstream
		if change != nil {
			change(config)
		}
	})
}

func TestSockets_ofSeveralHostsTheFirstThatAnswersIsUsed(t *testing.T) {
	a, b := pgtest.Start(t, pgtest.Config{}), pgtest.Start(t, pgtest.Config{})
	p := startForHosts(t, hosts("", a, b), func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
	conn := pgtest.Connect(t, p.url())
	const port = "select current_setting('port')"
	require.Equal(t, fmt.Sprint(a.Port()), one(t, conn, port))
	a.Stop(t, pgtest.Fast)
	require.Equal(t, fmt.Sprint(b.Port()), one(t, conn, port), "the client notices nothing")
	require.Equal(t, fmt.Sprint(b.Port()), one(t, pgtest.Connect(t, p.url()), port))
}

func TestSockets_ofSeveralHostsTheOneOfTheRightKindIsUsed(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	for attribute, want := range map[string]string{
		"read-write": "f", "primary": "f", "standby": "t", "read-only": "t", "prefer-standby": "t", "any": "t",
	} {
		p := startForHosts(t, hosts("&target_session_attrs="+attribute, standby, primary), nil)
		conn := pgtest.Connect(t, p.url())
		require.Equal(t, want, one(t, conn, "select pg_is_in_recovery()"), attribute)
		require.Equal(t, map[string]string{"t": "on", "f": "off"}[want], conn.PgConn().ParameterStatus("in_hot_standby"))
	}
	p := startForHosts(t, hosts("&target_session_attrs=read-write", standby), withoutHold)
	require.Equal(t, "57P03", loginError(t, p.url()).Code)
	standby.Promote(t)
	await(t, "it is found when it has been promoted", func() bool { _, err := pgtest.TryConnect(t, p.url()); return err == nil })
}

func TestSockets_hostThatDoesNotAnswer_isPassedOver(t *testing.T) {
	a, b := pgtest.Start(t, pgtest.Config{}), pgtest.Shared(t, 0)
	p := startForHosts(t, hosts("", a, b), func(config *proxy.Config) { config.Server.ConnectTimeout = 300 * time.Millisecond })
	a.Freeze(t)
	t.Cleanup(func() { a.Thaw(t) })
	require.Equal(t, fmt.Sprint(b.Port()), one(t, pgtest.Connect(t, p.url()), "select current_setting('port')"))
}
