package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
)

// identity is a certificate in files, and the authority that has issued it.
type identity struct {
	ca                  *pgcluster.CA
	root, cert, keyFile string
}

// newIdentity issues a certificate of an authority of its own, for this machine.
func newIdentity(t *testing.T) *identity {
	t.Helper()
	ca, err := pgcluster.NewCA()
	require.NoError(t, err)
	dir := t.TempDir()
	i := &identity{ca: ca, root: filepath.Join(dir, "root.crt"), cert: filepath.Join(dir, "own.crt"), keyFile: filepath.Join(dir, "own.key")}
	require.NoError(t, os.WriteFile(i.root, ca.PEM(), 0o600))
	i.issue(t, "localhost")
	return i
}

// issue writes a new certificate over the old one.
func (i *identity) issue(t *testing.T, name string) {
	t.Helper()
	issued, err := i.ca.Issue(name, "localhost", "127.0.0.1")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(i.cert, issued.Cert, 0o600))
	require.NoError(t, os.WriteFile(i.keyFile, issued.Key, 0o600))
}

// offer has the proxy offer TLS with it.
func (i *identity) offer(config *proxy.Config) {
	config.TLS = &login.CertFiles{Cert: i.cert, Key: i.keyFile}
}

// serial tells which certificate the client has seen.
func serial(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	encrypted, ok := conn.PgConn().Conn().(*tls.Conn)
	require.True(t, ok, "the connection is encrypted")
	return encrypted.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestClientTLS_everyWayToConnectWorks(t *testing.T) {
	own := newIdentity(t)
	for _, loops := range []int{1, 2} {
		p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
			own.offer(config)
			config.Loops = loops
		})
		for _, how := range [][]string{
			{"sslmode", "disable"},
			{"sslmode", "prefer"},
			{"sslmode", "require"},
			{"sslmode", "verify-full", "sslrootcert", own.root},
			{"sslmode", "verify-full", "sslrootcert", own.root, "sslnegotiation", "direct"},
		} {
			conn := pgtest.Connect(t, p.url(how...))
			_, encrypted := conn.PgConn().Conn().(*tls.Conn)
			require.Equal(t, how[1] != "disable", encrypted, how)
			require.Equal(t, "4MB", one(t, conn, "show work_mem"))
			one(t, conn, "set work_mem to '7MB'")
			var long string
			require.NoError(t, conn.QueryRow(t.Context(), "select $1::text || current_setting('work_mem')", strings.Repeat("x", 3<<20)).Scan(&long))
			require.Equal(t, strings.Repeat("x", 3<<20)+"7MB", long)
			require.Equal(t, "10000", one(t, conn, "select count(*) from generate_series(1, 10000)"))
			require.NoError(t, conn.Close(t.Context()))
		}
		_, err := pgtest.TryConnect(t, p.url("sslmode", "verify-full", "sslrootcert", newIdentity(t).root))
		require.ErrorContains(t, err, "certificate")
	}
}

func TestClientTLS_whereItIsRequired_plainClientsAreTold(t *testing.T) {
	own := newIdentity(t)
	dir := t.TempDir()
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		own.offer(config)
		config.Login.RequireTLS = true
		config.Listen = append(config.Listen, dir)
	})
	e := loginError(t, p.url("sslmode", "disable"))
	require.Equal(t, "28000", e.Code)
	require.NotEmpty(t, e.Hint)
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url("sslmode", "require")), "select 1"))
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url("host", dir, "port", "6432")), "select 1"), "a unix socket needs none")
}

func TestClientTLS_channelBindingIsUsed(t *testing.T) {
	own := newIdentity(t)
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		own.offer(config)
		config.Auth.Method = auth.SCRAM
	})
	bound := []string{"sslmode", "verify-full", "sslrootcert", own.root, "channel_binding", "require"}
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url(bound...)), "select 1"))
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.url(append(bound, "sslnegotiation", "direct")...)), "select 1"))
	require.Equal(t, "28P01", loginError(t, p.url(append(bound, "password", "wrong")...)).Code)
	_, err := pgtest.TryConnect(t, p.url("sslmode", "disable", "channel_binding", "require"))
	require.ErrorContains(t, err, "channel binding")
	libpq := exec.CommandContext(t.Context(), pgtest.Program(t, "psql"), p.url(bound...), "-Atc", "select 'by libpq'")
	out, err := libpq.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Equal(t, "by libpq\n", string(out))
}

