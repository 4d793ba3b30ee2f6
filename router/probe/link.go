package probe

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"
)

// allowance is how many bytes a server may send for one login or one answer. Answers have a few hundred.
const allowance = 256 << 10

var (
	errTooMuch  = errors.New("the server sends without end")
	errUnasked  = errors.New("the server sent an answer to no question")
	errOddState = errors.New("the server's session is in a transaction that nobody began")
)

// link is one connection to a server, logged in. The prober's goroutine writes and closes; the reader's goroutine, which starts
// with the link and ends with the connection, reads all the time and so notices the server's end at once.
type link struct {
	conn     net.Conn // with TLS, if there is any
	socket   *socket  // below TLS
	frontend *pgproto3.Frontend

	// answers come from the reader, which closes it at its end. One that nobody has asked for says that the connection
	// is broken, and why.
	answers chan answer
	closing chan struct{}

	since   time.Time // when it had been logged in
	known   bool      // what follows is: the first answer has been read
	server  server
	without [parts]bool // parts of the question that this server could not answer
}

// answer is what came for one question.
type answer struct {
	results [][][]string // rows of each statement, NULL as ""
	done    int          // statements that were completed
	err     error        // *pgconn.PgError with severity ERROR: the link lives on; else it is broken
}

// open dials and logs in. The parameters come on top of those of Config.Connect.
func (c *Config) open(ctx context.Context, parameters map[string]string) (*link, error) {
	config := c.Connect.Copy()
	if c.Password != nil {
		password, err := c.Password()
		if err != nil {
			return nil, fmt.Errorf("find password: %w: %w", errCredentials, err)
		}
		config.Password = password
	}
	maps.Copy(config.RuntimeParams, parameters)
	var last *socket
	dial := config.DialFunc
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		last = &socket{Conn: conn}
		last.left.Store(allowance)
		return last, nil
	}
	control, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	hijacked, err := takeOver(ctx, control)
	if err != nil {
		_ = last.Close()
		return nil, err
	}
	l := &link{
		conn: hijacked.Conn, socket: last, frontend: hijacked.Frontend,
		answers: make(chan answer, 1), closing: make(chan struct{}), since: time.Now(),
	}
	go l.read()
	return l, nil
}

func takeOver(ctx context.Context, control *pgconn.PgConn) (*pgconn.HijackedConn, error) {
	if err := control.SyncConn(ctx); err != nil {
		return nil, err
	}
	return control.Hijack()
}

// read delivers answers until the connection ends.
func (l *link) read() {
	defer close(l.answers)
	for {
		a := l.receive()
		select {
		case l.answers <- a:
		case <-l.closing:
			return
		}
		if a.err != nil && !isError(a.err) {
			return
		}
	}
}

// isError tells whether the server has said ERROR, after which it goes on.
func isError(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && !isFatal(e)
}

func isFatal(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity
	}
	return severity != "ERROR"
}

// receive reads up to ReadyForQuery, or the end of the connection.
func (l *link) receive() (a answer) {
	for {
		message, err := l.frontend.Receive()
		if err != nil {
			return answer{err: err}
		}
		switch m := message.(type) {
		case *pgproto3.RowDescription:
			a.results = append(a.results, nil)
		case *pgproto3.DataRow:
			if len(a.results) == 0 {
				return answer{err: errors.New("the server sent a row without a description")}
			}
			row := make([]string, len(m.Values))
			for i, value := range m.Values {
				row[i] = string(value)
			}
			last := &a.results[len(a.results)-1]
			*last = append(*last, row)
		case *pgproto3.CommandComplete:
			a.done++
		case *pgproto3.ErrorResponse:
			e := pgconn.ErrorResponseToPgError(m)
			if isFatal(e) {
				return answer{err: e}
			}
			a.err = e
		case *pgproto3.ReadyForQuery:
			if m.TxStatus != 'I' {
				return answer{err: errOddState}
			}
			return a
		case *pgproto3.ParameterStatus, *pgproto3.NoticeResponse, *pgproto3.NotificationResponse:
			// They may come at any time and say nothing that is not asked for.
		default:
			return answer{err: fmt.Errorf("the server sent an unexpected %T", message)}
		}
	}
}

// ask sends a query of one or more statements and waits for its answer. The link is broken if the answer's error is not an
// ERROR of the server.
func (l *link) ask(ctx context.Context, sql string) answer {
	select {
	case a, ok := <-l.answers:
		return answer{err: whyBroken(a, ok)}
	default:
	}
	l.socket.left.Store(allowance)
	if deadline, ok := ctx.Deadline(); ok {
		if err := l.conn.SetWriteDeadline(deadline); err != nil {
			return answer{err: err}
		}
	}
	l.frontend.SendQuery(&pgproto3.Query{String: sql})
	if err := l.frontend.Flush(); err != nil {
		return answer{err: err}
	}
	select {
	case a, ok := <-l.answers:
		if !ok {
			return answer{err: net.ErrClosed}
		}
		return a
	case <-ctx.Done():
		return answer{err: fmt.Errorf("wait for answer: %w", ctx.Err())}
	}
}

// whyBroken is what an answer that nobody has asked for means.
func whyBroken(a answer, ok bool) error {
	switch {
	case !ok:
		return net.ErrClosed
	case a.err == nil || isError(a.err):
		return errUnasked
	default:
		return a.err
	}
}

// farewell is how long the server may take to accept the word that we leave.
const farewell = 100 * time.Millisecond

// close ends the connection, in an orderly way if the link is sound, and waits for the reader.
func (l *link) close(sound bool) {
	close(l.closing)
	if sound && l.conn.SetWriteDeadline(time.Now().Add(farewell)) == nil {
		l.frontend.Send(&pgproto3.Terminate{})
		_ = l.frontend.Flush() // The server sees the end in any case.
	}
	_ = l.socket.Close() // Not conn: TLS would say goodbye, for which a frozen server could make us wait.
	for range l.answers {
		// What came too late. The reader closes the channel.
	}
}

// socket bounds what is read from it.
type socket struct {
	net.Conn
	left atomic.Int64 // bytes that may still be read
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if s.left.Add(-int64(n)) < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// dialSocket is the default of Connect.DialFunc: with keepalive, which finds a lost server on an idle connection, and
// TCP_USER_TIMEOUT, which finds one that does not acknowledge what was sent.
func (c *Config) dialSocket(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: c.KeepAliveIdle, Interval: c.KeepAliveInterval, Count: c.KeepAliveCount,
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if err := setUserTimeout(tcp, c.UserTimeout); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
		}
	}
	return conn, nil
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
