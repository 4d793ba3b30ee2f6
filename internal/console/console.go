// Package console answers SQL on the listener for clients: SHOW for what the proxy knows, and the words that change what it does, under
// the names that PgBouncer has given them. It shows and asks; what is done is done by a Control.
//
// The invariant: nothing here is ever waited for by a client of PostgreSQL, and nobody changes anything who is not on this machine.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/proxy/stats"
)

// Source is what is shown.
type Source interface {
	Snapshot() stats.Snapshot
	// Clients lists the clients there are, as far as they can be asked before ctx ends.
	Clients(ctx context.Context) ([]stats.Client, error)
}

// Control is what may be asked of the process.
type Control interface {
	// Pause lets no transaction begin until Resume, and returns when none is under way, or when ctx ends, which undoes it.
	Pause(ctx context.Context) error
	// Resume reports whether there was a Pause, or a hold of another operator.
	Resume() bool
	// Do does what a word asks for that is done at once.
	Do(ctx context.Context, word Word) error
}

// Word is a command without an argument that is done at once.
type Word string

// The words.
const (
	Reload    Word = "RELOAD"    // Read the configuration again.
	Reconnect Word = "RECONNECT" // Replace the connections to servers.
	Drain     Word = "SHUTDOWN"  // End at transaction boundaries.
)

// Setting is a key of the configuration.
type Setting struct {
	Key, Value, Default string
	Changeable          bool // By a reload.
}

// Config is what the console works with.
type Config struct {
	Version  string
	Source   Source
	Control  Control
	Settings func() []Setting
	// Users returns who may use the console, at this moment.
	Users func() []string
}

// Console serves any number of connections.
type Console struct {
	config Config
	log    *slog.Logger
}

// New returns a console.
func New(config Config, log *slog.Logger) *Console { return &Console{config: config, log: log} }

// Serves tells whether a database is the console's.
func (c *Console) Serves(database string) bool {
	return database == "pgsidecar" || database == "pgbouncer"
}

// Serve answers a client that is authenticated until it leaves or ctx ends, in the calling goroutine, and closes conn.
func (c *Console) Serve(ctx context.Context, conn net.Conn, user string) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	d := &dialogue{
		Console: c, wire: pgproto3.NewBackend(conn, conn), local: onThisMachine(conn),
		statements: make(map[string]*statement), portals: make(map[string]*portal),
	}
	d.wire.SetMaxBodyLen(longestMessage)
	if !slices.Contains(c.config.Users(), user) {
		d.fatal("28000", fmt.Sprintf("%q may not use the console: see admin.users", user))
		return
	}
	if err := d.serve(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		c.log.DebugContext(ctx, "console ended", slog.String("user", user), slog.Any("error", err))
	}
}

// longestMessage bounds what a client may send at once, in bytes.
const longestMessage = 64 << 10

// onThisMachine tells whether a connection comes from this machine: a unix socket, or loopback at both ends.
func onThisMachine(conn net.Conn) bool {
	if conn.LocalAddr().Network() == "unix" {
		return true
	}
	loopback := func(a net.Addr) bool {
		host, _, err := net.SplitHostPort(a.String())
		return err == nil && net.ParseIP(host).IsLoopback()
	}
	return loopback(conn.LocalAddr()) && loopback(conn.RemoteAddr())
}

// command is one statement, understood.
type command struct {
	tag  string // of its CommandComplete
	show *table // what it shows; nil: nothing
	do   func(ctx context.Context) error
	rows func(ctx context.Context) ([][]any, error)
}

// errSyntax is the error for what is not known here.
type unknownError struct{ text string }

func (e *unknownError) Error() string {
	return fmt.Sprintf("%q is not known here: SHOW HELP lists what is", e.text)
}

// notHereError says that a command changes something, and may not from where it comes.
type notHereError struct{}

func (notHereError) Error() string {
	return "what changes something is asked for on loopback or on a unix socket only"
}

// understand finds the command of one statement; nil is none, of an empty one.
func (d *dialogue) understand(text string) (*command, error) {
	words := strings.Fields(strings.ToUpper(strings.TrimSpace(text)))
	if len(words) == 0 {
		return nil, nil //nolint:nilnil // An empty statement is no mistake.
	}
	all := strings.Join(words, " ")
	if words[0] == "SHOW" {
		t := findTable(strings.TrimPrefix(all, "SHOW "))
		if t == nil {
			return nil, &unknownError{all}
		}
		return &command{tag: "SHOW", show: t, rows: func(ctx context.Context) ([][]any, error) { return t.rows(ctx, d.Console) }}, nil
	}
	c := &command{tag: words[0]}
	control := d.config.Control
	switch all {
	case "PAUSE":
		c.do = control.Pause
	case "RESUME":
		c.do = func(context.Context) error {
			if !control.Resume() {
				return errors.New("nobody has paused it")
			}
			return nil
		}
	case "RELOAD":
		c.do = func(ctx context.Context) error { return control.Do(ctx, Reload) }
	case "RECONNECT":
		c.do = func(ctx context.Context) error { return control.Do(ctx, Reconnect) }
	case "SHUTDOWN", "SHUTDOWN WAIT_FOR_SERVERS":
		c.do = func(ctx context.Context) error { return control.Do(ctx, Drain) }
	default:
		return nil, &unknownError{all}
	}
	if !d.local {
		return nil, notHereError{}
	}
	return c, nil
}