func TestClientTLS_newCertificate_reachesNewClientsAndDisturbsNoOther(t *testing.T) {
	own := newIdentity(t)
	r := startReloadable(t, pgtest.Shared(t, 0), own.offer)
	old := pgtest.Connect(t, r.url("sslmode", "require"))
	before := serial(t, old)
	one(t, old, "begin")
	pid := pidOf(t, old)
	own.issue(t, "localhost")
	r.reload(t, nil)
	fresh := pgtest.Connect(t, r.url("sslmode", "verify-full", "sslrootcert", own.root))
	require.NotEqual(t, before, serial(t, fresh))
	require.Equal(t, pid, pidOf(t, old))
	one(t, old, "commit")

	good := serial(t, fresh)
	require.NoError(t, os.WriteFile(own.cert, []byte("half a certif"), 0o600))
	require.Error(t, r.Reload(r.config))
	require.Equal(t, good, serial(t, pgtest.Connect(t, r.url("sslmode", "require"))), "what was good stays in force")

	own.issue(t, "localhost")
	r.reload(t, func(config *proxy.Config) { config.TLS = nil })
	_, err := pgtest.TryConnect(t, r.url("sslmode", "require"))
	require.Error(t, err, "TLS is not offered any more")
	require.Equal(t, "1", one(t, old, "select 1"), "who has it keeps it")
	require.Equal(t, "1", one(t, fresh, "select 1"))
}

func TestClientTLS_certificateOfTheClient_isAskedFor(t *testing.T) {
	own, stranger := newIdentity(t), newIdentity(t)
	client := &identity{ca: own.ca, root: own.root, cert: filepath.Join(t.TempDir(), "c.crt"), keyFile: filepath.Join(t.TempDir(), "c.key")}
	client.issue(t, pgtest.Superuser)
	for want, test := range map[login.ClientCert]struct{ nameMatters bool }{login.CertVerifyCA: {false}, login.CertVerifyFull: {true}} {
		p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
			own.offer(config)
			config.TLS.CA, config.Login.ClientCert, config.Auth.Unknown = own.root, want, auth.Upstream
		})
		with := func(i *identity) []string {
			return []string{"sslmode", "require", "sslcert", i.cert, "sslkey", i.keyFile}
		}
		require.Equal(t, "1", one(t, pgtest.Connect(t, p.url(with(client)...)), "select 1"))
		_, err := pgtest.TryConnect(t, p.as(t, "postgres", "somebody", with(client)...))
		if test.nameMatters {
			require.Equal(t, "28000", pgError(t, err).Code)
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, "28000", loginError(t, p.url("sslmode", "require")).Code, "none")
		require.Equal(t, "28000", loginError(t, p.url("sslmode", "disable")).Code, "no TLS")
		_, err = pgtest.TryConnect(t, p.url(with(stranger)...))
		require.Error(t, err, "of another authority")
	}
}

// elsewhere names the server by an address that is not in its certificate.
func elsewhere(url string) string { return strings.Replace(url, "127.0.0.1", "127.0.0.2", 1) }

// withoutHold makes failures of the server known at once.
func withoutHold(config *proxy.Config) { config.Pool.Hold = -1 }

