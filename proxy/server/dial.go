package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/wire"
)

// Config says how servers are reached. The zero values of the durations mean the defaults named with them.
type Config struct {
	// Upstream names the hosts, the encryption and the user whose password is known. It comes from pgconn.ParseConfig.
	Upstream *pgconn.Config

	// Source is the text that Upstream was made of. Two configurations are the same only if it is.
	Source string

	// PasswordFile holds the upstream user's password, with or without a final newline. It is read at each dial, so that
	// a rotated password is used without a restart. "": Upstream.Password.
	PasswordFile string

	ConnectTimeout time.Duration // TCP, TLS and login together, per host; 15 s

	// Keepalive probes find a lost server on an idle connection, UserTimeout one that does not acknowledge what was sent:
	// neither works for the other case (Linux tcp(7)).
	KeepAliveIdle     time.Duration // until the first probe; 10 s
	KeepAliveInterval time.Duration // 5 s
	KeepAliveCount    int           // 3
	UserTimeout       time.Duration // 15 s
}

// Login says as whom to log in where.
type Login struct {
	User     string
	Password string // "": the upstream's, if User is the upstream's user
	Database string

	// Parameters are startup parameters in addition to the upstream's. They win over those.
	Parameters map[string]string

	// Place is where to log in; nil: at the first of the upstream's hosts that accepts.
	Place *Place

	// Replication is the value of the startup parameter of that name, "" for an ordinary connection.
	Replication string
}

// Dialer makes connections.
type Dialer struct {
	config  Config
	classes *wire.Classes
}

// NewDialer returns a dialer. It does not dial.
func NewDialer(config Config) *Dialer {
	config.ConnectTimeout = defaulted(config.ConnectTimeout, 15*time.Second)
	config.KeepAliveIdle = defaulted(config.KeepAliveIdle, 10*time.Second)
	config.KeepAliveInterval = defaulted(config.KeepAliveInterval, 5*time.Second)
	config.UserTimeout = defaulted(config.UserTimeout, 15*time.Second)
	if config.KeepAliveCount <= 0 {
		config.KeepAliveCount = 3
	}
	return &Dialer{config: config, classes: wire.FromServer()}
}

func defaulted(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// Dial connects and logs in, and fills c, which must be fresh. It returns the socket, to be attached to a loop. The error
// answers SQLState when it is the server's (errors.As to *pgconn.PgError).
func (d *Dialer) Dial(ctx context.Context, login Login, c *Conn) (loop.Transport, error) {
	config, err := d.login(login)
	if err != nil {
		return loop.Transport{}, err
	}
	control, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return loop.Transport{}, fmt.Errorf("connect to server as %s: %w", login.User, err)
	}
	transport, err := d.takeOver(ctx, control, c)
	if err != nil {
		_ = control.Close(context.WithoutCancel(ctx))
		return loop.Transport{}, fmt.Errorf("take over connection to server: %w", err)
	}
	return transport, nil
}

func (d *Dialer) takeOver(ctx context.Context, control *pgconn.PgConn, c *Conn) (loop.Transport, error) {
	if err := control.SyncConn(ctx); err != nil {
		return loop.Transport{}, err
	}
	hijacked, err := control.Hijack()
	if err != nil {
		return loop.Transport{}, err
	}
	transport, err := loop.Take(hijacked.Conn)
	if err != nil {
		_ = hijacked.Conn.Close()
		return loop.Transport{}, err
	}
	c.init(control, hijacked, d.classes)
	return transport, nil
}

// login returns the configuration of one connection.
func (d *Dialer) login(login Login) (*pgconn.Config, error) {
	config := d.config.Upstream.Copy()
	if login.Place != nil {
		config = At(config, *login.Place)
	}
	config.ConnectTimeout = d.config.ConnectTimeout
	config.DialFunc = d.dial
	password, err := d.password(login)
	if err != nil {
		return nil, err
	}
	config.User, config.Password, config.Database = login.User, password, login.Database
	if login.Replication != "" {
		config.RuntimeParams["replication"] = login.Replication
	}
	maps.Copy(config.RuntimeParams, login.Parameters)
	return config, nil
}

func (d *Dialer) password(login Login) (string, error) {
	switch {
	case login.Password != "":
		return login.Password, nil
	case login.User != d.config.Upstream.User:
		return "", nil
	case d.config.PasswordFile == "":
		return d.config.Upstream.Password, nil
	}
	return ReadPassword(d.config.PasswordFile)
}

// ReadPassword returns the password in a file, which may end with one line break.
func ReadPassword(file string) (string, error) {
	content, err := os.ReadFile(file) //nolint:gosec // The name is the operator's own.
	if err != nil {
		return "", fmt.Errorf("read password file: %w", err)
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r"), nil
}

// dial opens one socket. The result can later be moved into a loop.
func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{
			Enable:   true,
			Idle:     d.config.KeepAliveIdle,
			Interval: d.config.KeepAliveInterval,
			Count:    d.config.KeepAliveCount,
		},
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := setUserTimeout(tcp, d.config.UserTimeout); err != nil {
			_ = conn.Close()
			return nil, err
		}
	}
	return loop.NewSocket(conn), nil
}

func setUserTimeout(conn *net.TCPConn, timeout time.Duration) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
	})
	return errors.Join(err, set)
}
