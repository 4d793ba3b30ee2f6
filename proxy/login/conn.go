package login

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/proxy/auth"
)

// login is one login in progress. All of it belongs to the goroutine in Accept, which reads, writes and, when the
// login fails, closes the connection; another goroutine may at most set the read deadline of raw.
type login struct {
	cfg  Config
	raw  net.Conn // as accepted
	conn net.Conn // what is read and written: raw, or tls
	tls  *tls.Conn
	// binding is the channel binding data of tls, nil when there is none.
	binding []byte
	// out is what has to be sent before the next read, in one write.
	out []byte
	// mute says that the client would not understand an ErrorResponse now: a TLS handshake is under way or has failed.
	mute bool
	// ancient says that the client asked for a protocol older than 3.0, in which errors have another form.
	ancient bool
}

// read fills buf, after everything queued has been sent.
func (l *login) read(buf []byte) (int, error) {
	if err := l.flush(); err != nil {
		return 0, err
	}
	return io.ReadFull(l.conn, buf)
}

// flush sends what is queued.
func (l *login) flush() error {
	if len(l.out) == 0 {
		return nil
	}
	_, err := l.conn.Write(l.out)
	l.out = l.out[:0]
	if err != nil {
		return fmt.Errorf("write to client: %w", err)
	}
	return nil
}

// Tell queues m; see auth.Client.
func (l *login) Tell(m pgproto3.BackendMessage) error {
	out, err := m.Encode(l.out)
	if err != nil {
		return fmt.Errorf("encode %T: %w", m, err)
	}
	l.out = out
	return nil
}

// Ask sends m and reads the password message that answers it; see auth.Client.
func (l *login) Ask(m pgproto3.BackendMessage, limit int) ([]byte, error) {
	if err := l.Tell(m); err != nil {
		return nil, err
	}
	var head [5]byte
	if _, err := l.read(head[:]); err != nil {
		return nil, fmt.Errorf("read password message: %w", err)
	}
	if head[0] != 'p' {
		return nil, violation(fmt.Sprintf("expected password response, got message type %d", head[0]))
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || uint64(n-4) > uint64(limit) {
		return nil, violation("invalid password message length")
	}
	body := make([]byte, n-4)
	if _, err := l.read(body); err != nil {
		return nil, fmt.Errorf("read password message: %w", err)
	}
	return body, nil
}

// authenticate runs the exchange that the policy wants, up to AuthenticationOk.
func (l *login) authenticate(c *Client) error {
	id, err := l.cfg.Auth.Authenticate(l, auth.Attempt{User: c.User, Local: local(l.raw.RemoteAddr()), Binding: l.binding})
	if err != nil {
		return err
	}
	c.Identity = id
	if err := l.Tell(&pgproto3.AuthenticationOk{}); err != nil {
		return err
	}
	return l.flush()
}

// local says that the peer is on this machine.
func local(a net.Addr) bool {
	switch a := a.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().IsLoopback()
	}
	return false
}

// refuse ends a login that has failed: it tells the client if that can be done, and closes the connection. It returns
// err as Accept does.
func (l *login) refuse(ctx context.Context, err error) error {
	var e *auth.FatalError
	switch {
	case l.mute, errors.Is(err, ErrProbe):
	case errors.As(err, &e):
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		e = &auth.FatalError{
			SQLState: "57P03", Message: "the proxy is shutting down",
			Hint: "Connect again.", Cause: context.Cause(ctx),
		}
	case errors.Is(err, os.ErrDeadlineExceeded):
		e = &auth.FatalError{
			SQLState: "57014", Message: "canceling authentication due to timeout",
			Hint: fmt.Sprintf("A login has to be complete within %v (client.login_timeout).", l.cfg.Timeout), Cause: err,
		}
	case gone(err):
	default:
		e = &auth.FatalError{SQLState: "XX000", Message: "the proxy could not complete the login", Hint: "See the proxy's log.", Cause: err}
	}
	if e == nil {
		_ = l.conn.Close()
		return err
	}
	l.out = appendFatal(l.out, e, l.ancient)
	l.part()
	return e
}

// gone says that err means nothing but that the client is no longer there.
func gone(err error) bool {
	for _, e := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// farewell bounds the sending of a last message.
const farewell = time.Second

// part sends what is queued and closes. To close a TCP socket that holds unread bytes is to reset it; because it is
// closed for writing first, the client still reads the message and then an orderly end.
func (l *login) part() {
	defer l.conn.Close()
	if l.raw.SetWriteDeadline(time.Now().Add(farewell)) != nil || l.flush() != nil {
		return
	}
	if l.tls != nil {
		_ = l.tls.CloseWrite()
	}
	if half, ok := l.raw.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
