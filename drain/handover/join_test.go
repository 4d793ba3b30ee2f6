package handover

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestJoin_refused_saysWhy(t *testing.T) {
	o := newOldRefusing(t, errors.New("the proxy is draining"))
	_, _, err := join(t, o.path)
	require.ErrorContains(t, err, "the other process refuses: the proxy is draining")
	require.Error(t, <-o.offered)
	serves(t, o.clients)
}

func TestJoin_tooFewDescriptors_isFoundOutFirst(t *testing.T) {
	o := newOld(t)
	_, err := (&Joiner{Sockets: new(Sockets), Descriptors: 1 << 40}).Join(t.Context(), o.path)
	require.ErrorContains(t, err, "raise its limit (RLIMIT_NOFILE)")
	require.Error(t, <-o.offered)
	serves(t, o.clients)
}

func TestJoin_nobody(t *testing.T) {
	dir := t.TempDir()
	_, _, err := join(t, filepath.Join(dir, "nothing"))
	require.ErrorIs(t, err, ErrNobody)
	left := filepath.Join(dir, "left behind")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: left})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, _, err = join(t, left)
	require.ErrorIs(t, err, ErrNobody)
	bound, err := Bind(t.Context(), left)
	require.NoError(t, err, "what a process has left behind is removed")
	_, err = Bind(t.Context(), left)
	require.ErrorContains(t, err, "another process serves it")
	require.NoError(t, bound.Close())
}

// TestJoin_predecessorDies_isNobody: whoever starts then serves, as there is nobody else to do it.
func TestJoin_predecessorDies_isNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	var dying sync.WaitGroup
	dying.Go(func() {
		conn, err := l.Accept()
		require.NoError(t, err)
		_, err = readFrame(conn.(*net.UnixConn))
		require.NoError(t, err)
		require.NoError(t, l.Close())
		require.NoError(t, conn.Close())
	})
	_, _, err = join(t, path)
	require.ErrorIs(t, err, ErrNobody)
	dying.Wait()
}

func TestJoin_whatIsNotAPredecessor_isRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer any
		want   string
	}{
		"another program":   {nil, "not the handover protocol"},
		"an older protocol": {welcome{Protocol: Protocol - 1, Version: "v0"}, "(version v0) is older"},
		"a newer protocol":  {welcome{Protocol: Protocol + 1, Version: "v9"}, "(version v9) is newer"},
		"sockets missing":   {welcome{Protocol: Protocol, Sockets: []string{"clients"}}, "not the handover protocol"},
		"clients below 0":   {welcome{Protocol: Protocol, Clients: -1}, "not the handover protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
			require.NoError(t, err)
			defer l.Close()
			var answering sync.WaitGroup
			answering.Go(func() {
				conn, err := l.Accept()
				require.NoError(t, err)
				defer conn.Close()
				if c.answer == nil {
					_, err = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
				} else {
					err = say(conn.(*net.UnixConn), kindWelcome, c.answer)
				}
				require.NoError(t, err)
				_, _ = io.Copy(io.Discard, conn) // Until the other side has had enough.
			})
			_, _, err = join(t, path)
			require.ErrorContains(t, err, c.want)
			answering.Wait()
		})
	}
}

func TestPeer_ofAnotherUser_isRefused(t *testing.T) {
	require.NoError(t, sameUser(5, 5))
	require.ErrorContains(t, sameUser(6, 5), "belongs to a process of user 6, and this one is of user 5")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, _, err := join(t, file)
	require.ErrorContains(t, err, "is not a socket")
	_, err = Bind(t.Context(), file)
	require.ErrorContains(t, err, "is not a socket")
	require.FileExists(t, file)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Chown(path, 65534, -1))
	_, _, err = join(t, path)
	require.ErrorContains(t, err, "belongs to a process of user 65534")
}
