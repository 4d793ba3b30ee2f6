package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgsidecar/internal/pgcluster"
)

// isolationPool is how many connections the isolation suite wants at least: one of its tests has that many sessions at once.
const isolationPool = 12

// environment is a fresh cluster, with pgsidecar in front of it or not. One goroutine uses it.
type environment struct {
	cluster *pgcluster.Cluster
	proxy   *pgcluster.Process // nil: the tests connect directly
	http    string             // where the proxy's metrics are
	port    int                // to which the tests connect
	dir     string             // where the logs go
}

// databaseOf is the database of a suite; some of the tests print its name.
func databaseOf(suite string) string {
	return map[string]string{"regress": "regression", "isolation": "isolation_regression"}[suite]
}

// start starts the servers of one run. dir keeps their logs.
func start(ctx context.Context, o options, t tests, l leg, dir string, proxied bool) (*environment, error) {
	cluster, err := pgcluster.Create(ctx, pgcluster.Config{
		Installation: t.server,
		Dir:          filepath.Join(dir, "cluster"),
		Settings: map[string]string{
			"shared_buffers":            "128MB", // the default: plans in expected outputs depend on it
			"max_prepared_transactions": "2",     // as pg_regress sets them for clusters of its own
			"compute_query_id":          "regress",
			"track_io_timing":           "off",
		},
	})
	if err != nil {
		return nil, err
	}
	e := &environment{cluster: cluster, dir: dir}
	if err := e.open(ctx, o, l, proxied); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *environment) open(ctx context.Context, o options, l leg, proxied bool) error {
	if err := e.cluster.Start(ctx); err != nil {
		return err
	}
	database := databaseOf(l.suite)
	if err := e.cluster.Exec(ctx, "CREATE DATABASE "+database+" TEMPLATE template0"); err != nil {
		return err
	}
	// As pg_regress does with a database of its own making.
	for _, setting := range []string{
		"lc_messages TO 'C'", "lc_monetary TO 'C'", "lc_numeric TO 'C'", "lc_time TO 'C'",
		"bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'",
	} {
		if err := e.cluster.Exec(ctx, "ALTER DATABASE "+database+" SET "+setting); err != nil {
			return err
		}
	}
	e.port = e.cluster.Port()
	if !proxied {
		return nil
	}
	return e.startProxy(ctx, o, l)
}

// startProxy runs pgsidecar with a sentinel that looks at every server that is released. Clients wait for a server as long
// as it takes: in a parallel group up to 20 of them come at once, and most will not let go of theirs before they end.
func (e *environment) startProxy(ctx context.Context, o options, l leg) error {
	var err error
	if e.port, err = freePort(ctx); err != nil {
		return err
	}
	httpPort, err := freePort(ctx)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(e.dir, "proxy.log"))
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	defer func() { _ = log.Close() }() // The proxy has its own descriptor.
	pool := o.pool
	if l.suite == "isolation" {
		pool = max(pool, isolationPool)
	}
	e.http = net.JoinHostPort("127.0.0.1", strconv.Itoa(httpPort))
	cmd := exec.CommandContext(context.WithoutCancel(ctx), o.proxy)
	cmd.Env = append(withoutPostgreSQL(os.Environ()),
		"DATABASE_URL="+e.cluster.URL("postgres", pgcluster.Superuser),
		"PGSIDECAR_LISTEN="+net.JoinHostPort("127.0.0.1", strconv.Itoa(e.port)),
		"PGSIDECAR_HTTP_LISTEN="+e.http,
		"PGSIDECAR_POOL_MODE="+l.mode,
		"PGSIDECAR_POOL_MAX_CONNECTIONS="+strconv.Itoa(pool),
		"PGSIDECAR_POOL_ACQUIRE_TIMEOUT=1h",
		"PGSIDECAR_CLIENT_AUTH_METHOD=trust",
		"PGSIDECAR_CLIENT_AUTH_UNKNOWN_USERS=as-is",
		"PGSIDECAR_SESSION_SENTINEL_EVERY=1",
	)
	cmd.Stdout, cmd.Stderr = log, log
	if e.proxy, err = pgcluster.Spawn(cmd, syscall.SIGKILL); err != nil {
		return err
	}
	return e.awaitReady(ctx, log.Name())
}

// awaitReady waits until the proxy has reached the server.
func (e *environment) awaitReady(ctx context.Context, log string) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := e.get(ctx, "/readyz"); err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-e.proxy.Done():
			return fmt.Errorf("start pgsidecar: it ended; %s says why", log)
		case <-ctx.Done():
			return fmt.Errorf("start pgsidecar: %w; %s may say more", context.Cause(ctx), log)
		}
	}
}

// get returns a page of the proxy's.
func (e *environment) get(ctx context.Context, path string) (page string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.http+path, nil)
	if err != nil {
		return "", fmt.Errorf("make request: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask pgsidecar: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("ask pgsidecar: %s", response.Status)
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", fmt.Errorf("ask pgsidecar: %w", err)
	}
	return string(body), nil
}

// leaks is how often the sentinel has found something that a client had left on a released server.
func (e *environment) leaks(ctx context.Context) (string, error) {
	page, err := e.get(ctx, "/metrics")
	if err != nil {
		return "", err
	}
	const metric = "\npgsidecar_state_leaks_total "
	_, value, ok := strings.Cut(page, metric)
	if !ok {
		return "", fmt.Errorf("find metric %s", strings.TrimSpace(metric))
	}
	value, _, _ = strings.Cut(value, "\n")
	return value, nil
}

// close ends the servers, and keeps PostgreSQL's log.
func (e *environment) close() error {
	var errs []error
	if e.proxy != nil {
		errs = append(errs, e.proxy.Signal(syscall.SIGKILL)) // there is nobody left to be polite to
		<-e.proxy.Done()
	}
	if e.cluster.Running() {
		errs = append(errs, os.Rename(e.cluster.LogFile(), filepath.Join(e.dir, "postgresql.log")))
	}
	return errors.Join(append(errs, e.cluster.Close())...)
}

// freePort is a port that nobody listens on at the moment.
func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		return 0, fmt.Errorf("find free port: %w", err)
	}
	return port, nil
}
