package session

import (
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/stats"
	"pgsidecar/proxy/wire"
)

const (
	fromProxy  = stats.FromProxy
	fromServer = stats.FromServer
)

// What clients are told, a function each. The codes are those on which drivers act (PostgreSQL documentation, "Error Codes").

func errDraining() wire.Error {
	return wire.Error{
		Code: "57P01", Message: "terminating connection because the proxy is shutting down",
		Hint: "Connect again: another instance serves you.",
	}
}

func errAcquireTimeout() wire.Error {
	return wire.Error{
		Code: "57014", Message: "no server connection became free within the acquire timeout",
		Hint: "All of pool.max_connections are in use: raise it, shorten transactions, or raise pool.acquire_timeout.",
	}
}

func errCancelled() wire.Error {
	return wire.Error{Code: "57014", Message: "canceling statement due to user request"}
}

func errUnavailable() wire.Error {
	return wire.Error{
		Code: "57P03", Message: "the database server cannot be reached at the moment",
		Hint: "Try again: the proxy goes on trying.",
	}
}

func errServerLost() wire.Error {
	return wire.Error{
		Code: "08006", Message: "the database server closed the connection unexpectedly",
		Hint: "Whether the statement took effect is not known if it was a COMMIT or ran outside of a transaction block.",
	}
}

// errElsewhere is why a connection is cut that leads to a server which is not the primary any more.
var errElsewhere = errors.New("another server is the primary now")

// errLostStandby is why a connection to a standby is cut.
var errLostStandby = errors.New("the standby does not answer any more")

func errSwitched() wire.Error {
	return wire.Error{
		Code: "08006", Message: "the transaction was cut: " + errElsewhere.Error(),
		Hint: "It has been rolled back; whether a COMMIT that was under way took effect is not known.",
	}
}

func errRolledBack() wire.Error {
	return wire.Error{
		Code: "40001", Message: "the transaction was rolled back: its server was lost before it was committed",
		Hint: "This is certain. Run the transaction again.",
	}
}

func errOutcomeUnknown() wire.Error {
	return wire.Error{
		Code: "08007", Message: "the server was lost during COMMIT, and what has become of the transaction cannot be found out",
		Hint: "Look whether it took effect before you run it again.",
	}
}

func errHeld(why string) wire.Error {
	return wire.Error{
		Code: "57P03", Message: "transactions are held, and this one has waited for failover.hold: " + why,
		Hint: "Try again: the proxy goes on as soon as there is a primary.",
	}
}

func errOutOfStep() wire.Error {
	return wire.Error{
		Code: "08006", Message: "the connection to the database server got out of step and was closed",
	}
}

func errBlockInStatementMode() wire.Error {
	return wire.Error{
		Code: "0A000", Message: "transaction blocks are not allowed in pool mode statement",
		Hint: "Use pool mode transaction.",
	}
}

func errInternal() wire.Error {
	return wire.Error{Code: "XX000", Message: "internal error of the proxy; its log says more"}
}

// errTransactionBlock marks a transaction block in pool mode statement.
var errTransactionBlock = errors.New("transaction block in pool mode statement")

// serverError returns what the server said, if err is its refusal.
func serverError(err error) *pgconn.PgError {
	e, _ := errors.AsType[*pgconn.PgError](err)
	return e
}

// refusalFor is what a client is told whose wait for a server has failed with err.
func refusalFor(err error) wire.Error {
	if held, ok := errors.AsType[*pool.HeldError](err); ok {
		return errHeld(held.Why)
	}
	if e := serverError(err); e != nil && !errors.Is(err, pool.ErrUnavailable) {
		return wire.Error{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
	}
	return errUnavailable()
}

func (w *Worker) log() *slog.Logger { return w.shared.Log }

// attrs says in the log whose session it is.
func (s *Session) attrs() []any {
	return []any{
		slog.String("user", s.who.User), slog.String("database", s.who.Database),
		slog.String("client", s.conn.Remote().String()),
	}
}

func attrError(err error) slog.Attr { return slog.Any("error", err) }

func attrWaited(d time.Duration) slog.Attr { return slog.Duration("waited", d) }

func attrPID(l *Server) slog.Attr { return slog.Uint64("server_pid", uint64(l.PID)) }

// attrMessage is the text of an ErrorResponse.
func attrMessage(p wire.Piece) slog.Attr {
	return slog.String("message", string(wire.ErrorField(wire.Body(p.Data), 'M')))
}
