package server

import (
	"context"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// Conn is a connection to PostgreSQL. Dial makes it; from then on it belongs to the loop that it is attached to, and only
// that loop touches its fields. Cancel is the exception.
type Conn struct {
	loop.Conn

	Scan    wire.Scanner // of what the server sends
	Replies Replies
	Held    statement.Held

	// Unnamed is what the server's unnamed statement is, as far as has been written; nil: it has none. UnnamedSegment is
	// the segment in which its Parse was written, 0 once the server has confirmed it.
	Unnamed        *statement.Statement
	UnnamedSegment uint32

	// Segment numbers the spans of messages that end with a Sync, Query or FunctionCall.
	Segment uint32

	// Settings are those that were set on top of the connection's own startup settings; nil: none.
	Settings *state.Settings

	Status byte // transaction status of the last ReadyForQuery

	PID        uint32            // of the server process
	parameters map[string]string // as last reported

	// control is used for cancel requests only, as it knows the address and the encryption.
	control *pgconn.PgConn
}

// longestWhole bounds what is held in memory of one message from a server.
const longestWhole = 1 << 20

// init prepares a connection whose server is ready.
func (c *Conn) init(control *pgconn.PgConn, hijacked *pgconn.HijackedConn, classes *wire.Classes) {
	c.control = control
	c.Scan = wire.MakeScanner(classes, longestWhole)
	c.Segment = 1
	c.Status = hijacked.TxStatus
	c.PID = hijacked.PID
	c.parameters = hijacked.ParameterStatuses
}

// Parameters returns a copy of the run-time parameters as the server last reported them.
func (c *Conn) Parameters() map[string]string { return maps.Clone(c.parameters) }

// Parameter returns one run-time parameter as the server last reported it.
func (c *Conn) Parameter(name string) string { return c.parameters[name] }

// Report takes a ParameterStatus and tells whether the value is new. It allocates only then.
func (c *Conn) Report(name, value []byte) bool {
	if old, ok := c.parameters[string(name)]; ok && old == string(value) {
		return false
	}
	c.parameters[string(name)] = string(value)
	return true
}

// NextSegment notes that a Sync, Query or FunctionCall has been written.
func (c *Conn) NextSegment() {
	c.Segment++
	if c.Segment == 0 { // 0 means confirmed
		c.Segment = 1
	}
}

// Cancel asks the server to cancel what the connection is doing, over a connection of its own that is encrypted as this
// one is, and returns when the server has closed that one: a cancel request cannot arrive after that. It blocks and may be
// called from any goroutine.
func (c *Conn) Cancel(ctx context.Context) error {
	if err := c.control.CancelRequest(ctx); err != nil {
		return fmt.Errorf("cancel query of server process %d: %w", c.PID, err)
	}
	return nil
}
