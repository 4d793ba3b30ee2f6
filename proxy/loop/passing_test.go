package loop

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pass duplicates the descriptor, as sending it to another process does, and makes a Transport there.
func pass(t *testing.T, from Transport) Transport {
	t.Helper()
	fd, kept, unsent, ok := from.Passing()
	require.True(t, ok)
	duplicate, err := unix.Dup(fd)
	require.NoError(t, err)
	to, err := Passed(duplicate, kept, unsent)
	require.NoError(t, err)
	return to
}

func TestPassing_connectionGoesOnWhereItIsTaken(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = t.TempDir() + "/s"
			}
			l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
			require.NoError(t, err)
			defer l.Close()
			peer, err := (&net.Dialer{}).DialContext(t.Context(), network, l.Addr().String())
			require.NoError(t, err)
			defer peer.Close()
			conn, err := l.Accept()
			require.NoError(t, err)
			original, err := Take(conn)
			require.NoError(t, err)
			original.kept, original.tail = []byte("kept"), &tail{buf: []byte("sent, unsent"), sent: 6}

			passed := pass(t, original)
			require.Equal(t, original.Remote(), passed.Remote())
			require.Equal(t, "kept", string(passed.kept))
			require.Equal(t, "unsent", string(passed.tail.rest()))
			require.NoError(t, original.Close())
			_, err = unix.Write(int(passed.fd), []byte("alive"))
			require.NoError(t, err, "closing the one does not end the connection")
			got := make([]byte, 5)
			_, err = io.ReadFull(peer, got)
			require.NoError(t, err)
			require.Equal(t, "alive", string(got))
			require.NoError(t, passed.Close())
			_, err = peer.Read(got)
			require.ErrorIs(t, err, io.EOF)
		})
	}
}

func TestPassed_whatIsNoConnection_isRefused(t *testing.T) {
	_, err := Passed(-1, nil, nil)
	require.Error(t, err)
	datagram, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(datagram)
	_, err = Passed(datagram, nil, nil)
	require.ErrorContains(t, err, "not a stream")
	_, _, _, ok := Transport{}.Passing()
	require.False(t, ok)
}
