package proxy

import (
	"context"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/stats"
)

// dialer makes the pools' connections. It is the Proxy under another name.
type dialer Proxy

// Dial implements pool.Dialer. private is the *server.Login of a session that wants a connection of its own, or nil.
func (d *dialer) Dial(ctx context.Context, in *pool.Pool, private any) (pool.Conn, error) {
	p := (*Proxy)(d)
	conn := session.NewServer(in, p.traffic.of(in, len(p.loops)))
	var place *server.Place
	if route := p.route.Load(); route != nil {
		place, conn.Generation = route.place, route.generation
	}
	transport, err := p.dial(ctx, in, private, place, conn)
	if err != nil {
		return nil, err
	}
	conn.Dialled(transport, p.workers)
	return conn, nil
}

// dial makes a connection for a pool at a place; nil is where the upstream leads. private is as in Dial.
func (p *Proxy) dial(ctx context.Context, in *pool.Pool, private any, place *server.Place, conn *session.Server) (loop.Transport, error) {
	login := server.Login{User: in.User(), Database: in.Database()}
	if own, ok := private.(*server.Login); ok {
		login = *own
	}
	set := p.setting.Load()
	if login.Password == "" {
		login.Password = p.password(set, login.User)
	}
	login.Place = place
	transport, err := set.dialer.Dial(ctx, login, &conn.Conn)
	if err != nil {
		p.shared.Suspect()
	}
	return transport, err
}

// traffic holds the counters of pools, one set a loop.
type traffic struct{ pools sync.Map } // poolName to []stats.Pool

type poolName struct{ database, user string }

func nameOf(p *pool.Pool) poolName { return poolName{database: p.Database(), user: p.User()} }

func (t *traffic) of(p *pool.Pool, loops int) []stats.Pool {
	if counters, ok := t.pools.Load(nameOf(p)); ok {
		return counters.([]stats.Pool)
	}
	counters, _ := t.pools.LoadOrStore(nameOf(p), make([]stats.Pool, loops))
	return counters.([]stats.Pool)
}

// transactions returns how many transactions a pool has carried.
func (t *traffic) transactions(p *pool.Pool) (n uint64) {
	counters, ok := t.pools.Load(nameOf(p))
	if !ok {
		return 0
	}
	for i := range counters.([]stats.Pool) {
		n += counters.([]stats.Pool)[i].Transactions.Load()
	}
	return n
}

// password returns what to log in with at the server as user, as far as the proxy knows: what the users file says, or what
// the user has last proved itself with. That of the upstream's user is the dialler's own business, as it may be in a file
// that is written anew at any time.
func (p *Proxy) password(set *setting, user string) string {
	if user == set.config.Auth.Upstream.User {
		return ""
	}
	if listed := set.policy.Password(user); listed != "" {
		return listed
	}
	return p.secrets.get(user)
}

// secrets remembers the passwords with which users have proved who they are, to log in with them at the server.
type secrets struct{ users sync.Map } // string to string

func (s *secrets) put(user, password string) {
	if password != "" {
		s.users.Store(user, password)
	}
}

func (s *secrets) get(user string) string {
	if password, ok := s.users.Load(user); ok {
		return password.(string)
	}
	return ""
}

// verify lets PostgreSQL check the password of a user that the proxy does not know, by a login of its own under the
// pool's bound.
func (p *Proxy) verify(ctx context.Context, who *session.Client, identity auth.Identity) error {
	v := verification{decided: make(chan struct{}, 1)}
	var waiter pool.Waiter
	waiter.Init(&v, 0)
	who.Pool.AcquirePrivate(&waiter, &server.Login{
		User: identity.User, Database: who.Pool.Database(), Password: identity.Password,
	})
	for {
		select {
		case <-v.decided:
			conn, err := waiter.Take()
			if conn != nil {
				conn.(*session.Server).Discard()
				return nil
			}
			if err != nil {
				return err
			} // else nothing has been decided yet
		case <-ctx.Done():
			if conn := who.Pool.Cancel(&waiter); conn != nil {
				conn.(*session.Server).Discard()
			}
			return ctx.Err()
		}
	}
}

// verification waits for the pool's decision.
type verification struct{ decided chan struct{} }

// Granted implements pool.Grantee.
func (v *verification) Granted() {
	select {
	case v.decided <- struct{}{}:
	default:
	}
}

func verificationFailed(user string, err error) *refusal {
	var e *pgconn.PgError
	if errors.As(err, &e) && e.Code[:2] != "28" {
		return &refusal{code: e.Code, message: e.Message, hint: e.Hint, outcome: stats.Unavailable}
	}
	if e != nil {
		return &refusal{
			code: "28P01", message: "password authentication failed for user \"" + user + "\"",
			outcome: stats.AuthFailed,
		}
	}
	return &refusal{
		code: "57P03", message: "the database server that would check the password cannot be reached",
		hint: "Try again: the proxy goes on trying.", outcome: stats.Unavailable,
	}
}
