package loop

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests for something that is bound to happen.
const patience = 20 * time.Second

type taskFunc func()

func (f taskFunc) Run() { f() }

// start runs a loop until the test ends.
func start(t *testing.T, cfg Config) *Loop {
	t.Helper()
	l, err := New(cfg)
	require.NoError(t, err)
	run(t, l)
	return l
}

func run(t *testing.T, l *Loop) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	t.Cleanup(func() {
		l.Stop()
		require.NoError(t, receive(t, ended))
	})
}

// on runs f on the loop's goroutine and waits for it.
func on(t *testing.T, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	require.True(t, l.Post(taskFunc(func() { defer close(done); f() })))
	receive(t, done)
}

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing has come")
		panic("unreachable")
	}
}

// tcpPair returns the two ends of a connection on loopback.
func tcpPair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	b, err := ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return b.(*net.TCPConn), a.(*net.TCPConn)
}

// unixPair returns the two ends of a socketpair.
func unixPair(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	require.NoError(t, err)
	ends := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := newFile(fd)
		c, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		t.Cleanup(func() { c.Close() })
		ends[i] = c.(*net.UnixConn)
	}
	return ends[0], ends[1]
}

func take(t *testing.T, nc net.Conn) Transport {
	t.Helper()
	tr, err := Take(nc)
	require.NoError(t, err)
	return tr
}

// peerOwner owns one connection and passes what happens to it to functions; each of them may be nil.
type peerOwner struct {
	conn     Conn
	readable func(hangup bool)
	drained  func()
}

func (o *peerOwner) Readable(hangup bool) {
	if o.readable != nil {
		o.readable(hangup)
	}
}

func (o *peerOwner) Drained() {
	if o.drained != nil {
		o.drained()
	}
}

// attach attaches the owner's connection, on the loop's goroutine.
func (o *peerOwner) attach(t *testing.T, l *Loop, tr Transport) {
	t.Helper()
	var err error
	on(t, l, func() { err = l.Attach(&o.conn, tr, o) })
	require.NoError(t, err)
}

// echo sends back everything, and closes at the end of it.
type echo struct{ conn Conn }

func (e *echo) Readable(bool) {
	for e.conn.Unread() && !e.conn.Blocked() {
		b, err := e.conn.Read()
		if err == ErrWouldBlock { //nolint:errorlint // It is returned as it is.
			return
		}
		if err != nil {
			e.conn.Close()
			return
		}
		if e.conn.Write(b) != nil {
			e.conn.Close()
			return
		}
	}
}

func (e *echo) Drained() { e.Readable(false) }

func TestLoop_echo_returnsEveryByte(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	e := &echo{}
	tr := take(t, ours)
	on(t, l, func() { require.NoError(t, l.Attach(&e.conn, tr, e)) })

	_, err := theirs.Write([]byte("hello"))
	require.NoError(t, err)
	got := make([]byte, 5)
	_, err = io.ReadFull(theirs, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))

	require.NoError(t, theirs.CloseWrite())
	_, err = theirs.Read(got)
	require.ErrorIs(t, err, io.EOF)
	on(t, l, func() { require.False(t, e.conn.Attached()) })
}

func TestPost_fromManyGoroutines_runsAllInOrder(t *testing.T) {
	l := start(t, Config{})
	const posters, each = 16, 2000
	last := make([]int, posters)
	run := 0
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if !l.Post(taskFunc(func() {
					if last[p] == i {
						last[p]++
					}
					run++
				})) {
					return
				}
			}
		})
	}
	wg.Wait()
	on(t, l, func() {
		require.Equal(t, posters*each, run)
		for p := range posters {
			require.Equal(t, each, last[p])
		}
	})
}
