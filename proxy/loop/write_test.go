package loop

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// half copies from one connection to another as a session does: it does not read while the other is blocked.
type half struct {
	conn    Conn
	sink    *half
	drained int
	most    int // The longest tail.
	ended   bool
}

func (h *half) Readable(bool) {
	for h.conn.Unread() && !h.sink.conn.Blocked() && !h.ended {
		b, err := h.conn.Read()
		if errors.Is(err, ErrWouldBlock) {
			return
		}
		if err == nil {
			err = h.sink.conn.Write(b)
			h.sink.most = max(h.sink.most, h.sink.conn.Pending())
		}
		if err != nil {
			h.ended = true
			_ = h.sink.conn.CloseWrite()
		}
	}
}

func (h *half) Stuck() {}

func (h *half) Drained() {
	h.drained++
	h.sink.Readable(false)
}

// random returns that many bytes that look like nothing else.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(b)
	return b
}

func attachPair(t *testing.T, l *Loop, a, b net.Conn) (x, y *half) {
	t.Helper()
	x, y = &half{}, &half{}
	x.sink, y.sink = y, x
	for h, tr := range map[*half]Transport{x: take(t, a), y: take(t, b)} {
		var err error
		on(t, l, func() { err = l.Attach(&h.conn, tr, h) })
		require.NoError(t, err)
	}
	// What came to the first before there was a second is still there.
	on(t, l, func() { x.Readable(false); y.Readable(false) })
	return x, y
}

type closeWriter interface {
	net.Conn
	CloseWrite() error
}

// shout sends everything and then the end, and returns a channel for the hash of all that comes.
func shout(t *testing.T, c closeWriter, b []byte) (heard <-chan [32]byte) {
	t.Helper()
	result := make(chan [32]byte, 1)
	go func() {
		if _, err := c.Write(b); err != nil {
			t.Error("write:", err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error("close:", err)
		}
	}()
	go func() {
		h := sha256.New()
		// Small reads, so that the kernel's buffers stay full.
		if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{c}, make([]byte, 3000)); err != nil {
			t.Error("read:", err)
		}
		result <- [32]byte(h.Sum(nil))
	}()
	return result
}

func TestWrite_bothWaysThroughSmallBuffers_losesNothing(t *testing.T) {
	const size = 8 << 20
	l := start(t, Config{Scratch: 16 << 10})
	aOurs, aTheirs := tcpPair(t)
	bOurs, bTheirs := unixPair(t)
	for _, c := range []interface{ SetWriteBuffer(int) error }{aOurs, bOurs} {
		require.NoError(t, c.SetWriteBuffer(1))
	}
	a, b := attachPair(t, l, aOurs, bOurs)
	toB, toA := random(size), random(size+1)
	heardA, heardB := shout(t, aTheirs, toB), shout(t, bTheirs, toA)
	require.Equal(t, sha256.Sum256(toB), receive(t, heardB))
	require.Equal(t, sha256.Sum256(toA), receive(t, heardA))
	on(t, l, func() {
		for _, h := range []*half{a, b} {
			if h.drained == 0 {
				t.Error("nothing was ever blocked")
			}
			if h.most == 0 || h.most > 16<<10 {
				t.Errorf("a tail of %d bytes", h.most)
			}
		}
		if n := len(l.spare); n == 0 || n > maxSpare {
			t.Errorf("%d spare tails", n)
		}
	})
}

func TestWrite2_parts_arriveInOrderByOneCall(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	p.attach(t, l, ours)
	before := l.Stats().Writes
	for _, parts := range [][2]string{{"abc", "defg"}, {"", "hi"}, {"jk", ""}, {"", ""}} {
		var err error
		on(t, l, func() { err = p.conn.Write2([]byte(parts[0]), []byte(parts[1])) })
		require.NoError(t, err)
	}
	require.EqualValues(t, 3, l.Stats().Writes-before)
	got := make([]byte, 11)
	_, err := io.ReadFull(theirs, got)
	require.NoError(t, err)
	require.Equal(t, "abcdefghijk", string(got))
}

func TestWrite2_thatDoesNotFit_keepsTheRestOfBothParts(t *testing.T) {
	l := start(t, Config{})
	for _, split := range []int{1, 100, 1 << 17, 1<<19 - 1} {
		ours, theirs := tcpPair(t)
		require.NoError(t, ours.SetWriteBuffer(1))
		p := &probe{}
		drained := make(chan struct{})
		p.drained = func() { close(drained) }
		p.attach(t, l, ours)
		b := random(1 << 19)
		var err error
		var blocked bool
		on(t, l, func() {
			err = errors.Join(p.conn.Write2(b[:split], b[split:]), p.conn.Write([]byte("behind")))
			blocked = p.conn.Blocked()
		})
		require.NoError(t, err)
		require.True(t, blocked)
		got := make([]byte, len(b)+len("behind"))
		_, err = io.ReadFull(theirs, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(append(b, "behind"...), got))
		receive(t, drained)

		watched := make(chan bool, 10)
		on(t, l, func() { p.readable = func(bool) { watched <- p.conn.flags&watching != 0 } })
		_, err = theirs.Write([]byte("x"))
		require.NoError(t, err)
		require.False(t, receive(t, watched), "the poller goes on reporting that there is room")
	}
}

