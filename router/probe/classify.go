package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// errCredentials says that the probe does not know with what to log in.
var errCredentials = errors.New("no credentials")

// classify finds the reason in an error. Where several attempts have failed, with and without encryption, what the server itself
// has said comes first.
func classify(err error) Reason {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return classifyCode(e.Code)
	}
	switch {
	case errors.Is(err, errCredentials):
		return AuthFailed
	case errors.Is(err, errTooMuch):
		return NotPostgres
	case isTimeout(err):
		return Timeout
	case isCertificate(err):
		return TLSFailed
	case isNetwork(err):
		return Unreachable
	case strings.Contains(err.Error(), "tls error"):
		return TLSFailed
	}
	return NotPostgres
}

// classifyCode classifies by SQLSTATE.
func classifyCode(code string) Reason {
	switch {
	case code == "57014": // query_canceled, which the probe's own statement_timeout does
		return Timeout
	case strings.HasPrefix(code, "57P"):
		return Refused
	case code == "53300":
		return Full
	case strings.HasPrefix(code, "28"), code == "3D000", code == "42501":
		return AuthFailed
	}
	return Failed
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func isCertificate(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	_, ok := errors.AsType[tls.AlertError](err)
	return ok
}

func isNetwork(err error) bool {
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
