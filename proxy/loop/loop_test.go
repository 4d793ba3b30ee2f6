package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests for something that is bound to happen.
const patience = 2 * time.Minute

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

// on runs f on the loop's goroutine and waits for it. No require in f: it may only be called by the test's goroutine.
func on(t *testing.T, l *Loop, f func()) {
	t.Helper()
	done := make(chan struct{})
	require.True(t, l.Post(taskFunc(func() { defer close(done); f() })))
	receive(t, done)
}

// hold keeps the loop busy until the returned function is called, so that events gather into one batch.
func hold(t *testing.T, l *Loop) (release func()) {
	t.Helper()
	held, released := make(chan struct{}), make(chan struct{})
	require.True(t, l.Post(taskFunc(func() { close(held); <-released })))
	receive(t, held)
	return func() { close(released) }
}

func receive[T any](t testing.TB, c <-chan T) T {
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
func tcpPair(t testing.TB) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	a, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(t, err)
	b, err := ln.Accept()
	require.NoError(t, err)
	require.NoError(t, a.SetDeadline(time.Now().Add(patience)))
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
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
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

// probe owns one connection and passes what happens to it to functions; each of them may be nil.
type probe struct {
	conn     Conn
	readable func(hangup bool)
	drained  func()
	stuck    int
}

func (p *probe) Readable(hangup bool) {
	if p.readable != nil {
		p.readable(hangup)
	}
}

func (p *probe) Stuck() { p.stuck++ }

func (p *probe) Drained() {
	if p.drained != nil {
		p.drained()
	}
}

// attach attaches the probe's connection.
func (p *probe) attach(t *testing.T, l *Loop, nc net.Conn) {
	t.Helper()
	tr := take(t, nc)
	var err error
	on(t, l, func() { err = l.Attach(&p.conn, tr, p) })
	require.NoError(t, err)
}

// collect reads all there is and sends it to the channel; the end closes the channel.
func (p *probe) collect(c chan<- []byte) func(bool) {
	return func(bool) {
		for p.conn.Unread() {
			b, err := p.conn.Read()
			if errors.Is(err, ErrWouldBlock) {
				return
			}
			if err != nil {
				p.conn.Close()
				close(c)
				return
			}
			c <- append([]byte(nil), b...)
		}
	}
}

// echo returns every byte, and closes at the end of them.
func (p *probe) echo(bool) {
	for p.conn.Unread() && !p.conn.Blocked() {
		b, err := p.conn.Read()
		if errors.Is(err, ErrWouldBlock) {
			return
		}
		if err == nil {
			err = p.conn.Write(b)
		}
		if err != nil {
			p.conn.Close()
			return
		}
	}
}

// startEcho attaches a connection that returns every byte.
func startEcho(t *testing.T, l *Loop, nc net.Conn) *probe {
	t.Helper()
	p := &probe{}
	p.readable = p.echo
	p.drained = func() { p.echo(false) }
	p.attach(t, l, nc)
	return p
}

func exchange(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(c, text)
	require.NoError(t, err)
	got := make([]byte, len(text))
	_, err = io.ReadFull(c, got)
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestLoop_echo_returnsEveryByteAndTheEnd(t *testing.T) {
	l := start(t, Config{})
	tcpOurs, tcpTheirs := tcpPair(t)
	unixOurs, unixTheirs := unixPair(t)
	for _, ends := range []struct {
		ours   net.Conn
		theirs interface {
			net.Conn
			CloseWrite() error
		}
	}{{tcpOurs, tcpTheirs}, {unixOurs, unixTheirs}} {
		e := startEcho(t, l, ends.ours)
		exchange(t, ends.theirs, "hello")
		exchange(t, ends.theirs, "again")

		require.NoError(t, ends.theirs.CloseWrite())
		_, err := ends.theirs.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
		var attached bool
		on(t, l, func() { attached = e.conn.Attached() })
		require.False(t, attached)
	}
}

func TestLoop_idle_doesNotWake(t *testing.T) {
	l := start(t, Config{})
	for range 10 {
		ours, theirs := tcpPair(t)
		startEcho(t, l, ours)
		exchange(t, theirs, "once")
	}
	var timer Timer
	on(t, l, func() {
		l.Arm(&timer, time.Second, taskFunc(func() {}))
		l.Disarm(&timer)
	})
	before := settled(t, l)
	<-time.After(1200 * time.Millisecond)
	require.Equal(t, before, l.Stats().Wakeups)
}

// settled returns the count of wake-ups once the loop is blocked again.
func settled(t *testing.T, l *Loop) uint64 {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		l.inbox.mu.Lock()
		asleep := l.inbox.asleep
		l.inbox.mu.Unlock()
		if asleep {
			return l.Stats().Wakeups
		}
		runtime.Gosched()
	}
	require.FailNow(t, "the loop does not block")
	return 0
}

func TestLoop_hangup_isToldBeforeOtherEventsOfTheBatch(t *testing.T) {
	l := start(t, Config{})
	var order []string
	clientOurs, clientTheirs := tcpPair(t)
	serverOurs, serverTheirs := tcpPair(t)
	client, server := &probe{}, &probe{}
	told := make(chan struct{}, 2)
	client.readable = func(bool) { order = append(order, "client"); told <- struct{}{} }
	server.readable = func(hangup bool) {
		if !hangup {
			order = append(order, "server")
			return
		}
		order = append(order, "server has gone")
		told <- struct{}{}
	}
	client.attach(t, l, clientOurs)
	server.attach(t, l, serverOurs)

	release := hold(t, l)
	_, err := clientTheirs.Write([]byte("query"))
	require.NoError(t, err)
	require.NoError(t, serverTheirs.Close())
	release()
	receive(t, told)
	receive(t, told)
	var got []string
	on(t, l, func() { got = slices.Clone(order) })
	require.Equal(t, []string{"server has gone", "client"}, got)
}

func TestLoop_connClosedInBatch_getsNoEventNorDoesTheNewOneOfItsDescriptor(t *testing.T) {
	l := start(t, Config{})
	var pair [2]probe
	var theirs [2]net.Conn
	fresh := &probe{}
	freshOurs, _ := tcpPair(t)
	freshTold := false
	fresh.readable = func(bool) { freshTold = true }
	var calls int
	var sameDescriptor bool
	var attachErr error
	first := make(chan struct{})
	for i := range pair {
		ours, far := tcpPair(t)
		theirs[i] = far
		other := &pair[1-i]
		pair[i].readable = func(bool) {
			calls++
			if calls > 1 {
				return
			}
			fd := other.conn.fd
			other.conn.Close()
			tr, err := Take(freshOurs) // Gets the lowest free descriptor, the one just closed.
			sameDescriptor = tr.fd == fd
			if attachErr = err; err == nil {
				attachErr = l.Attach(&fresh.conn, tr, fresh)
			}
			close(first)
		}
		pair[i].attach(t, l, ours)
	}

	release := hold(t, l)
	for _, c := range theirs {
		_, err := c.Write([]byte("x"))
		require.NoError(t, err)
	}
	release()
	receive(t, first)
	var got int
	var told bool
	on(t, l, func() { got, told = calls, freshTold })
	require.NoError(t, attachErr)
	require.True(t, sameDescriptor, "the test has not made the situation it is about")
	require.Equal(t, 1, got)
	require.False(t, told)
}

func TestLoop_stop_closesWhatIsAttached(t *testing.T) {
	l, err := New(Config{Index: 3})
	require.NoError(t, err)
	require.Equal(t, 3, l.Index())
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	ours, theirs := tcpPair(t)
	e := startEcho(t, l, ours)
	exchange(t, theirs, "hello")
	l.Stop()
	l.Stop()
	require.NoError(t, receive(t, ended))
	_, err = theirs.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	require.False(t, e.conn.Attached())
	l.Stop()
}

func TestLoop_steadyState_allocatesNothing(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	var timer Timer
	later := &countTask{}
	p.readable = func(bool) {
		b, err := p.conn.Read()
		if err != nil {
			return
		}
		l.Arm(&timer, time.Minute, later)
		l.Later(later)
		_ = p.conn.Write2(b[:1], b[1:])
	}
	p.attach(t, l, ours)
	posted := &countTask{}
	message, answer := []byte("select 1"), make([]byte, 8)
	round := func() {
		l.Post(posted)
		if _, err := theirs.Write(message); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadFull(theirs, answer); err != nil {
			t.Error(err)
		}
	}
	for range 100 {
		round()
	}
	require.Zero(t, testing.AllocsPerRun(1000, round))
	on(t, l, func() {})
	require.Equal(t, 1101, posted.runs)
	require.Equal(t, 1101, later.runs)
}

func TestLoop_statistics_countSystemCalls(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	startEcho(t, l, ours)
	before := l.Stats()
	for range 100 {
		exchange(t, theirs, "ping")
	}
	after := l.Stats()
	require.EqualValues(t, 100, after.Reads-before.Reads, "a read that finds nothing is a wasted one")
	require.EqualValues(t, 100, after.Writes-before.Writes)
	require.Zero(t, after.Posts-before.Posts)
}

type countTask struct{ runs int }

func (c *countTask) Run() { c.runs++ }
