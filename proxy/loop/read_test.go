package loop

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// stepper is a connection whose reads the test makes one by one.
type stepper struct {
	t    *testing.T
	l    *Loop
	p    *probe
	told chan bool
	peer net.Conn
}

func newStepper(t *testing.T, scratch int) *stepper {
	t.Helper()
	s := &stepper{t: t, l: start(t, Config{Scratch: scratch}), p: &probe{}, told: make(chan bool, 100)}
	ours, theirs := tcpPair(t)
	s.peer = theirs
	s.p.readable = func(hangup bool) { s.told <- hangup }
	s.p.attach(t, s.l, ours)
	return s
}

// send sends bytes and waits until the loop knows of them.
func (s *stepper) send(b []byte) {
	s.t.Helper()
	_, err := s.peer.Write(b)
	require.NoError(s.t, err)
	require.False(s.t, receive(s.t, s.told))
}

// read reads once, keeps the last keep bytes of the result, and returns a copy of all.
func (s *stepper) read(keep int) (got []byte, err error, unread bool) {
	s.t.Helper()
	on(s.t, s.l, func() {
		var b []byte
		b, err = s.p.conn.Read()
		got = bytes.Clone(b)
		if err == nil && keep > 0 {
			s.p.conn.Keep(b[len(b)-min(keep, len(b)):])
		}
		unread = s.p.conn.Unread()
	})
	return got, err, unread
}

func TestRead_shortOfTheBuffer_clearsUnreadAndSavesTheNextCall(t *testing.T) {
	s := newStepper(t, 64)
	s.send([]byte("short"))
	got, err, unread := s.read(0)
	require.NoError(t, err)
	require.Equal(t, "short", string(got))
	require.False(t, unread)
	before := s.l.Stats().Reads
	_, err, _ = s.read(0)
	require.ErrorIs(t, err, ErrWouldBlock)
	require.Equal(t, before, s.l.Stats().Reads)
}

func TestRead_fullBuffer_staysUnread(t *testing.T) {
	s := newStepper(t, 64)
	s.send(make([]byte, 64))
	got, err, unread := s.read(0)
	require.NoError(t, err)
	require.Len(t, got, 64)
	require.True(t, unread)
	_, err, unread = s.read(0)
	require.ErrorIs(t, err, ErrWouldBlock)
	require.False(t, unread)
}

func TestRead_keptBytes_comeFirstAndStayWhenNothingIsNew(t *testing.T) {
	s := newStepper(t, 64)
	s.send([]byte("0123456789"))
	_, err, _ := s.read(4)
	require.NoError(t, err)
	_, err, _ = s.read(0)
	require.ErrorIs(t, err, ErrWouldBlock)
	var kept int
	on(t, s.l, func() { kept = s.p.conn.Kept() })
	require.Equal(t, 4, kept)
	s.send([]byte("abc"))
	got, err, _ := s.read(0)
	require.NoError(t, err)
	require.Equal(t, "6789abc", string(got))
	s.send([]byte("new"))
	got, err, _ = s.read(0)
	require.NoError(t, err)
	require.Equal(t, "new", string(got), "what was not kept again is gone")
	on(t, s.l, func() { kept = s.p.conn.Kept() })
	require.Zero(t, kept)
}

func TestRead_afterHangup_yieldsTheRestThenTheEnd(t *testing.T) {
	s := newStepper(t, 64)
	release := hold(t, s.l)
	_, err := s.peer.Write([]byte("last words"))
	require.NoError(t, err)
	require.NoError(t, s.peer.Close())
	release()
	require.True(t, receive(t, s.told))
	got, err, unread := s.read(3)
	require.NoError(t, err)
	require.Equal(t, "last words", string(got))
	require.True(t, unread, "the end has not been read")
	for range 2 {
		_, err, _ = s.read(0)
		require.ErrorIs(t, err, io.EOF)
	}
	var kept int
	on(t, s.l, func() { kept = s.p.conn.Kept() })
	require.Equal(t, 3, kept)
}

func TestRead_longMessage_growsABufferOfItsOwnAndFreesIt(t *testing.T) {
	const scratch = 128
	s := newStepper(t, scratch)
	var want []byte
	r := rand.New(rand.NewPCG(1, 2))
	for len(want) < 10000 {
		piece := make([]byte, 1+r.IntN(300))
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		want = append(want, piece...)
		s.send(piece)
		for {
			got, err, unread := s.read(len(want))
			if errors.Is(err, ErrWouldBlock) {
				break
			}
			require.NoError(t, err)
			require.True(t, bytes.HasPrefix(want, got))
			if !unread {
				require.Len(t, got, len(want))
				break
			}
		}
		var room int
		on(t, s.l, func() { room = cap(s.p.conn.kept) })
		require.LessOrEqual(t, room, 2*len(want)+scratch, "kept memory")
	}
	s.send([]byte("!"))
	got, err, _ := s.read(10)
	require.NoError(t, err)
	require.Equal(t, append(want, '!'), got)
	var room int
	on(t, s.l, func() { room = cap(s.p.conn.kept) })
	require.LessOrEqual(t, room, 16, "a short rest must not hold on to a long buffer")
	s.send([]byte("next"))
	got, err, _ = s.read(0)
	require.NoError(t, err)
	require.Equal(t, "next", string(got[10:]))
}

func TestKeep_leavesTheReadBytesAsTheyAre(t *testing.T) {
	s := newStepper(t, 64)
	message := bytes.Repeat([]byte("0123456789"), 9)
	s.send(message[:50])
	_, err, _ := s.read(50) // More than half of the scratch: the next Read has a buffer of its own.
	require.NoError(t, err)
	s.send(message[50:])
	var same bool
	on(t, s.l, func() {
		b, err := s.p.conn.Read()
		s.p.conn.Keep(b[40:])
		same = err == nil && bytes.Equal(b, message)
	})
	require.True(t, same)
}

func TestTakeKept_returnsWhatIsKeptOnceAndWithoutASystemCall(t *testing.T) {
	s := newStepper(t, 64)
	for _, length := range []int{10, 60} { // Copied to the scratch, and in a buffer of its own.
		want := random(length)
		s.send(want)
		_, err, _ := s.read(length)
		require.NoError(t, err)
		before := s.l.Stats().Reads
		var got, again []byte
		on(t, s.l, func() {
			b := s.p.conn.TakeKept()
			again = s.p.conn.TakeKept()
			got = bytes.Clone(b)
			s.p.conn.Keep(b[5:])
		})
		require.Equal(t, want, got)
		require.Nil(t, again)
		require.Equal(t, before, s.l.Stats().Reads)
		s.send([]byte("!"))
		got, err, _ = s.read(0)
		require.NoError(t, err)
		require.Equal(t, append(want[5:], '!'), got)
	}
}
