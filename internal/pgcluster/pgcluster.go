// Package pgcluster runs throwaway PostgreSQL servers: primaries made by initdb, and streaming standbys of them. Tests,
// benchmarks and `make run` build on it; it is not for data that anyone wants to keep (fsync is off).
//
// The invariant: whatever a Cluster has started ends with the process that started it, however that one ends.
package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Superuser is the bootstrap role of every cluster. Over the unix socket it is trusted, whatever the cluster's Auth says, so
// that whoever runs the cluster can always administer it.
const Superuser = "postgres"

// Password is the password of a role by convention: the superuser has it from the start, and those who create roles in a
// cluster keep to it, so that URL need not be told.
func Password(user string) string { return "pw-" + user }

// Config says what kind of cluster to make. The zero value, once Installation and Dir are set, is a primary that trusts
// everyone on loopback, without TLS.
type Config struct {
	// Installation is the PostgreSQL to run.
	Installation Installation
	// Dir holds everything that belongs to the cluster and is created with its parents. Close removes it.
	Dir string
	// Templates is a directory that keeps one freshly made data directory a version, to be copied instead of running
	// initdb again. Processes may share it. Empty: initdb runs every time.
	Templates string
	// Auth is the method of pg_hba.conf for everyone but the superuser on the unix socket: trust, password, md5,
	// scram-sha-256 or cert. Empty means trust.
	Auth string
	// HBA are lines for pg_hba.conf that come before all others, so that they win.
	HBA []string
	// TLS, when set, issues the server's certificate for localhost, and ssl is on.
	TLS *CA
	// Settings are lines of postgresql.conf by name; a value is quoted as a string. They override the defaults.
	Settings map[string]string
}

// Cluster is one PostgreSQL server with its data directory. Its methods are for one goroutine at a time.
type Cluster struct {
	cfg     Config
	owner   owner
	port    reservation
	primary string   // primary_conninfo of a standby; empty on a primary
	sockets string   // directory of the unix socket
	process *Process // the postmaster, nil before the first Start
}

// Create makes the data directory of a primary and reserves its port; Start starts it. An error leaves nothing behind.
func Create(ctx context.Context, cfg Config) (*Cluster, error) {
	c, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.initialise(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// initialise fills the data directory of a primary.
func (c *Cluster) initialise(ctx context.Context) error {
	if err := c.owner.initdb(ctx, c.cfg.Installation, c.cfg.Templates, c.DataDir()); err != nil {
		return err
	}
	if c.cfg.Auth == "md5" {
		if err := c.hashPasswordWithMD5(ctx); err != nil {
			return err
		}
	}
	return c.configure()
}

// prepare makes the directories of a cluster and reserves its port.
func prepare(ctx context.Context, cfg Config) (*Cluster, error) {
	who, err := findOwner()
	if err != nil {
		return nil, err
	}
	if cfg.Installation, err = who.reachable(ctx, cfg.Installation); err != nil {
		return nil, err
	}
	for _, dir := range []*string{&cfg.Dir, &cfg.Templates} {
		if *dir == "" {
			continue
		}
		if *dir, err = filepath.Abs(*dir); err != nil {
			return nil, fmt.Errorf("resolve directory: %w", err)
		}
	}
	port, err := reservePort(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{cfg: cfg, owner: who, port: port}
	for _, d := range []string{cfg.Dir, filepath.Join(cfg.Dir, "tls")} {
		if err := who.mkdir(d); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	if err := c.makeSocketDir(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// longestSocketPath is what fits into sockaddr_un with the zero byte at the end.
const longestSocketPath = 107

// makeSocketDir puts the socket's directory into Dir, or, where the path would be too long for a socket, into /tmp.
func (c *Cluster) makeSocketDir() error {
	c.sockets = filepath.Join(c.cfg.Dir, "s")
	if len(c.SocketFile()) <= longestSocketPath {
		return c.owner.mkdir(c.sockets)
	}
	dir, err := os.MkdirTemp("/tmp", "pgs")
	if err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	c.sockets = dir
	return c.owner.chown(dir)
}

// Close ends the server at once if it runs, removes its directory and gives its port back.
func (c *Cluster) Close() error {
	var errs []error
	if c.Running() {
		errs = append(errs, c.Kill())
	}
	errs = append(errs, os.RemoveAll(c.cfg.Dir), c.port.release())
	if c.sockets != "" {
		errs = append(errs, os.RemoveAll(c.sockets))
	}
	return errors.Join(errs...)
}

// Major is the server's major version.
func (c *Cluster) Major() int { return c.cfg.Installation.Major }

// Installation is the PostgreSQL that the cluster runs.
func (c *Cluster) Installation() Installation { return c.cfg.Installation }

// Host is the address on which the server listens for TCP.
func (c *Cluster) Host() string { return "127.0.0.1" }

// Port is the server's port, the same for the life of the cluster.
func (c *Cluster) Port() int { return c.port.number }

// Addr is Host:Port.
func (c *Cluster) Addr() string { return net.JoinHostPort(c.Host(), strconv.Itoa(c.Port())) }

// DataDir is the server's data directory.
func (c *Cluster) DataDir() string { return filepath.Join(c.cfg.Dir, "data") }

// SocketDir is the directory of the server's unix socket: libpq takes it as a host.
func (c *Cluster) SocketDir() string { return c.sockets }

// SocketFile is the path of the server's unix socket.
func (c *Cluster) SocketFile() string {
	return filepath.Join(c.SocketDir(), ".s.PGSQL."+strconv.Itoa(c.Port()))
}

// LogFile is the file to which the server logs.
func (c *Cluster) LogFile() string { return filepath.Join(c.cfg.Dir, "log") }

// URL is a connection URL over TCP, with the conventional Password of user. With TLS the server's certificate is verified.
// Each of params is a "key=value" that is added or replaces what would be there.
func (c *Cluster) URL(database, user string, params ...string) string {
	query := url.Values{"sslmode": {"disable"}}
	if c.cfg.TLS != nil {
		query = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {c.RootCertFile()}}
	}
	return c.url(c.Addr(), database, user, query, params)
}

// SocketURL is a connection URL over the unix socket.
func (c *Cluster) SocketURL(database, user string, params ...string) string {
	query := url.Values{"host": {c.SocketDir()}, "port": {strconv.Itoa(c.Port())}}
	return c.url("", database, user, query, params)
}

func (c *Cluster) url(host, database, user string, query url.Values, params []string) string {
	for _, p := range params {
		key, value, _ := strings.Cut(p, "=")
		query.Set(key, value)
	}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(user, Password(user)),
		Host:     host,
		Path:     "/" + database,
		RawQuery: query.Encode(),
	}
	return u.String()
}

// RootCertFile is the certificate of the authority that issued the server's; it exists when Config.TLS is set.
func (c *Cluster) RootCertFile() string { return filepath.Join(c.cfg.Dir, "tls", "root.crt") }

// Exec runs SQL, one statement or several, as the superuser in the database postgres.
func (c *Cluster) Exec(ctx context.Context, sql string) (err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("run %q: %w", sql, err)
	}
	return nil
}

// connect opens the superuser's connection over the unix socket.
func (c *Cluster) connect(ctx context.Context) (*pgconn.PgConn, error) {
	conn, err := pgconn.Connect(ctx, c.SocketURL("postgres", Superuser))
	if err != nil {
		return nil, fmt.Errorf("connect to cluster: %w", err)
	}
	return conn, nil
}
