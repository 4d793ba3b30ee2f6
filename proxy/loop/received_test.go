package loop

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnreceived_peerEndedBefore_isCertain(t *testing.T) {
	s := newStepper(t, 64)
	require.NoError(t, s.peer.Close())
	require.True(t, receive(t, s.told))
	on(t, s.l, func() { require.NoError(t, s.p.conn.Write([]byte("too late"))) })
	on(t, s.l, func() {}) // The turn of the write is over.
	_, err, _ := s.read(0)
	require.ErrorIs(t, err, io.EOF)
	on(t, s.l, func() {
		require.True(t, s.p.conn.Unreceived(len("too late")))
		require.False(t, s.p.conn.Unreceived(len("too late")+1), "more than was written")
		require.False(t, s.p.conn.Unreceived(0), "nothing was written")
	})
}

func TestUnsend_inTheTurnOfTheWrite_takesItBack(t *testing.T) {
	s := newStepper(t, 64)
	on(t, s.l, func() {
		require.False(t, s.p.conn.Unsend(), "nothing was written")
		require.NoError(t, s.p.conn.Write([]byte("taken back")))
		require.True(t, s.p.conn.Unsend())
		require.NoError(t, s.p.conn.Write([]byte("sent")))
	})
	got := make([]byte, 4)
	_, err := io.ReadFull(s.peer, got)
	require.NoError(t, err)
	require.Equal(t, "sent", string(got))
	on(t, s.l, func() { require.False(t, s.p.conn.Unsend(), "it has been sent") })
}

func TestBounced_peerHasResetTheConnection_isKnown(t *testing.T) {
	s := newStepper(t, 64)
	require.NoError(t, s.peer.(*net.TCPConn).SetLinger(0))
	require.NoError(t, s.peer.Close())
	require.True(t, receive(t, s.told))
	on(t, s.l, func() {
		require.False(t, s.p.conn.Bounced())
		require.NoError(t, s.p.conn.Write([]byte("nobody there")))
	})
	require.True(t, receive(t, s.told))
	on(t, s.l, func() { require.True(t, s.p.conn.Bounced()) })
}

func TestUnreceived_peerHasTakenIt_isNotSaid(t *testing.T) {
	s := newStepper(t, 64)
	on(t, s.l, func() { require.NoError(t, s.p.conn.Write([]byte("in time"))) })
	_, err := io.ReadFull(s.peer, make([]byte, len("in time")))
	require.NoError(t, err)
	require.NoError(t, s.peer.Close())
	require.True(t, receive(t, s.told))
	_, err, _ = s.read(0)
	require.ErrorIs(t, err, io.EOF)
	on(t, s.l, func() { require.False(t, s.p.conn.Unreceived(len("in time"))) })
}

func TestUnreceived_unixSocket_isNotSaid(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := unixPair(t)
	p := &probe{}
	told := make(chan bool, 1)
	p.readable = func(bool) { told <- true }
	p.attach(t, l, ours)
	on(t, l, func() { require.NoError(t, p.conn.Write([]byte("kept by the socket"))) })
	_, err := theirs.Write([]byte("a word"))
	require.NoError(t, err)
	receive(t, told)
	on(t, l, func() { require.False(t, p.conn.Unreceived(1)) })
}
