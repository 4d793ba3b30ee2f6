// Package contender puts up what a benchmark compares: PostgreSQL itself and the proxies in front of it, all on loopback with
// pools of the same size. It applies no load.
package contender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/bench/process"
)

const (
	// Database is the one database of the benchmark, filled by pgbench.
	Database = "bench"
	// CopyTable is an empty table with one column of text.
	CopyTable = "bench_copy"
)

// ErrMissing says that a program is not installed, so that its contender sits out.
var ErrMissing = errors.New("program not found")

// startTimeout is how long a proxy may take until it answers a query through a server connection.
const startTimeout = 15 * time.Second

// Config is what all contenders have in common.
type Config struct {
	Dir      string // of the benchmark: configuration, certificates, logs
	PoolSize int    // server connections of each proxy
	Clients  int    // the most clients at a time
	Postgres *Postgres
}

// Contender is one way from a client to PostgreSQL. It is for one goroutine at a time.
type Contender struct {
	Name    string // also the role that its clients log in as, so that its server connections can be told from others'
	Version string
	Host    string
	Port    int    // changes with Restart
	Metrics string // URL of Prometheus metrics; empty when it has none

	launch  func(ctx context.Context, c *Contender) (*process.Process, error) // nil for PostgreSQL itself
	process *process.Process                                                  // nil for PostgreSQL itself
}

// PID is the id of the proxy's process, 0 for PostgreSQL itself, which is many.
func (c *Contender) PID() int {
	if c.process == nil {
		return 0
	}
	return c.process.PID()
}

// Restart replaces the proxy by a fresh process and waits until it serves. PostgreSQL itself stays.
func (c *Contender) Restart(ctx context.Context) error {
	if c.launch == nil {
		return nil
	}
	c.Stop()
	started, err := c.launch(ctx, c)
	if err != nil {
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	c.process = started
	if err := c.awaitReady(ctx); err != nil {
		c.Stop()
		return fmt.Errorf("start %s: %w", c.Name, err)
	}
	return nil
}

// Stop ends the proxy. A stopped contender may be restarted.
func (c *Contender) Stop() {
	if c.process != nil {
		c.process.Stop()
		c.process = nil
	}
}

// awaitReady waits until a query has gone through the proxy and back.
func (c *Contender) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		err := c.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.process.Exited():
			return c.process.Failure()
		case <-ctx.Done():
			return fmt.Errorf("await first answer: %w", err)
		case <-retry.C:
		}
	}
}

func (c *Contender) probe(ctx context.Context) error {
	conn, err := c.Connect(ctx, false)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT 1").ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// Connect opens a client's connection, which is the caller's to close. Under TLS the certificate is not verified, as under
// libpq's sslmode=require: the loads compare servers, and pgbench does it so.
func (c *Contender) Connect(ctx context.Context, encrypted bool) (*pgconn.PgConn, error) {
	config, err := pgconn.ParseConfig(c.URL())
	if err != nil {
		return nil, fmt.Errorf("parse URL of %s: %w", c.Name, err)
	}
	if encrypted {
		config.TLSConfig = &tls.Config{InsecureSkipVerify: true}
	}
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", c.Name, err)
	}
	return conn, nil
}

// URL is the plain connection URL of the contender's clients.
func (c *Contender) URL() string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(c.Name),
		Host:     net.JoinHostPort(c.Host, strconv.Itoa(c.Port)),
		Path:     "/" + Database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// freePort asks the kernel for a port on loopback. The proxies cannot be handed a listening socket, so another process could
// take the port before the proxy does; then the start fails and says so.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.Join(errors.New("find free port: not a TCP address"), listener.Close())
	}
	return address.Port, listener.Close()
}