func TestDetach_withATail_takesItAlong(t *testing.T) {
	loops := [2]*Loop{start(t, Config{}), start(t, Config{Index: 1})}
	ours, theirs := tcpPair(t)
	require.NoError(t, ours.SetWriteBuffer(1))
	p := &probe{}
	drained := make(chan struct{})
	p.drained = func() { close(drained) }
	p.attach(t, loops[0], ours)
	b := random(1 << 19)
	var tr Transport
	var pending int
	on(t, loops[0], func() {
		_ = p.conn.Write(b)
		pending = p.conn.Pending()
		tr = p.conn.Detach()
	})
	require.Positive(t, pending)
	var err error
	on(t, loops[1], func() { err = loops[1].Attach(&p.conn, tr, p) })
	require.NoError(t, err)
	got := make([]byte, len(b))
	_, err = io.ReadFull(theirs, got)
	require.NoError(t, err)
	require.True(t, bytes.Equal(b, got))
	receive(t, drained)
}

func TestWrite_tailCutByCloseWrite_isToldByARead(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	require.NoError(t, ours.SetWriteBuffer(1))
	p := &probe{}
	failures := make(chan [2]error, 10)
	p.readable = func(bool) {
		_, err := p.conn.Read() // The socket itself has neither bytes nor an error to read.
		failures <- [2]error{err, p.conn.Write([]byte("more"))}
	}
	p.attach(t, l, ours)
	on(t, l, func() {
		_ = p.conn.Write(random(1 << 19))
		_ = p.conn.shutdown() // Ahead of the tail, which can never be written then.
	})
	_, err := io.Copy(io.Discard, theirs)
	require.NoError(t, err)
	for _, err := range receive(t, failures) {
		require.ErrorIs(t, err, syscall.EPIPE)
	}
}

func TestWrite_toBrokenConnection_isAnError(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	gone := make(chan struct{}, 10)
	p.readable = func(hangup bool) {
		if hangup {
			gone <- struct{}{}
		}
	}
	p.attach(t, l, ours)
	require.NoError(t, theirs.SetLinger(0))
	require.NoError(t, theirs.Close())
	receive(t, gone)
	var err error
	on(t, l, func() { err = errors.Join(p.conn.Write([]byte("x")), p.conn.Flush()) })
	require.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE), "%v", err)
}

func TestWrite_tailThatFails_isToldByARead(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	require.NoError(t, ours.SetWriteBuffer(1))
	p := &probe{}
	drained := false
	p.drained = func() { drained = true }
	ended := make(chan error, 1)
	var readErr, writeErr error
	p.readable = func(bool) {
		for p.conn.Unread() {
			if _, readErr = p.conn.Read(); readErr != nil && !p.conn.Blocked() {
				writeErr = p.conn.Write([]byte("more"))
				p.conn.Close()
				ended <- readErr
			}
			if readErr != nil {
				return
			}
		}
	}
	p.attach(t, l, ours)
	var blocked bool
	on(t, l, func() { _ = p.conn.Write(random(8 << 20)); blocked = p.conn.Blocked() })
	require.True(t, blocked)
	require.NoError(t, theirs.SetLinger(0))
	require.NoError(t, theirs.Close())
	require.NotErrorIs(t, receive(t, ended), ErrWouldBlock)
	require.Error(t, writeErr)
	require.False(t, drained)
}

func TestTail_append_reusesWhatHasBeenSent(t *testing.T) {
	tl := &tail{buf: make([]byte, 0, 100)}
	tl.append(make([]byte, 100), nil)
	for i := range 1000 {
		tl.sent = len(tl.buf) - 1
		tl.append([]byte{byte(i)}, make([]byte, 50))
	}
	require.LessOrEqual(t, cap(tl.buf), 100)
	require.Len(t, tl.rest(), 52)
}

func TestTail_spares_serveLongTailsAndStayFew(t *testing.T) {
	l := &Loop{scratch: make([]byte, DefaultScratch)}
	for range 2 * maxSpare {
		l.recycle(&tail{buf: make([]byte, 10, DefaultScratch), sent: 10})
	}
	l.recycle(nil)
	require.Len(t, l.spare, maxSpare)
	require.Zero(t, testing.AllocsPerRun(100, func() {
		tl := l.newTail(20000)
		tl.append([]byte("some"), nil)
		l.recycle(tl)
	}))
	require.LessOrEqual(t, cap(l.newTail(10).buf), shortTail, "a short tail must not take a long spare")
	l.spare = nil
	l.recycle(&tail{buf: make([]byte, 0, shortTail)})
	l.recycle(&tail{buf: make([]byte, 0, 4*DefaultScratch)})
	require.Empty(t, l.spare)
}
