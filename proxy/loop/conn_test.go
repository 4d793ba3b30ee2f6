package loop

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestConn_size_isSmall(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Conn{}), uintptr(96))
	require.LessOrEqual(t, unsafe.Sizeof(Timer{}), uintptr(40))
}

func TestConn_zeroValue_isAClosedConnection(t *testing.T) {
	var c Conn
	_, err := c.Read()
	require.ErrorIs(t, err, net.ErrClosed)
	require.ErrorIs(t, c.Write([]byte("x")), net.ErrClosed)
	require.ErrorIs(t, c.CloseWrite(), net.ErrClosed)
	require.False(t, c.Attached())
	require.False(t, c.Unread())
	require.False(t, c.Blocked())
	require.Zero(t, c.Pending())
	require.Nil(t, c.Loop())
	require.False(t, c.Remote().IsValid())
	c.Keep([]byte("x"))
	require.Zero(t, c.Kept())
	c.Close()
}

func TestAttach_bytesThatCameBefore_areTold(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	_, err := theirs.Write([]byte("early"))
	require.NoError(t, err)
	got := make(chan []byte, 10)
	p := &probe{}
	p.readable = p.collect(got)
	p.attach(t, l, ours)
	require.Equal(t, "early", string(receive(t, got)))
}

func TestAttach_twiceOrOfNothing_isRefused(t *testing.T) {
	l := start(t, Config{})
	ours, _ := tcpPair(t)
	p := &probe{}
	p.attach(t, l, ours)
	var twice, empty error
	another, _ := tcpPair(t)
	tr := take(t, another)
	on(t, l, func() {
		twice = l.Attach(&p.conn, tr, p)
		empty = l.Attach(&Conn{}, Transport{}, p)
	})
	require.Error(t, twice)
	require.Error(t, empty)
	require.NoError(t, tr.Close())
	require.Error(t, Transport{}.Close())
}

func TestAttach_ofAClosedDescriptor_leavesTheConnFree(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	bad := take(t, ours)
	bad.fd = 1 << 20 // Nobody's.
	good := Transport{fd: take(t, theirs).fd, peer: bad.peer}
	var badErr, goodErr error
	on(t, l, func() {
		badErr = l.Attach(&p.conn, bad, p)
		goodErr = l.Attach(&p.conn, good, p)
	})
	require.Error(t, badErr)
	require.NoError(t, goodErr)
}

func TestConn_remote_staysAfterClose(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	p.attach(t, l, ours)
	var open, closed netip.AddrPort
	on(t, l, func() {
		open = p.conn.Remote()
		p.conn.Close()
		p.conn.Close()
		closed = p.conn.Remote()
	})
	require.Equal(t, theirs.LocalAddr().String(), open.String())
	require.Equal(t, open, closed)
	_, err := theirs.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
}

func TestPeer_address_survivesPacking(t *testing.T) {
	for _, s := range []string{"127.0.0.1:5432", "[::1]:6432", "[2001:db8::7]:1", "0.0.0.0:65535"} {
		ap := netip.MustParseAddrPort(s)
		require.Equal(t, ap, peerOf(net.TCPAddrFromAddrPort(ap)).addrPort())
	}
	mapped := netip.MustParseAddrPort("[::ffff:10.0.0.1]:5432")
	require.Equal(t, "10.0.0.1:5432", peerOf(net.TCPAddrFromAddrPort(mapped)).addrPort().String())
	require.False(t, peerOf(&net.UnixAddr{Name: "/tmp/x"}).addrPort().IsValid())
}

func TestClose_inACallback_endsAllCallbacks(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	calls := 0
	closed := make(chan struct{})
	p.readable = func(bool) { calls++; p.conn.Close(); close(closed) }
	p.drained = func() { calls++ }
	p.attach(t, l, ours)
	_, err := theirs.Write([]byte("x"))
	require.NoError(t, err)
	receive(t, closed)
	_, _ = theirs.Write([]byte("y"))
	require.NoError(t, theirs.Close())
	on(t, l, func() {})
	require.Equal(t, 1, calls)
}

