package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/config"
	"pgsidecar/internal/console"
	"pgsidecar/proxy"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/stats"
	"pgsidecar/router"
	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
	"pgsidecar/router/switchover"
)

// routing leads the proxy to the primary that the router accepts.
type routing struct {
	*proxy.Proxy

	router     *router.Router
	switchover *switchover.Switchover
	console    *console.Console
	course     atomic.Pointer[course]
}

// course is how servers are found and reached by the configuration in force. It is immutable.
type course struct {
	manner   manner
	found    found
	upstream config.Upstream
	server   server.Config
}

// connect returns how to connect to a target as the upstream's user.
func (r *routing) connect(to discover.Target) (*pgconn.Config, error) {
	how := r.course.Load()
	connect := server.At(how.server.Upstream, *placeOf(to))
	if file := how.upstream.PasswordFile; file != "" {
		password, err := server.ReadPassword(file)
		if err != nil {
			return nil, err
		}
		connect.Password = password
	}
	return connect, nil
}

// manner is how the upstream's hosts are used.
type manner int

const (
	// following: several hosts, or one that has to be a primary. Servers are dialled at the one that the router accepts.
	following manner = iota
	// lenient: one host. It is dialled as it is, and given up when it has been a primary and is one no more.
	lenient
	// asTold: the URL asks for something else than the primary. The hosts are tried in order, as libpq does.
	asTold
)

// mannerOf decides by the words of libpq. Without a word, several hosts mean the one that is the primary.
func mannerOf(c *config.Config, upstream *pgconn.Config) (m manner, writable bool) {
	means := func(f pgconn.ValidateConnectFunc) bool {
		return upstream.ValidateConnect != nil && reflect.ValueOf(upstream.ValidateConnect).Pointer() == reflect.ValueOf(f).Pointer()
	}
	switch {
	case means(pgconn.ValidateConnectTargetSessionAttrsReadWrite):
		return following, true
	case means(pgconn.ValidateConnectTargetSessionAttrsPrimary):
		return following, false
	case upstream.ValidateConnect != nil, strings.Contains(c.Upstream.URL.Reveal(), "target_session_attrs=any"):
		return asTold, false
	case len(c.Upstream.Hosts) > 0, c.Discovery.Any(), len(hostsOf(c.Upstream, upstream)) > 1:
		return following, false
	}
	return lenient, false
}

// hostsOf returns the servers that a configuration lists.
func hostsOf(c config.Upstream, upstream *pgconn.Config) []discover.Target {
	var all []discover.Target
	add := func(host string, port uint16) {
		t := discover.Target{Host: host, Port: port}
		if !slices.ContainsFunc(all, func(x discover.Target) bool { return x.Addr() == t.Addr() }) {
			all = append(all, t)
		}
	}
	for _, address := range c.Hosts {
		host, text, _ := net.SplitHostPort(address)
		port, _ := strconv.ParseUint(text, 10, 16) // Validated when it was read.
		add(host, uint16(port))
	}
	if len(all) > 0 {
		return all
	}
	add(upstream.Host, upstream.Port)
	for _, f := range upstream.Fallbacks {
		add(f.Host, f.Port)
	}
	return all
}

// wireRouter translates a configuration for the router.
func (r *routing) wireRouter(c config.Config, wired proxy.Config) (router.Config, *course, error) {
	m, writable := mannerOf(&c, wired.Server.Upstream)
	w := &course{manner: m, upstream: c.Upstream, server: wired.Server}
	same := c.Upstream
	same.Hosts = nil // Where servers are says nothing about how they are reached.
	to := router.Config{
		Version: c.Upstream.URL.Reveal() + fmt.Sprint(same), Writable: writable, MaxLost: uint64(c.Failover.MaxLostWAL), Lenient: m == lenient,
		Changed: r.changed, Watched: r.watched,
		MaxLag: c.Reads.MaxLag, MaxLagBytes: uint64(c.Reads.MaxLagBytes),
		NewProber: func(t discover.Target, changed func()) router.Prober {
			return probe.New(wireProbe(c.Upstream, wired.Server, t, func(o *probe.Observation) {
				r.course.Load().found.observe(o)
				changed()
			}))
		},
	}
	if m == asTold {
		return to, w, nil
	}
	var err error
	if w.found, err = findServers(c, wired.Server.Upstream); err != nil {
		return to, nil, &configError{err}
	}
	to.Sources = w.found.sources
	return to, w, nil
}

// wireProbe translates how one target is probed.
func wireProbe(c config.Upstream, s server.Config, t discover.Target, changed func(*probe.Observation)) probe.Config {
	p := probe.Config{
		Connect:       server.At(s.Upstream, *placeOf(t)),
		KeepAliveIdle: s.KeepAliveIdle, KeepAliveInterval: s.KeepAliveInterval, KeepAliveCount: s.KeepAliveCount, UserTimeout: s.UserTimeout,
		Changed: changed,
	}
	if file := c.PasswordFile; file != "" {
		p.Password = func() (string, error) { return server.ReadPassword(file) }
	}
	return p
}

