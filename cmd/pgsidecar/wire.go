package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/config"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
)

// openProxy makes the proxy that a configuration asks for. It neither binds nor dials.
func openProxy(c config.Config, log *slog.Logger) (parts, error) {
	wired, err := wire(c, log)
	if err != nil {
		return parts{}, &configError{err}
	}
	r := new(routing)
	wired.Suspect = func() { r.router.Suspect() }
	life := new(lifeline)
	r.console = newConsole(r, life, log)
	wired.Console = r.console
	if r.Proxy, err = proxy.New(wired, log); err != nil {
		return parts{}, fmt.Errorf("make proxy: %w", err)
	}
	targets, w, err := r.wireRouter(c, wired)
	if err != nil {
		return parts{}, err
	}
	r.follow(targets, w, log)
	return parts{
		serving: r, observed: r, ending: r, moving: r.Proxy, holder: r, switcher: r, targets: r, watch: r.router.Run,
		reload: func(c config.Config) error { return r.reload(c, log) }, life: life,
	}, nil
}

// wire translates a configuration for the proxy, and reads the users file and the password file. Warnings go to log.
func wire(c config.Config, log *slog.Logger) (proxy.Config, error) {
	upstream, err := pgconn.ParseConfig(c.Upstream.URL.Reveal())
	if err != nil {
		return proxy.Config{}, errors.New("upstream.url: is not understood") // The driver's words may quote secrets.
	}
	authentication, err := wireAuth(c, upstream, log)
	if err != nil {
		return proxy.Config{}, err
	}
	listen, routes := make([]string, len(c.Listen)), make([]session.Route, len(c.Listen))
	for i, l := range c.Listen {
		listen[i], routes[i] = l.Address, wireRoute(l.Route)
	}
	wired := proxy.Config{
		Listen: listen, Routes: routes, Loops: c.Loops, MemoryShare: c.Memory.Admission,
		Auth: authentication, TLS: wireTLS(c.ClientTLS), Login: wireLogin(c),
		Server: wireServer(c.Upstream, upstream), Pool: wirePool(c, upstream),
		Mode: wireMode(c.Pool.Mode), Session: wireSession(c), Unsupported: wireUnsupported(c.Session.OnUnsupported),
		MaxClients: c.Client.MaxClients, MaxClientsPerDatabase: c.Client.MaxClientsPerDatabase, MaxClientsPerUser: c.Client.MaxClientsPerUser,
		Databases: make(map[string]proxy.Database, len(c.Databases)), Users: make(map[string]proxy.User, len(c.Users)),
		LogConnections: c.Log.Connections,
	}
	for name, d := range c.Databases {
		wired.Databases[name] = proxy.Database{
			Name: d.DBName, User: d.User, Mode: own(d.PoolMode, wireMode), Route: own(d.Route, wireRoute), MaxClients: d.MaxClients, MaxConnections: d.MaxConnections,
			Unsupported: own(d.OnUnsupported, wireUnsupported),
		}
	}
	for name, u := range c.Users {
		wired.Users[name] = proxy.User{Mode: own(u.PoolMode, wireMode), MaxClients: u.MaxClients, MaxConnections: u.MaxConnections}
	}
	return wired, nil
}

// wireAuth reads the users and the upstream user's password.
func wireAuth(c config.Config, upstream *pgconn.Config, log *slog.Logger) (auth.Config, error) {
	a := auth.Config{
		Method: auth.Method(c.ClientAuth.Method), Unknown: auth.Unknown(c.ClientAuth.UnknownUsers), ForceTrust: c.ClientAuth.ForceTrust,
		Upstream: auth.Identity{User: upstream.User, Password: upstream.Password},
	}
	if file := c.Upstream.PasswordFile; file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // The name is the operator's own.
		if err != nil {
			return a, fmt.Errorf("upstream.password_file: %w", err)
		}
		a.Upstream.Password = strings.TrimRight(string(content), "\r\n")
	}
	if file := c.ClientAuth.UsersFile; file != "" {
		users, warnings, err := auth.ReadUsers(file)
		if err != nil {
			return a, fmt.Errorf("client_auth.users_file: %w", err)
		}
		for _, w := range warnings {
			log.Warn("users file", slog.String("warning", w))
		}
		a.Users = users
	}
	return a, nil
}

func wireTLS(c config.ClientTLS) *login.CertFiles {
	if c.Mode == config.TLSDisable {
		return nil
	}
	files := &login.CertFiles{Cert: c.CertFile, Key: c.KeyFile, CA: c.CAFile, MinVersion: tls.VersionTLS12}
	if c.MinVersion == config.TLS13 {
		files.MinVersion = tls.VersionTLS13
	}
	return files
}

