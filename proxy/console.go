package proxy

import (
	"context"
	"net"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/stats"
)

// Console answers clients that have logged in to a database which is no server's.
type Console interface {
	// Serves tells whether a database is the console's.
	Serves(database string) bool
	// Serve answers until the client leaves or ctx ends, and closes conn.
	Serve(ctx context.Context, conn net.Conn, user string)
}

// forConsole tells whether a client is the console's. An alias of that name comes before it.
func (s *setting) forConsole(client *login.Client) bool {
	_, alias := s.config.Databases[client.Database]
	return s.config.Console != nil && !alias && client.Replication == "" && s.config.Console.Serves(client.Database)
}

// consult hands a client to the console, in a goroutine that ends with the proxy at the latest. It counts as no client and is
// let in at any time, so that somebody can look when nobody else is.
func (p *Proxy) consult(ctx context.Context, set *setting, client *login.Client) {
	if client.Identity.Unverified {
		p.loginFailed(client.Conn, &auth.FatalError{SQLState: "28000", Message: "only PostgreSQL knows this user, which the console does not ask"})
		_ = login.WriteFatal(client.Conn, "28000", "the console needs a user whose password the proxy knows", "")
		_ = client.Conn.Close()
		return
	}
	p.entering.Go(func() { set.config.Console.Serve(ctx, client.Conn, client.User) })
}

// Clients lists all clients.
func (p *Proxy) Clients(ctx context.Context) (all []stats.Client, err error) {
	lists := make(chan []stats.Client, len(p.workers))
	for _, w := range p.workers {
		if !w.Clients(func(list []stats.Client) { lists <- list }) {
			lists <- nil
		}
	}
	for range p.workers {
		select {
		case list := <-lists:
			all = append(all, list...)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return all, nil
}