func TestServerTLS_everyModeDoesWhatLibpqsDoes(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{TLS: true, Settings: map[string]string{"listen_addresses": "127.0.0.1,127.0.0.2"}, HBA: []string{
		"hostssl all only_tls 127.0.0.1/32 trust", "hostnossl all only_tls 127.0.0.1/32 reject",
		"hostssl all no_tls 127.0.0.1/32 reject", "hostnossl all no_tls 127.0.0.1/32 trust",
	}})
	c.Exec(t, "create role only_tls login; create role no_tls login")
	plain := pgtest.Start(t, pgtest.Config{})
	stranger := newIdentity(t)
	negotiation := "postgres"
	if c.Major() >= 17 {
		negotiation = "direct"
	}
	for _, test := range []struct {
		name, url string
		encrypted string // "": the login fails
	}{
		{"disable", c.URL("postgres", "no_tls", "sslmode=disable"), "f"},
		{"disable where it is required", c.URL("postgres", "only_tls", "sslmode=disable"), ""},
		{"allow", c.URL("postgres", "only_tls", "sslmode=allow"), "t"},
		{"prefer", c.URL("postgres", "only_tls", "sslmode=prefer"), "t"},
		{"prefer where it is refused", c.URL("postgres", "no_tls", "sslmode=prefer"), "f"},
		{"prefer where there is none", plain.URL("postgres", pgtest.Superuser, "sslmode=prefer"), "f"},
		{"require", c.URL("postgres", "only_tls", "sslmode=require", "sslrootcert="), "t"},
		{"require where there is none", plain.URL("postgres", pgtest.Superuser, "sslmode=require"), ""},
		{"verify-ca", c.URL("postgres", "only_tls", "sslmode=verify-ca"), "t"},
		{"verify-ca by another authority", c.URL("postgres", "only_tls", "sslmode=verify-ca", "sslrootcert="+stranger.root), ""},
		{"verify-full", c.URL("postgres", "only_tls", "sslmode=verify-full"), "t"},
		{"verify-ca by another name", elsewhere(c.URL("postgres", "only_tls", "sslmode=verify-ca")), "t"},
		{"verify-full by another name", elsewhere(c.URL("postgres", "only_tls")), ""},
		{"direct", c.URL("postgres", "only_tls", "sslnegotiation="+negotiation), "t"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startFor(t, test.url, withoutHold)
			conn, err := pgtest.TryConnect(t, p.url())
			if test.encrypted == "" {
				require.Equal(t, "FATAL", pgError(t, err).Severity)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.encrypted, one(t, conn, "select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
			// Records of every length, in both directions.
			for _, length := range []int{0, 1, 16_000, 16_384, 16_385, 1 << 20} {
				var back int
				require.NoError(t, conn.QueryRow(t.Context(), "select length($1::text || repeat('y', $2))", strings.Repeat("x", length), length).Scan(&back))
				require.Equal(t, 2*length, back)
				require.Len(t, one(t, conn, fmt.Sprintf("select repeat('z', %d)", length)), length)
			}
		})
	}
}

func TestServerTLS_certificateAndChannelBindingLogIn(t *testing.T) {
	t.Run("certificate", func(t *testing.T) {
		c := pgtest.Start(t, pgtest.Config{TLS: true, Auth: "cert"})
		role := c.Role(t)
		own := &identity{ca: c.CA(), cert: filepath.Join(t.TempDir(), "c.crt"), keyFile: filepath.Join(t.TempDir(), "c.key")}
		own.issue(t, role)
		p := startFor(t, c.URL("postgres", role, "sslcert="+own.cert, "sslkey="+own.keyFile), withoutHold)
		require.Equal(t, role, one(t, pgtest.Connect(t, p.url()), "select session_user"))
		bare := startFor(t, c.URL("postgres", role), withoutHold)
		require.Equal(t, "28000", loginError(t, bare.url()).Code)
	})
	t.Run("channel binding", func(t *testing.T) {
		c := pgtest.Start(t, pgtest.Config{TLS: true, Auth: "scram-sha-256"})
		p := startFor(t, c.URL("postgres", pgtest.Superuser, "channel_binding=require"), withoutHold)
		require.Equal(t, "t", one(t, pgtest.Connect(t, p.url()), "select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
	})
}

// Both protocol versions, with the keys that belong to them, through TLS and without; and a cancel request with each.
// PgBouncer's #1460.
func TestProtocol_versionAndKeyAreWhatTheClientAskedFor(t *testing.T) {
	own := newIdentity(t)
	p := start(t, pgtest.Shared(t, 0), own.offer)
	for _, mode := range []string{"disable", "require"} {
		for version, length := range map[string]int{"3.0": 4, "3.2": 32, "latest": 32} {
			conn := pgtest.Connect(t, p.url("sslmode", mode, "max_protocol_version", version))
			require.Len(t, conn.PgConn().SecretKey(), length, version)
			require.NotZero(t, conn.PgConn().PID())
			ended := started(func() error { _, err := try(conn, "select pg_sleep(600), 'key'"); return err })
			server := watch(t, pgtest.Shared(t, 0))
			await(t, "the query", func() bool { return server.busyWith("select pg_sleep(600), 'key'") == 1 })
			ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
			require.NoError(t, conn.PgConn().CancelRequest(ctx))
			stop()
			require.Equal(t, "57014", pgError(t, <-ended).Code)
		}
	}
}