func wireLogin(c config.Config) login.Config {
	l := login.Config{Timeout: c.Client.LoginTimeout}
	switch c.ClientTLS.Mode {
	case config.TLSVerifyFull:
		l.ClientCert = login.CertVerifyFull
	case config.TLSVerifyCA:
		l.ClientCert = login.CertVerifyCA
	case config.TLSRequire:
		l.RequireTLS = true
	case config.TLSAllow, config.TLSDisable:
	}
	return l
}

// keepaliveProbes is how many probes in a row a server may leave unanswered.
const keepaliveProbes = 3

// wireServer translates how the server is reached. Half of the keepalive time passes before the first probe, and the
// probes share the other half.
func wireServer(c config.Upstream, upstream *pgconn.Config) server.Config {
	return server.Config{
		Upstream: upstream, Source: c.URL.Reveal(), PasswordFile: c.PasswordFile,
		ConnectTimeout: connectTimeout(c, upstream),
		KeepAliveIdle:  c.Keepalive / 2, KeepAliveInterval: c.Keepalive / 2 / keepaliveProbes, KeepAliveCount: keepaliveProbes,
		UserTimeout: c.TCPUserTimeout,
	}
}

// connectTimeout returns how long one host may take.
func connectTimeout(c config.Upstream, upstream *pgconn.Config) time.Duration {
	if upstream.ConnectTimeout > 0 { // The URL's own.
		return upstream.ConnectTimeout
	}
	return c.ConnectTimeout
}

// wirePool translates the bounds. The pool counts one attempt over all hosts and ways of encryption, and takes 0 for its
// default where here it switches a rule off.
func wirePool(c config.Config, upstream *pgconn.Config) pool.Config {
	return pool.Config{
		MaxConnections: c.Pool.MaxConnections, MinConnections: c.Pool.MinConnections,
		MaxPerDatabase: c.Pool.MaxConnectionsPerDatabase, MaxPerUser: c.Pool.MaxConnectionsPerUser,
		IdleTimeout: offBelowZero(c.Pool.IdleTimeout), MaxLifetime: offBelowZero(c.Pool.MaxLifetime), Hold: offBelowZero(c.Failover.Hold),
		DialTimeout: connectTimeout(c.Upstream, upstream) * time.Duration(1+len(upstream.Fallbacks)),
	}
}

func offBelowZero(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func wireSession(c config.Config) session.Config {
	return session.Config{
		AcquireTimeout: c.Pool.AcquireTimeout, WriteTimeout: c.Client.WriteTimeout, ClientIdleTimeout: c.Client.IdleTimeout,
		QueryTimeout: c.Timeouts.Query, TransactionTimeout: c.Timeouts.Transaction, IdleTransactionTimeout: c.Timeouts.IdleTransaction,
		Consistency: wireConsistency(c.Reads.Consistency), Hold: c.Failover.Hold, ReadOnlyTransactions: c.Reads.ReadOnlyTransactions,
		SentinelEvery: c.Session.SentinelEvery, LearnEvery: c.Session.LearnEvery, Explain: c.Session.Explain, ResolveCommit: c.Failover.ResolveCommit,
		PreparedPerServer: c.PreparedStatements.Max, PreparedPerClient: c.PreparedStatements.MaxPerClient,
	}
}

// own translates what is said for one database or user, which may leave it to what holds for all: nil then.
func own[Said ~string, Wired any](said Said, wire func(Said) Wired) *Wired {
	if said == "" {
		return nil
	}
	wired := wire(said)
	return &wired
}

func wireUnsupported(u config.OnUnsupported) session.Unsupported {
	switch u {
	case config.UnsupportedError:
		return session.RefuseUnsupported
	case config.UnsupportedWarn:
		return session.WarnUnsupported
	case config.UnsupportedPin:
	}
	return session.PinUnsupported
}

func wireMode(m config.PoolMode) session.Mode {
	switch m {
	case config.PoolSession:
		return session.WholeSession
	case config.PoolStatement:
		return session.Statement
	case config.PoolTransaction:
	}
	return session.Transaction
}

func wireConsistency(c config.Consistency) session.Consistency {
	switch c {
	case config.ConsistencyEventual:
		return session.EventualConsistency
	case config.ConsistencyStrict:
		return session.StrictConsistency
	case config.ConsistencySession:
	}
	return session.SessionConsistency
}

func wireRoute(r config.Route) session.Route {
	switch r {
	case config.RouteStandby:
		return session.StandbyOnly
	case config.RoutePreferStandby:
		return session.PreferStandby
	case config.RouteAny:
		return session.AnyServer
	case config.RouteAuto:
		return session.Auto
	case config.RoutePrimary:
	}
	return session.Primary
}