func TestCloseWrite_leavesReadingOpen(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	got := make(chan []byte, 1)
	p := &probe{}
	p.readable = p.collect(got)
	p.attach(t, l, ours)
	var err error
	on(t, l, func() { err = p.conn.CloseWrite() })
	require.NoError(t, err)
	_, err = theirs.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	_, err = theirs.Write([]byte("still heard"))
	require.NoError(t, err)
	require.Equal(t, "still heard", string(receive(t, got)))
}

// mover echoes whole lines and goes to the other loop after each, with what has come of the next line.
type mover struct {
	conn  Conn
	loops [2]*Loop
	at    int
	moves int
	lines bytes.Buffer
	ended chan struct{}
}

func (m *mover) Readable(bool) {
	for m.conn.Unread() {
		b, err := m.conn.Read()
		if errors.Is(err, ErrWouldBlock) {
			return
		}
		if err != nil {
			m.conn.Close()
			close(m.ended)
			return
		}
		end := bytes.LastIndexByte(b, '\n') + 1
		m.lines.Write(b[:end])
		m.conn.Keep(b[end:])
		if end > 0 {
			m.move()
			return
		}
	}
}

func (m *mover) Drained() {}
func (m *mover) Stuck()   {}

func (m *mover) move() {
	tr := m.conn.Detach()
	m.at, m.moves = 1-m.at, m.moves+1
	next := m.loops[m.at]
	if !next.Post(taskFunc(func() { _ = next.Attach(&m.conn, tr, m) })) {
		_ = tr.Close()
	}
}

func TestDetach_betweenLoops_losesNoByte(t *testing.T) {
	m := &mover{loops: [2]*Loop{start(t, Config{}), start(t, Config{Index: 1})}, ended: make(chan struct{})}
	ours, theirs := tcpPair(t)
	tr := take(t, ours)
	on(t, m.loops[0], func() { _ = m.loops[0].Attach(&m.conn, tr, m) })
	var want bytes.Buffer
	for i := range 2000 {
		piece := []byte{byte('a' + i%26)}
		if i%3 == 2 {
			piece = append(piece, "\nbegin of "...)
		}
		want.Write(piece)
		_, err := theirs.Write(piece)
		require.NoError(t, err)
	}
	want.WriteString("\n")
	_, err := theirs.Write([]byte("\n"))
	require.NoError(t, err)
	require.NoError(t, theirs.CloseWrite())
	receive(t, m.ended)
	require.Equal(t, want.String(), m.lines.String())
	require.Positive(t, m.moves)
}

func TestTake_ofWhatHasNoDescriptor_isRefused(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	_, err := Take(a)
	require.ErrorContains(t, err, "*net.pipe")
	ours, _ := tcpPair(t)
	require.NoError(t, ours.Close())
	_, err = Take(ours)
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestTake_ofASocketWithoutTLS_isPlain(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	s := NewSocket(ours)
	tr := take(t, s)
	require.False(t, tr.IsTLS())
	_, ok := tr.TLSState()
	require.False(t, ok)
	require.Equal(t, theirs.LocalAddr().String(), tr.Remote().String())
	p := &probe{}
	p.readable = p.echo
	var err error
	on(t, l, func() { err = l.Attach(&p.conn, tr, p) })
	require.NoError(t, err)
	exchange(t, theirs, "plain")
}

func TestTake_ofABlockingDescriptor_makesItNonBlocking(t *testing.T) {
	ours, _ := tcpPair(t)
	raw, err := ours.SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) }))
	require.NoError(t, err)
	tr := take(t, ours)
	flags, err := unix.FcntlInt(uintptr(tr.fd), unix.F_GETFL, 0)
	require.NoError(t, err)
	require.NotZero(t, flags&unix.O_NONBLOCK)
	require.NoError(t, tr.Close())
}
