// Package auth decides whether a client is who it says it is, and as whom it is served at PostgreSQL.
//
// It knows methods and secrets, not sockets: package login carries its messages.
//
// The invariant: a name that is not known is answered with the same messages, in the same order and after the same
// work as a known name with a wrong password, under every method that asks for a password. Whoever changes an
// exchange keeps that true.
package auth

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Method is how a client proves who it is; its values are those of client_auth.method, in the words of pg_hba.conf.
type Method string

// The methods. The zero value of Method means Trust.
const (
	// Trust asks for nothing. Only clients on this machine may use it, unless Config.ForceTrust says otherwise.
	Trust Method = "trust"
	// Password asks for the password in clear text.
	Password Method = "password"
	// MD5 asks for an MD5 digest, or for a SCRAM proof where the user's secret is a SCRAM secret, as PostgreSQL does.
	MD5 Method = "md5"
	// SCRAM asks for a SCRAM-SHA-256 proof, with channel binding where TLS is in use and the client can.
	SCRAM Method = "scram-sha-256"
)

// Unknown is what becomes of a user name that is neither the upstream URL's nor in the users file; its values are
// those of client_auth.unknown_users.
type Unknown string

// The treatments of unknown names. The zero value of Unknown means Reject.
const (
	// Reject refuses them.
	Reject Unknown = "reject"
	// AsIs asks PostgreSQL under the client's own name: at once under Trust, and with the clear-text password under
	// Password, which PostgreSQL then has to verify (Identity.Unverified). The other methods leave nothing to ask
	// PostgreSQL with and refuse.
	AsIs Unknown = "as-is"
	// Upstream serves every client as the upstream URL's user, known or not. Methods that ask for a password
	// verify it by a known user's secret all the same.
	Upstream Unknown = "upstream"
)

// Identity is whom a client is served as at PostgreSQL. It prints and logs as the user's name alone.
type Identity struct {
	// User is the role whose pool serves the client.
	User string
	// Password logs in to PostgreSQL as User; "" when none is known.
	Password string
	// Unverified says that nobody has checked Password yet. The session must not be lent any server connection
	// before PostgreSQL has accepted a new login with exactly this password: connections that wait in User's pool
	// prove somebody else's password, not this client's.
	Unverified bool
}

// String returns the user's name, so that a password is not printed by accident.
func (i Identity) String() string { return i.User }

// GoString is String, for %#v.
func (i Identity) GoString() string { return i.User }

// MarshalText is String, for JSON and the like.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.User), nil }

// LogValue logs the user's name.
func (i Identity) LogValue() slog.Value { return slog.StringValue(i.User) }

// User is a name and the secret that it logs in with.
type User struct {
	Name   string
	Secret Secret
}

// Config is what a Policy is made of. Its zero value lets nobody in.
type Config struct {
	Method  Method  // "" means Trust
	Unknown Unknown // "" means Reject
	// Users are the users file's. Each name may occur once.
	Users []User
	// Upstream is the upstream URL's user, who is known as well; its password is its secret unless Users holds another.
	Upstream Identity
	// ForceTrust lets clients of other machines in under Trust.
	ForceTrust bool
}

// Policy authenticates clients. It never changes, so any number of goroutines may use it.
type Policy struct {
	cfg      Config
	accounts map[string]account
	models   []account // the accounts that a login may succeed with, ordered by name: what mocks are modelled on
	key      []byte    // what salts and mocks are derived from; stays the same for the life of the process
	derive   deriver
}

// account is a user's secret, made ready for the policy's method.
type account struct {
	secret Secret
	keys   keys // what SCRAM verifies by: the secret's own, or derived from a plain one; zero where the method needs none
}

// New makes a policy, and derives the SCRAM keys of plain secrets where the method needs them (about half a
// millisecond each), so that no login is the slower one that does it.
func New(cfg Config) (*Policy, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make mock key: %w", err)
	}
	return (&Policy{key: key, derive: deriveKeys}).Reload(cfg)
}

// Reload makes the policy that follows p. Salts and mocks stay as they are, else a reload would tell the
// names that keep their salt from those that do not; keys of unchanged secrets are taken over.
func (p *Policy) Reload(cfg Config) (*Policy, error) {
	if cfg.Method == "" {
		cfg.Method = Trust
	}
	if cfg.Unknown == "" {
		cfg.Unknown = Reject
	}
	if !slices.Contains([]Method{Trust, Password, MD5, SCRAM}, cfg.Method) {
		return nil, fmt.Errorf("authentication method %q: want trust, password, md5 or scram-sha-256", cfg.Method)
	}
	if !slices.Contains([]Unknown{Reject, AsIs, Upstream}, cfg.Unknown) {
		return nil, fmt.Errorf("treatment of unknown users %q: want reject, as-is or upstream", cfg.Unknown)
	}
	next := &Policy{cfg: cfg, key: p.key, derive: p.derive, accounts: make(map[string]account, len(cfg.Users)+1)}
	for _, u := range cfg.Users {
		if _, dup := next.accounts[u.Name]; dup || u.Name == "" {
			return nil, fmt.Errorf("user %q: want each name once, and none empty", u.Name)
		}
		if err := next.add(u, p); err != nil {
			return nil, err
		}
	}
	if _, listed := next.accounts[cfg.Upstream.User]; !listed && cfg.Upstream.User != "" {
		if err := next.add(User{cfg.Upstream.User, PlainSecret(cfg.Upstream.Password)}, p); err != nil {
			return nil, err
		}
	}
	next.models = next.usableAccounts()
	return next, nil
}