func placeOf(t discover.Target) *server.Place {
	return &server.Place{Host: t.Host, Port: t.Port, ServerName: t.ServerName}
}

// follow makes the router for a proxy.
func (r *routing) follow(to router.Config, w *course, log *slog.Logger) {
	r.course.Store(w)
	r.router = router.New(to, log)
	r.switchover = switchover.New(switchover.Config{Router: r.router, Traffic: r, Connect: r.connect})
	if w.manner == following {
		r.Detain("no server has been probed yet")
	}
}

// changed leads the proxy to the primary. The router's goroutine calls it.
func (r *routing) changed(t *router.Topology) {
	switch primary := t.Accepted(); {
	case primary == nil:
		r.Detain(t.Why)
	case r.course.Load().manner == following:
		r.Redirect(placeOf(primary.Target), t.Generation)
	default:
		r.Redirect(nil, t.Generation)
	}
}

// watched lets clients read from the standbys that can be read from. The router's goroutine calls it.
func (r *routing) watched(t *router.Topology) {
	all := make([]proxy.Standby, 0, len(t.Targets))
	for i := range t.Targets {
		target := &t.Targets[i]
		s := proxy.Standby{Name: target.Name, Place: *placeOf(target.Target)}
		switch one := target.Reading; {
		case one != nil:
			s.Shows, s.Since, s.Seen, s.Avoid = one.Shows, one.Since, one.Seen, one.Behind != ""
		case target.Role() == "unknown":
			s.Lost = true
		default:
			continue
		}
		all = append(all, s)
	}
	r.ReadFrom(all)
}

// reloadTimeout bounds how long a reload waits for the router, which is never busy for long.
const reloadTimeout = 5 * time.Second

// reload puts another configuration in force.
func (r *routing) reload(c config.Config, log *slog.Logger) error {
	wired, err := wire(c, log)
	if err != nil {
		return err
	}
	next, w, err := r.wireRouter(c, wired)
	if err != nil {
		return err
	}
	was := r.course.Load().manner
	if (w.manner == asTold) != (was == asTold) {
		return errors.New("upstream.url: a change between following the primary and another target_session_attrs needs a restart")
	}
	if was != w.manner && w.manner == following {
		r.Detain("the servers are looked at before one is dialled") // The router's next word ends it.
	}
	wired.Suspect, wired.Console = r.router.Suspect, r.console
	if err := r.Reload(wired); err != nil {
		r.changed(r.router.Topology())
		return err
	}
	r.course.Store(w)
	ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
	defer cancel()
	if err := r.router.Reload(ctx, next); err != nil {
		return fmt.Errorf("reload targets: %w", err)
	}
	return nil
}

// Snapshot adds what the router knows.
func (r *routing) Snapshot() stats.Snapshot {
	s := r.Proxy.Snapshot()
	s.Held = r.Held()
	if r.course.Load().manner != asTold {
		s.Topology = topologyOf(r.router.Topology())
	}
	return s
}

// topologyOf translates a topology for those who show it.
func topologyOf(t *router.Topology) stats.Topology {
	out := stats.Topology{Known: true, Why: t.Why, Alarms: t.Alarms, SystemID: t.SystemID, Timeline: t.Timeline, Switched: t.Switched}
	for i := range t.Targets {
		one := &t.Targets[i]
		target := stats.Target{
			Name: one.Name, Address: one.Addr(), Role: one.Role(), Health: one.Health(), Accepted: i == t.Primary, Refusal: one.Refusal,
		}
		if o := one.Seen; o != nil {
			target.Age = time.Since(o.At)
			if o.Err == nil {
				target.Timeline, target.LSN, target.LagTime = o.Timeline, o.LSN.String(), o.Lag
				target.LagBytes = behind(t, o)
			}
		}
		if r := one.Reading; r != nil {
			target.Readable, target.Behind = true, r.Behind
		}
		out.Targets = append(out.Targets, target)
	}
	for _, s := range t.Switches {
		out.Switches = append(out.Switches, stats.Switch{
			From: s.From, To: s.To, Before: s.Before, Timeline: s.Timeline, At: s.At, Took: s.Took, Lost: s.Lost, Approximate: s.Approximate,
		})
	}
	return out
}

// behind returns how many bytes of WAL a standby has not replayed that the primary had written when it was last seen.
func behind(t *router.Topology, o *probe.Observation) uint64 {
	p := t.Accepted()
	if p == nil || p.Seen == nil || p.Seen.Err != nil || !o.Standby || o.LSN >= p.Seen.LSN {
		return 0
	}
	return uint64(p.Seen.LSN - o.LSN)
}
