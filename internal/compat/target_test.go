package compat_test

import (
	"context"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
)

// target is where a driver connects, and as whom: PostgreSQL or the proxy. Both want a password and offer TLS with a
// certificate that the same authority has issued.
type target struct {
	host, port, user, password, database string
	ca                                   string // file
}

// environ hands the target to a program of another language.
func (at target) environ() []string {
	return []string{
		"COMPAT_HOST=" + at.host,
		"COMPAT_PORT=" + at.port,
		"COMPAT_USER=" + at.user,
		"COMPAT_PASSWORD=" + at.password,
		"COMPAT_DATABASE=" + at.database,
		"COMPAT_CA=" + at.ca,
	}
}

// url is the target with settings, given as pairs of a name and a value. Without one of sslmode there is no TLS.
func (at target) url(params ...string) string {
	query := url.Values{"sslmode": {"disable"}}
	for i := 0; i+1 < len(params); i += 2 {
		query.Set(params[i], params[i+1])
	}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(at.user, at.password),
		Host:     net.JoinHostPort(at.host, at.port),
		Path:     "/" + at.database,
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20"), // libpq takes a plus for itself
	}
	return u.String()
}

// schema is what each run finds in its database. Nothing in it is shared with another run.
const schema = `
CREATE TABLE item (id int PRIMARY KEY, name text NOT NULL, price numeric(12,2), tags text[], note jsonb);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE wide (id int PRIMARY KEY, a text);
INSERT INTO wide VALUES (1, 'one'), (2, 'two');
CREATE FUNCTION shout(words text) RETURNS text LANGUAGE plpgsql AS
	$$BEGIN RAISE NOTICE 'shouting %', words USING DETAIL = 'loud'; RETURN upper(words); END$$;
CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'failing as told' USING ERRCODE = code, DETAIL = 'the detail', HINT = 'the hint'; END$$;
`

// startCluster starts the PostgreSQL of these tests: the newest that is installed, or the version PGSIDECAR_COMPAT_PG.
func startCluster(t *testing.T) *pgtest.Cluster {
	t.Helper()
	major, _ := strconv.Atoi(os.Getenv("PGSIDECAR_COMPAT_PG"))
	return pgtest.Start(t, pgtest.Config{Major: major, TLS: true, Auth: "scram-sha-256", MaxConnections: 300})
}

// direct is the cluster itself, with a fresh database.
func direct(t *testing.T, c *pgtest.Cluster) target {
	t.Helper()
	database := c.Database(t)
	c.ExecIn(t, database, schema)
	return target{
		host: c.Host(), port: strconv.Itoa(c.Port()), user: pgcluster.Superuser, password: pgtest.Password(pgcluster.Superuser),
		database: database, ca: c.RootCertFile(),
	}
}

// poolSize bounds the server connections in transaction mode. The programs open more connections than that, but have no
// more than three of them in transactions or pinned at the same time.
const poolSize = 3

// through is a proxy in front of the cluster, which lives as long as the test, and a fresh database. In session mode every
// connection of a program has a server of its own.
func through(t *testing.T, c *pgtest.Cluster, mode session.Mode) target {
	t.Helper()
	at := direct(t, c)
	upstream, err := pgconn.ParseConfig(c.URL("postgres", at.user))
	require.NoError(t, err)
	config := proxy.Config{
		Listen:  []string{at.host + ":0"},
		Mode:    mode,
		Auth:    auth.Config{Method: auth.SCRAM, Upstream: auth.Identity{User: at.user, Password: at.password}},
		TLS:     certificate(t, c),
		Server:  server.Config{Upstream: upstream},
		Session: session.Config{AcquireTimeout: 20 * time.Second},
	}
	config.Pool.MaxConnections = poolSize
	if mode == session.WholeSession {
		config.Pool.MaxConnections = 40
	}
	_, at.port, err = net.SplitHostPort(serve(t, config))
	require.NoError(t, err)
	return at
}

// certificate is what the proxy offers TLS with.
func certificate(t *testing.T, c *pgtest.Cluster) *login.CertFiles {
	t.Helper()
	issued, err := c.CA().Issue("proxy", "localhost", c.Host())
	require.NoError(t, err)
	dir := t.TempDir()
	files := &login.CertFiles{Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	require.NoError(t, os.WriteFile(files.Cert, issued.Cert, 0o600))
	require.NoError(t, os.WriteFile(files.Key, issued.Key, 0o600))
	return files
}

// serve runs a proxy until the test ends and returns its address.
func serve(t *testing.T, config proxy.Config) string {
	t.Helper()
	p, err := proxy.New(config, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	require.NoError(t, err)
	require.NoError(t, p.Listen(t.Context()))
	served := make(chan error, 1)
	go func() { served <- p.Serve(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		require.NoError(t, <-served)
	})
	return p.Addresses()[0]
}
