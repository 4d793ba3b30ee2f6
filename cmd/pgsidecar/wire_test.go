package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/session"
)

// wired loads the variables and translates them.
func wired(t *testing.T, environ ...string) proxy.Config {
	t.Helper()
	c, _, err := config.Load("", environ)
	require.NoError(t, err)
	w, err := wire(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return w
}

func TestWire_everyLiveKey_reachesTheProxy(t *testing.T) {
	base := wired(t, databaseURL)
	for variable, text := range map[string]string{
		"LISTEN": "127.0.0.1:7000", "UPSTREAM_URL": "postgres://bob@127.0.0.1:1/app", "UPSTREAM_CONNECT_TIMEOUT": "7s",
		"UPSTREAM_KEEPALIVE": "60s", "UPSTREAM_TCP_USER_TIMEOUT": "7s", "FAILOVER_HOLD": "7s", "POOL_MODE": "session",
		"POOL_MAX_CONNECTIONS": "7", "POOL_MIN_CONNECTIONS": "7", "POOL_MAX_CONNECTIONS_PER_DATABASE": "7", "POOL_MAX_CONNECTIONS_PER_USER": "7",
		"POOL_ACQUIRE_TIMEOUT": "7s", "POOL_IDLE_TIMEOUT": "7s", "POOL_MAX_LIFETIME": "7s", "PREPARED_STATEMENTS_MAX": "7",
		"PREPARED_STATEMENTS_MAX_PER_CLIENT": "7", "CLIENT_MAX_CLIENTS": "7", "CLIENT_MAX_CLIENTS_PER_DATABASE": "7",
		"CLIENT_MAX_CLIENTS_PER_USER": "7", "CLIENT_LOGIN_TIMEOUT": "7s", "CLIENT_IDLE_TIMEOUT": "7s", "CLIENT_WRITE_TIMEOUT": "7s",
		"QUERY_TIMEOUT": "7s", "TRANSACTION_TIMEOUT": "7s", "IDLE_TRANSACTION_TIMEOUT": "7s", "CLIENT_AUTH_METHOD": "password",
		"CLIENT_AUTH_UNKNOWN_USERS": "upstream", "CLIENT_AUTH_FORCE_TRUST": "true", "DATABASES": "{a: {dbname: b}}", "USERS": "{a: {max_clients: 7}}",
		"LOG_CONNECTIONS": "true", "LOOPS": "2", "MEMORY_ADMISSION": "7",
	} {
		require.NotEqual(t, base, wired(t, databaseURL, "PGSIDECAR_"+variable+"="+text), variable)
	}
}

func TestWire_zeroSwitchesOff_whereThePoolTakesItForItsDefault(t *testing.T) {
	w := wired(t, databaseURL, "PGSIDECAR_POOL_IDLE_TIMEOUT=0", "PGSIDECAR_POOL_MAX_LIFETIME=0", "PGSIDECAR_FAILOVER_HOLD=0")
	require.Negative(t, w.Pool.IdleTimeout)
	require.Negative(t, w.Pool.MaxLifetime)
	require.Negative(t, w.Pool.Hold)
}

func TestWire_connectTimeout_isEachHosts(t *testing.T) {
	w := wired(t, "DATABASE_URL=postgres://app@a,b/app?sslmode=disable")
	require.Equal(t, 15*time.Second, w.Server.ConnectTimeout)
	require.Equal(t, 30*time.Second, w.Pool.DialTimeout, "a host that is gone leaves time for the other")
	w = wired(t, "DATABASE_URL=postgres://app@a,b/app?sslmode=disable&connect_timeout=3")
	require.Equal(t, 3*time.Second, w.Server.ConnectTimeout)
	require.Equal(t, 6*time.Second, w.Pool.DialTimeout)
}

func TestWire_keepalive_isTheWholeTime(t *testing.T) {
	s := wired(t, databaseURL, "PGSIDECAR_UPSTREAM_KEEPALIVE=1m").Server
	require.Equal(t, time.Minute, s.KeepAliveIdle+time.Duration(s.KeepAliveCount)*s.KeepAliveInterval)
}

func TestWire_defaults_areTheProxysWords(t *testing.T) {
	w := wired(t, databaseURL, "PGSIDECAR_DATABASES={a: {dbname: b, user: c, pool_mode: statement, max_clients: 3, max_connections: 4}, d: {}}",
		"PGSIDECAR_USERS={e: {pool_mode: session, max_clients: 5, max_connections: 6}}")
	require.Equal(t, auth.Trust, w.Auth.Method)
	require.Equal(t, auth.Reject, w.Auth.Unknown)
	require.Equal(t, "app", w.Auth.Upstream.User)
	require.Equal(t, "secret", w.Auth.Upstream.Password)
	require.Equal(t, session.Transaction, w.Mode)
	require.Nil(t, w.TLS)
	statement, whole := session.Statement, session.WholeSession
	require.Equal(t, map[string]proxy.Database{
		"a": {Name: "b", User: "c", Mode: &statement, MaxClients: 3, MaxConnections: 4}, "d": {},
	}, w.Databases)
	require.Equal(t, map[string]proxy.User{"e": {Mode: &whole, MaxClients: 5, MaxConnections: 6}}, w.Users)
	for _, m := range []config.AuthMethod{config.AuthTrust, config.AuthPassword, config.AuthMD5, config.AuthSCRAM} {
		require.Contains(t, []auth.Method{auth.Trust, auth.Password, auth.MD5, auth.SCRAM}, auth.Method(m))
	}
	for _, u := range []config.UnknownUsers{config.UnknownReject, config.UnknownAsIs, config.UnknownUpstream} {
		require.Contains(t, []auth.Unknown{auth.Reject, auth.AsIs, auth.Upstream}, auth.Unknown(u))
	}
}

func TestWire_tls(t *testing.T) {
	c := config.Default()
	c.Upstream.URL = "postgres://app@db/app"
	c.ClientTLS = config.ClientTLS{Mode: config.TLSVerifyFull, CertFile: "c", KeyFile: "k", CAFile: "a", MinVersion: config.TLS13}
	w, err := wire(c, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.Equal(t, &login.CertFiles{Cert: "c", Key: "k", CA: "a", MinVersion: tls.VersionTLS13}, w.TLS)
	require.Equal(t, login.CertVerifyFull, w.Login.ClientCert)
	for mode, want := range map[config.TLSMode]login.Config{
		config.TLSAllow: {}, config.TLSRequire: {RequireTLS: true}, config.TLSVerifyCA: {ClientCert: login.CertVerifyCA},
	} {
		c.ClientTLS.Mode = mode
		w, err := wire(c, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		require.NotNil(t, w.TLS)
		w.Login.Timeout = 0
		require.True(t, reflect.DeepEqual(want, w.Login), mode)
	}
}

func TestWire_passwordFile_comesBeforeTheURL(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("rotated\r\n"), 0o600))
	w := wired(t, databaseURL, "PGSIDECAR_UPSTREAM_PASSWORD_FILE="+file)
	require.Equal(t, "rotated", w.Auth.Upstream.Password)
	require.Equal(t, file, w.Server.PasswordFile)
}
