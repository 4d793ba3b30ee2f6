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

	// Unnamed is what the server's unnamed statement is, as far as has been written; nil: it has none. UnnamedOp is the
	// change that made it so, UnnamedSegment the segment in which that was written, 0 once the server has answered it.
	Unnamed        *statement.Statement
	UnnamedOp      uint32
	UnnamedSegment uint32

	// Segment numbers the spans of messages that end with a Sync, Query or FunctionCall.
	Segment uint32

	ops uint32 // changes to what the server holds that have been written

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
	if c.Segment == ^uint32(0) { // package statement gives it and 0 a meaning
		c.Segment = 1
	}
}

// NextOp numbers a change to what the server holds.
func (c *Conn) NextOp() uint32 {
	c.ops++
	if c.ops == 0 { // 0 means none
		c.ops = 1
	}
	return c.ops
}

// ChangeUnnamed notes that the message about to be written makes st (nil: none) the unnamed statement. It returns the
// number of the change.
func (c *Conn) ChangeUnnamed(st *statement.Statement) uint32 {
	c.Unnamed, c.UnnamedOp, c.UnnamedSegment = st, c.NextOp(), c.Segment
	return c.UnnamedOp
}

// UnnamedAnswered notes that the server has answered, or skipped, a change of the unnamed statement.
func (c *Conn) UnnamedAnswered(op uint32) {
	if op == c.UnnamedOp {
		c.UnnamedSegment = 0
	}
}

// Cancel asks the server to cancel what the connection is doing, over a connection of its own that is encrypted as this
// one is, and returns when the server has closed that one: a cancel request cannot arrive after that. It blocks and may be
// called from any goroutine.
func (c *Conn) Cancel(ctx context.Context) error {
	err := c.control.CancelRequest(ctx)
	if err == nil {
		err = ctx.Err() // it does not tell when the end has not come in time
	}
	if err != nil {
		return fmt.Errorf("cancel query of server process %d: %w", c.PID, err)
	}
	return nil
}