// add makes u known, with the SCRAM keys that prev holds for the same secret or with new ones.
func (p *Policy) add(u User, prev *Policy) error {
	a := account{secret: u.Secret}
	old, had := prev.accounts[u.Name]
	switch {
	case u.Secret.kind() == kindSCRAM:
		a.keys = u.Secret.keys()
	case u.Secret.kind() != kindPlain || p.cfg.Method != SCRAM: // no keys are needed
	case had && old.keys.Iters != 0 && old.secret.kind() == kindPlain && old.secret.text() == u.Secret.text():
		a.keys = old.keys
	default:
		k, err := p.derive(u.Secret.text(), p.saltOf(u.Name))
		if err != nil {
			return fmt.Errorf("derive SCRAM keys of user %q: %w", u.Name, err)
		}
		a.keys = k
	}
	p.accounts[u.Name] = a
	return nil
}

// Client carries the exchange's messages. Package login implements it.
type Client interface {
	// Ask sends m, with all that Tell has queued before it, and returns the body of the password message that answers it:
	// at most limit bytes, its own from then on.
	Ask(m pgproto3.BackendMessage, limit int) ([]byte, error)
	// Tell queues m, to be sent no later than the next message.
	Tell(m pgproto3.BackendMessage) error
}

// Attempt is what a client claims, and what is known of its connection.
type Attempt struct {
	User string
	// Local says that the client is on this machine: a Unix socket or a loopback address.
	Local bool
	// Binding is the tls-server-end-point channel binding data of the connection (EndpointBinding); nil when there
	// is no TLS, or no such data for its certificate, and then SCRAM-SHA-256-PLUS is not offered.
	Binding []byte
}

// Authenticate runs the exchange up to, and without, AuthenticationOk. A client that is refused gets a *FatalError;
// other errors are the connection's.
func (p *Policy) Authenticate(c Client, a Attempt) (Identity, error) {
	if p.cfg.Method == Trust {
		return p.trust(a)
	}
	acct, genuine := p.account(a.User)
	var (
		ok        bool
		err       error
		cleartext string
	)
	switch kind := acct.secret.kind(); {
	case p.cfg.Method == SCRAM, p.cfg.Method == MD5 && kind == kindSCRAM:
		ok, err = scramExchange(c, acct.keys, genuine, a.Binding)
	case p.cfg.Method == MD5:
		ok, err = md5Exchange(c, a.User, acct.secret)
	default:
		if cleartext, err = askPassword(c); err != nil {
			break
		}
		if !genuine && p.cfg.Unknown == AsIs {
			return Identity{User: a.User, Password: cleartext, Unverified: true}, nil
		}
		ok, err = p.verify(a.User, cleartext, acct)
	}
	switch {
	case err != nil:
		return Identity{}, err
	case !genuine:
		return Identity{}, wrongPassword(a.User, errNoSecret)
	case !ok:
		return Identity{}, wrongPassword(a.User, errMismatch)
	}
	return p.identity(a.User, cleartext), nil
}

// trust lets a client in by its address and name alone.
func (p *Policy) trust(a Attempt) (Identity, error) {
	if !a.Local && !p.cfg.ForceTrust {
		return Identity{}, &FatalError{
			SQLState: "28000",
			Message:  fmt.Sprintf(`user "%s" may not log in from another machine without a password`, a.User),
			Hint:     "Choose a client_auth.method that asks for a password, or set client_auth.force_trust.",
		}
	}
	if _, known := p.accounts[a.User]; !known && p.cfg.Unknown == Reject {
		return Identity{}, &FatalError{
			SQLState: "28000",
			Message:  fmt.Sprintf(`user "%s" is not known to the proxy`, a.User),
			Hint:     "Connect as the upstream URL's user, add the user to client_auth.users_file, or set client_auth.unknown_users.",
		}
	}
	return p.identity(a.User, ""), nil
}

// identity says as whom name, who has logged in, is served. cleartext is the password it gave, if it gave one.
func (p *Policy) identity(name, cleartext string) Identity {
	if p.cfg.Unknown == Upstream || name == p.cfg.Upstream.User {
		return p.cfg.Upstream
	}
	return Identity{User: name, Password: cmp.Or(p.Password(name), cleartext)}
}

// Password returns the password that the users file has for name in clear text, or "".
func (p *Policy) Password(name string) string {
	if s := p.accounts[name].secret; s.kind() == kindPlain {
		return s.text()
	}
	return ""
}

// The reasons of a refusal that the log tells and the client does not.
var (
	errNoSecret = errors.New("the user is not known, or has no secret that the method can use")
	errMismatch = errors.New("the password does not match")
)
