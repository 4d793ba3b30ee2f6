// Package login takes a client from an accepted connection to the point where it is authenticated: TLS, protocol
// version, cancel requests, startup packet, authentication.
//
// It does not greet: AuthenticationOk is the last message it sends, and what follows is the session's.
//
// The invariant: it reads exactly the bytes of the login, never ahead, so that whoever gets the connection next finds the
// client's first message whole in the kernel (or in the tls.Conn), and no byte sent before TLS is ever taken for one
// sent within it.
package login

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"pgsidecar/proxy/auth"
)

// DefaultTimeout bounds a login, as PostgreSQL's authentication_timeout does.
const DefaultTimeout = 60 * time.Second

// ErrProbe says that the client left before it asked for anything: a port check, or a client that would have TLS or
// nothing. It is not worth a line in the log.
var ErrProbe = errors.New("client left without asking for anything")

// ClientCert says what certificate a client on TCP has to show, in the words of pg_hba.conf's clientcert.
type ClientCert uint8

const (
	// CertNone wants none. One that is shown is verified all the same if there is a CA to do it with.
	CertNone ClientCert = iota
	// CertVerifyCA wants one that CertFiles.CA has signed.
	CertVerifyCA
	// CertVerifyFull wants, moreover, the user's name as its common name.
	CertVerifyFull
)

// Config is how clients log in. It is read only; a reload passes another one to later calls of Accept.
type Config struct {
	// TLS returns what TLS is offered with, as CertFiles.Load makes it; nil, or a nil result, offers none. It is called
	// once a connection that asks for TLS, so that a new certificate disturbs no one who is connected. Unix sockets
	// are never offered TLS.
	TLS func() *tls.Config
	// RequireTLS refuses clients on TCP without TLS. Cancel requests are let through, since libpq before 17 sends them
	// in the clear.
	RequireTLS bool
	// ClientCert, unless CertNone, refuses clients on TCP without TLS and such a certificate.
	ClientCert ClientCert
	// Auth authenticates; required.
	Auth *auth.Policy
	// Timeout bounds the whole login; 0 means DefaultTimeout.
	Timeout time.Duration
}

// Result is what a connection turned out to be; exactly one field is set.
type Result struct {
	Client *Client
	Cancel *Cancel
}

// Cancel is a request to cancel another connection's query. Conn carries nothing more, but libpq waits for it to be
// closed, which says that the request has been seen to: closing it is the caller's.
type Cancel struct {
	Conn   net.Conn
	PID    uint32
	Secret []byte // 4 to 256 bytes
}

// Client is a client that is authenticated, or whose password PostgreSQL still has to verify (see
// auth.Identity.Unverified). AuthenticationOk has been sent, and nothing after it.
type Client struct {
	// Conn is the caller's, without deadlines: the connection that was accepted, or a *tls.Conn over a *loop.Socket.
	Conn net.Conn
	// Protocol is the version agreed on, as in the startup packet: 3<<16 or 3<<16 | 2.
	Protocol uint32
	// User and Database are the client's words; Identity says whom to be at PostgreSQL.
	User, Database string
	Identity       auth.Identity
	// Replication is "", or the startup parameter as it was sent: "database", or one of PostgreSQL's words for true.
	Replication string
	// Parameters are the other startup parameters as they were sent, in order, without options.
	Parameters []Param
	// Options is the startup parameter of that name as it was sent, and OptionSettings what its switches set, in
	// order. For a replication connection OptionSettings may leave switches of other kinds out.
	Options        string
	OptionSettings []Param
}

// Param is a startup parameter or a setting.
type Param struct{ Name, Value string }

// Accept logs in the client that has connected on conn, in the calling goroutine. On error conn is closed, and the client has
// been told why in an ErrorResponse with a SQLSTATE if there was a way to tell it. Cancelling ctx ends the login
// with 57P03. The error is ErrProbe, an *auth.FatalError (which is what the client was told) or the connection's own.
func Accept(ctx context.Context, conn net.Conn, cfg Config) (Result, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	l := &login{cfg: cfg, raw: conn, conn: conn}
	if err := conn.SetDeadline(time.Now().Add(cfg.Timeout)); err != nil {
		_ = conn.Close()
		return Result{}, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // reads end; what there is to say can still be written
	})
	res, err := l.run(ctx)
	if !stop() {
		<-interrupted
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return Result{}, l.refuse(ctx, err)
	}
	return res, nil
}

// run is the login.
func (l *login) run(ctx context.Context) (Result, error) {
	code, body, err := l.negotiate(ctx)
	if err != nil {
		return Result{}, err
	}
	if code == cancelRequest {
		c, err := parseCancel(body)
		if err != nil {
			return Result{}, err
		}
		c.Conn = l.conn
		return Result{Cancel: c}, nil
	}
	c, err := l.startup(code, body)
	if err != nil {
		return Result{}, err
	}
	if err := l.checkTLS(c.User); err != nil {
		return Result{}, err
	}
	if err := l.authenticate(c); err != nil {
		return Result{}, err
	}
	c.Conn = l.conn
	return Result{Client: c}, nil
}
