package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/pgcluster"
)

// Where pgsidecar listens unless it is told otherwise (section 8 of the architecture).
const (
	defaultListen     = "127.0.0.1:6432"
	defaultHTTPListen = "127.0.0.1:6433"
)

// readyTimeout bounds the wait for pgsidecar's first answer.
const readyTimeout = 30 * time.Second

// awaitReady waits until pgsidecar says that it is ready, has ended, or has had enough time.
func (e *environment) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		if isReady(ctx, e.httpAddr()) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-e.process.Done():
			return errors.New("pgsidecar did not start: its log above says why")
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil // Stopped by the user, who sees as much.
			}
			e.say("pgsidecar is not ready after %v: http://%s/readyz says why", readyTimeout, e.httpAddr())
			return nil
		}
	}
}

func isReady(ctx context.Context, addr string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close() // Only the status matters.
	return response.StatusCode == http.StatusOK
}

// explain tells the user what is running and what can be done with it.
func (e *environment) explain(upstream string) {
	u, err := pgconn.ParseConfig(upstream)
	if err != nil {
		u = new(pgconn.Config) // pgsidecar has understood it.
	}
	connect := url.URL{Scheme: "postgres", User: url.User(u.User), Host: e.listenAddr(), Path: "/" + u.Database}
	e.say("\npgsidecar is running in front of %s\n", e.servedBy(u))
	e.say("  connect   %s", psql(connect.String()))
	if len(e.servers) > 0 {
		e.say("  directly  %s", psql(e.servers[0].URL(database, role)))
	}
	e.say("  status    http://%s/", e.httpAddr())
	e.say("  metrics   http://%s/metrics", e.httpAddr())
	for _, server := range e.servers {
		e.say("  log       %s", server.LogFile())
	}
	if len(e.servers) == 2 {
		e.explainFailover(e.servers[0], e.servers[1])
	}
	e.say("  stop      Ctrl-C\n")
}

// explainFailover tells how the primary is lost and the standby takes its place. The commands are what pg_ctl does, which not
// every installation has and which refuses to work for root.
func (e *environment) explainFailover(primary, standby *pgcluster.Cluster) {
	e.say("  failover  kill -QUIT %s", postmaster(primary))
	e.say("            touch %s && kill -USR1 %s", filepath.Join(standby.DataDir(), "promote"), postmaster(standby))
	e.say("            The first ends the primary: transactions wait. The second promotes the standby: they go on there.")
	e.say("            Watch it with: %s status --http %s", e.proxy, e.httpAddr())
}

// postmaster is the command that prints the process id of a server.
func postmaster(c *pgcluster.Cluster) string {
	return "$(head -1 " + filepath.Join(c.DataDir(), "postmaster.pid") + ")"
}

// servedBy names the servers.
func (e *environment) servedBy(upstream *pgconn.Config) string {
	if len(e.servers) == 0 {
		return cmp.Or(strings.Join(addresses(upstream), ", "), "DATABASE_URL")
	}
	names := make([]string, 0, len(e.servers))
	for i, server := range e.servers {
		names = append(names, []string{"primary", "standby"}[min(i, 1)]+" "+server.Addr())
	}
	return "PostgreSQL " + e.servers[0].Installation().Version + ": " + strings.Join(names, ", ")
}

// addresses lists the hosts of a URL, each once: some stand there twice, with TLS and without.
func addresses(c *pgconn.Config) []string {
	var list []string
	add := func(host string, port uint16) {
		if _, a := pgconn.NetworkAddress(host, port); host != "" && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	add(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		add(f.Host, f.Port)
	}
	return list
}

// psql is the command to type if psql is there, and the bare URL otherwise.
func psql(connectionURL string) string {
	if _, err := exec.LookPath("psql"); err == nil {
		return "psql '" + connectionURL + "'"
	}
	for _, inst := range pgcluster.Installations("") {
		if path, err := inst.Program("psql"); err == nil {
			return path + " '" + connectionURL + "'"
		}
	}
	return connectionURL
}

// listenAddr is the first address on which pgsidecar listens for clients.
func (e *environment) listenAddr() string {
	first, _, _ := strings.Cut(e.getenv("PGSIDECAR_LISTEN"), ",")
	return cmp.Or(strings.TrimSpace(first), defaultListen)
}

func (e *environment) httpAddr() string {
	return cmp.Or(e.getenv("PGSIDECAR_HTTP_LISTEN"), defaultHTTPListen)
}

// hurried tells of a second Ctrl-C.
func hurried() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}
