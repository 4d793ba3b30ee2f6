package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"unique"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/stats"
)

// enter is the goroutine of a client that logs in. It ends when the client has been handed to a loop, or is refused.
func (p *Proxy) enter(ctx context.Context, conn net.Conn, route session.Route) {
	set := p.setting.Load()
	config := set.config.Login
	config.Auth = set.policy
	if set.tls != nil {
		config.TLS = set.tls.current
	}
	result, err := login.Accept(ctx, conn, config)
	switch {
	case errors.Is(err, login.ErrProbe):
	case err != nil:
		p.loginFailed(conn, err)
	case result.Cancel != nil:
		p.cancel(ctx, result.Cancel)
	case set.forConsole(result.Client):
		p.consult(ctx, set, result.Client)
	default:
		p.admit(ctx, set, result.Client, route)
	}
}

func (p *Proxy) loginFailed(conn net.Conn, err error) {
	outcome := stats.Broken
	if told, ok := errors.AsType[*auth.FatalError](err); ok {
		p.errors.Add([]byte(told.SQLState), stats.FromProxy)
		switch told.SQLState[:2] {
		case "28":
			outcome = stats.AuthFailed
		case "57":
			outcome = stats.Unavailable
		}
	}
	p.logins.Add(outcome)
	p.log.Warn("login failed", slog.String("client", conn.RemoteAddr().String()), slog.Any("error", err))
}

// cancel passes a cancel request on to the session that has its key. As at PostgreSQL, the end of the request's connection
// tells the client that it has had its effect: the client may end its session then, which must not overtake the request, or
// go on with a query that the request must not hit.
func (p *Proxy) cancel(ctx context.Context, request *login.Cancel) {
	defer request.Conn.Close()
	target := p.findTarget(ctx, request.PID, request.Secret)
	if target == nil {
		return
	}
	done := make(chan struct{})
	target.CancelRequested(func() { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// refusal is why a client that is authenticated cannot be served.
type refusal struct {
	code, message, hint string
	outcome             stats.Outcome
}

// admit hands an authenticated client to a loop.
func (p *Proxy) admit(ctx context.Context, set *setting, client *login.Client, route session.Route) {
	route, no := p.routeOf(set, client, route)
	if no != nil {
		p.refuse(client, no)
		return
	}
	who, place := p.place(set, client)
	who.Route = route
	if no := p.admission(set, place); no != nil {
		p.refuse(client, no)
		return
	}
	if client.Identity.Unverified {
		if err := p.verify(ctx, who, client.Identity); err != nil {
			p.clients.leave(place)
			p.refuse(client, verificationFailed(client.User, err))
			return
		}
	}
	p.secrets.put(client.Identity.User, client.Identity.Password)
	transport, err := loop.Take(client.Conn)
	if err != nil {
		_ = client.Conn.Close()
		p.clients.leave(place)
		p.log.ErrorContext(ctx, "cannot serve client", slog.String("user", client.User), slog.Any("error", err))
		return
	}
	if !p.quietest().Admit(transport, who) {
		_ = transport.Close()
		p.clients.leave(place)
		return
	}
	p.logins.Add(stats.LoggedIn)
	p.rush.login()
	if set.config.LogConnections {
		p.log.InfoContext(ctx, "client logged in", slog.String("user", client.User), slog.String("database", client.Database),
			slog.String("client", transport.Remote().String()))
	}
}

// place decides where a client belongs: its mode, pool and settings.
func (p *Proxy) place(set *setting, client *login.Client) (*session.Client, place) {
	alias := set.config.Databases[client.Database]
	database, user := client.Database, client.Identity.User
	if alias.Name != "" {
		database = alias.Name
	}
	if alias.User != "" {
		user = alias.User
	}
	who := &session.Client{Profile: session.Profile{
		User: same(client.User), Database: same(client.Database), Protocol: client.Protocol,
		Mode: set.config.Mode, Unsupported: set.config.Unsupported,
	}}
	if alias.Mode != nil {
		who.Mode = *alias.Mode
	}
	if alias.Unsupported != nil {
		who.Unsupported = *alias.Unsupported
	}
	if m := set.config.Users[client.User].Mode; m != nil {
		who.Mode = *m
	}
	who.Pool = p.target.Pool(database, user)
	who.Login = privateLogin(client, database, user)
	switch {
	case client.Replication != "":
		who.Mode = session.Replication
	case who.Mode != session.WholeSession:
		for _, parameter := range client.Settings() {
			if !isRouteOption(parameter.Name) {
				who.Settings = append(who.Settings, state.Setting(parameter))
			}
		}
	}
	return who, place{database: who.Database, user: who.User}
}

// same returns one string for all that are equal, so that many clients keep the names of few users and databases.
func same(s string) string { return unique.Make(s).Value() }

// privateLogin makes the client's startup packet that of its server, word for word. The password is the dialer's to know.
func privateLogin(client *login.Client, database, user string) *server.Login {
	l := &server.Login{
		User: user, Database: database,
		Replication: client.Replication, Parameters: make(map[string]string),
	}
	for _, parameter := range client.Parameters {
		if !isRouteOption(parameter.Name) {
			l.Parameters[parameter.Name] = parameter.Value
		}
	}
	if client.Options != "" {
		l.Parameters["options"] = client.Options
	}
	return l
}

// admission counts the client in, or says why not.
func (p *Proxy) admission(set *setting, at place) *refusal {
	exceeded := ""
	if p.Phase() < stats.Draining {
		if p.memory.full(set.config.MemoryShare) {
			exceeded = "the share of the memory limit"
		} else if exceeded = p.clients.enter(at, set.config.limits(at)); exceeded == "" {
			return nil
		}
	}
	if p.Phase() >= stats.Draining { // at once, or since a moment ago
		return &refusal{
			code: "57P03", message: "the proxy is shutting down",
			hint: "Connect again: another instance serves you.", outcome: stats.Unavailable,
		}
	}
	return &refusal{
		code: "53300", message: "too many clients already: " + exceeded + " is reached",
		hint: "Raise the limit, or let clients share fewer connections.", outcome: stats.TooMany,
	}
}

func (p *Proxy) refuse(client *login.Client, no *refusal) {
	p.logins.Add(no.outcome)
	p.errors.Add([]byte(no.code), stats.FromProxy)
	p.log.Warn("client refused", slog.String("user", client.User), slog.String("database", client.Database),
		slog.String("sqlstate", no.code), slog.String("reason", no.message))
	_ = login.WriteFatal(client.Conn, no.code, no.message, no.hint)
	_ = client.Conn.Close()
}

// quietest returns the worker with the fewest clients.
func (p *Proxy) quietest() *session.Worker {
	best := p.workers[0]
	for _, w := range p.workers[1:] {
		if w.Gauges().Clients.Load() < best.Gauges().Clients.Load() {
			best = w
		}
	}
	return best
}

// sessionEnded is called by sessions on their loops.
func (p *Proxy) sessionEnded(who *session.Client) {
	p.clients.leave(place{database: who.Database, user: who.User})
	if p.setting.Load().config.LogConnections {
		p.log.Info("client left", slog.String("user", who.User), slog.String("database", who.Database))
	}
}
