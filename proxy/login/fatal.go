package login

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/proxy/auth"
)

// WriteFatal tells a client why its connection ends: one FATAL ErrorResponse with a SQLSTATE, a sentence, and a hint or
// "". The caller closes conn afterwards; WriteFatal waits a second at most and leaves the write deadline set. It is for
// connections that no loop owns yet, and only between two messages.
func WriteFatal(conn net.Conn, sqlstate, message, hint string) error {
	if err := conn.SetWriteDeadline(time.Now().Add(farewell)); err != nil {
		return fmt.Errorf("write fatal error: %w", err)
	}
	e := &auth.FatalError{SQLState: sqlstate, Message: message, Hint: hint}
	if _, err := conn.Write(appendFatal(nil, e, false)); err != nil {
		return fmt.Errorf("write fatal error: %w", err)
	}
	return nil
}

// appendFatal appends e to dst as an ErrorResponse, or in the form that clients older than protocol 3.0 understand.
func appendFatal(dst []byte, e *auth.FatalError, ancient bool) []byte {
	if ancient {
		return append(dst, "EFATAL:  "+e.Message+"\n\x00"...)
	}
	start := len(dst)
	out, err := (&pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL",
		Code: e.SQLState, Message: e.Message, Detail: e.Detail, Hint: e.Hint,
	}).Encode(dst)
	if err != nil { // only a message over a gigabyte cannot be encoded
		return binary.BigEndian.AppendUint32(append(dst[:start], 'E'), 4)
	}
	return out
}

// violation is the refusal of a client that breaks the protocol.
func violation(message string) error {
	return &auth.FatalError{SQLState: "08P01", Message: message}
}
