package pgtest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// echo is a server that sends back what it gets, until the client's direction ends.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
	return conn.(*net.TCPConn)
}

func TestRelay_soundByDefault(t *testing.T) {
	relay := pgtest.StartRelay(t, echo(t))
	conn := dial(t, relay.Addr())
	sent := bytes.Repeat([]byte("0123456789"), 100_000)
	go func() {
		_, _ = conn.Write(sent)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.True(t, bytes.Equal(sent, got))
	up, down := relay.Passed()
	require.Equal(t, int64(len(sent)), up)
	require.Equal(t, int64(len(sent)), down)
	require.Equal(t, 1, relay.Accepted())
}

func TestRelay_faultStrikesAtItsByte(t *testing.T) {
	for after := range int64(6) {
		for _, action := range []pgtest.Action{pgtest.Close, pgtest.Reset} {
			relay := pgtest.StartRelay(t, echo(t))
			relay.SetFaults(pgtest.Fault{}, pgtest.Fault{After: after, Then: action})
			conn := dial(t, relay.Addr())
			_, err := conn.Write([]byte("abcdef"))
			require.NoError(t, err)
			got, err := io.ReadAll(conn)
			require.Equal(t, "abcdef"[:after], string(got))
			if action == pgtest.Close {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, syscall.ECONNRESET)
			}
		}
	}
}

func TestRelay_stalledBytesComeAfterResume(t *testing.T) {
	relay := pgtest.StartRelay(t, echo(t))
	conn := dial(t, relay.Addr())
	relay.Stall()
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = conn.Read(make([]byte, 1))
	require.ErrorContains(t, err, "timeout")

	relay.Resume()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err)
}

func TestRelay_cutAndRefuse(t *testing.T) {
	relay := pgtest.StartRelay(t, echo(t))
	conn := dial(t, relay.Addr())
	_, err := conn.Write([]byte("x"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err)
	relay.Cut()
	_, err = conn.Read(make([]byte, 1))
	require.ErrorIs(t, err, syscall.ECONNRESET)

	relay.Refuse()
	refused, err := net.Dial("tcp", relay.Addr())
	if err == nil { // The reset may also be there before the dialler has looked.
		_, err = refused.Read(make([]byte, 1))
		_ = refused.Close()
	}
	require.ErrorIs(t, err, syscall.ECONNRESET)
	relay.Admit()
	conn = dial(t, relay.Addr())
	_, err = conn.Write([]byte("y"))
	require.NoError(t, err)
	_, err = conn.Read(make([]byte, 1))
	require.NoError(t, err)
}

func TestRelay_inFrontOfPostgreSQL(t *testing.T) {
	c := pgtest.Shared(t, 0)
	for _, target := range []string{c.Addr(), c.SocketFile()} {
		relay := pgtest.StartRelay(t, target)
		relay.SetFaults(pgtest.Fault{Chunk: 3}, pgtest.Fault{Chunk: 7})
		conn := pgtest.Connect(t, relay.URL(t, c.URL("postgres", pgtest.Superuser)))
		var text string
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT repeat('x', 10000)").Scan(&text))
		require.Equal(t, strings.Repeat("x", 10000), text)
	}
}

func TestBreak_piecesAndThrottle(t *testing.T) {
	a, b := net.Pipe()
	conn := pgtest.Break(a, pgtest.Fault{}, pgtest.Fault{Chunk: 2, BytesPerSecond: 100})
	started := time.Now()
	go func() {
		_, _ = conn.Write([]byte("abcde"))
		_ = conn.Close()
	}()
	var pieces []string
	buffer := make([]byte, 10)
	for {
		n, err := b.Read(buffer)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		pieces = append(pieces, string(buffer[:n]))
	}
	require.Equal(t, []string{"ab", "cd", "e"}, pieces)
	require.GreaterOrEqual(t, time.Since(started), 50*time.Millisecond)
}

func TestBreak_stallEndsWithClose(t *testing.T) {
	a, b := net.Pipe()
	go func() { _, _ = b.Write([]byte("abc")) }()
	conn := pgtest.Break(a, pgtest.Fault{After: 2, Then: pgtest.Stall}, pgtest.Fault{})
	buffer := make([]byte, 10)
	n, err := conn.Read(buffer)
	require.NoError(t, err)
	require.Equal(t, "ab", string(buffer[:n]))

	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(buffer)
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatalf("a stalled read returned: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, conn.Close())
	require.ErrorIs(t, <-read, pgtest.ErrBroken)
	require.NoError(t, b.Close())
}
