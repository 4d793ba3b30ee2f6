package loop

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutbox_writesOfAllLengths_keepTheirOrder(t *testing.T) {
	l := start(t, Config{})
	var probes [2]probe
	var sent [2][]byte
	var received [2]chan []byte
	for i := range probes {
		ours, theirs := tcpPair(t)
		received[i] = make(chan []byte, 1)
		go func() {
			b, _ := io.ReadAll(theirs)
			received[i] <- b
		}()
		probes[i].attach(t, l, ours)
	}
	for turn := range 50 {
		on(t, l, func() {
			for n := range 20 {
				i := (turn + n) % 2
				b := random([]int{1, 300, shortWrite, shortWrite + 1, outboxSize}[(turn*7+n*3)%5])
				sent[i] = append(sent[i], b...)
				if err := probes[i].conn.Write2(b[:len(b)/2], b[len(b)/2:]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range probes {
		for pending := 1; pending > 0; {
			on(t, l, func() { pending = probes[i].conn.Pending() })
		}
		on(t, l, probes[i].conn.Close)
		require.True(t, bytes.Equal(sent[i], receive(t, received[i])))
	}
}

func TestOutbox_writesOfOneTurn_areOneSystemCall(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	p := &probe{}
	p.attach(t, l, ours)
	before := l.Stats().Writes
	on(t, l, func() {
		for range 10 {
			_ = p.conn.Write([]byte("ab"))
		}
	})
	b := make([]byte, 20)
	_, err := io.ReadFull(theirs, b)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte("ab"), 10), b)
	require.EqualValues(t, 1, l.Stats().Writes-before)
}

func TestOutbox_closeAndDetach_sendWhatWaits(t *testing.T) {
	l := start(t, Config{})
	for _, end := range []func(c *Conn) error{
		func(c *Conn) error { c.Close(); return nil },
		func(c *Conn) error { return c.Detach().Close() },
		func(c *Conn) error { return c.CloseWrite() },
		func(c *Conn) error { defer c.Close(); return c.Flush() },
	} {
		ours, theirs := tcpPair(t)
		p := &probe{}
		p.attach(t, l, ours)
		var err error
		on(t, l, func() {
			_ = p.conn.Write([]byte("last words"))
			err = end(&p.conn)
		})
		require.NoError(t, err)
		b, err := io.ReadAll(theirs)
		require.NoError(t, err)
		require.Equal(t, "last words", string(b))
	}
}

func TestOutbox_failure_isToldByARead(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	other, otherTheirs := tcpPair(t)
	p, bystander := &probe{}, &probe{}
	told := make(chan error, 10)
	p.readable = func(hangup bool) {
		for p.conn.Unread() {
			if _, err := p.conn.Read(); err != nil {
				told <- err
				if hangup {
					_ = bystander.conn.Write([]byte("seen")) // while the outbox is being sent
					p.conn.Close()
				}
				return
			}
		}
	}
	p.attach(t, l, ours)
	bystander.attach(t, l, other)
	on(t, l, func() {
		require.NoError(t, syscall.Shutdown(int(p.conn.fd), syscall.SHUT_WR))
		for range 3 {
			require.NoError(t, p.conn.Write([]byte("x")))
			require.NoError(t, bystander.conn.Write([]byte("y")))
		}
	})
	require.ErrorIs(t, receive(t, told), syscall.EPIPE)
	b := make([]byte, 7)
	_, err := io.ReadFull(otherTheirs, b)
	require.NoError(t, err)
	require.Equal(t, "yyyseen", string(b))
	_ = theirs
}

func TestOutbox_whatTheSocketDoesNotTake_isTold(t *testing.T) {
	l := start(t, Config{})
	ours, _ := tcpPair(t)
	require.NoError(t, ours.SetWriteBuffer(1))
	p := &probe{}
	p.attach(t, l, ours)
	stuck := 0
	for range 10_000 {
		on(t, l, func() {
			if !p.conn.Blocked() {
				_ = p.conn.Write(make([]byte, shortWrite))
			}
			stuck = p.stuck
		})
		if stuck > 0 {
			break
		}
	}
	require.Equal(t, 1, stuck)
	on(t, l, func() { require.True(t, p.conn.Blocked()) })
}

func TestCloseWrite_withATail_comesBehindIt(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	require.NoError(t, ours.SetWriteBuffer(1))
	p := &probe{}
	p.attach(t, l, ours)
	sent := random(4 << 20)
	var blocked bool
	on(t, l, func() {
		_ = p.conn.Write(sent)
		blocked = p.conn.Blocked()
		if err := p.conn.CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	require.True(t, blocked)
	got, err := io.ReadAll(theirs)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
}
