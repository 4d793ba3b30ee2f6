package pgtest_test

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestIsland_cutOffIsSilentAndReconnectGoesOn(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		conn, err := echo.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	t.Cleanup(func() { echo.Close(); <-ended })
	island := pgtest.StartIsland(t, echo.Addr().String())
	conn, err := net.Dial("tcp", island.Addr())
	require.NoError(t, err)
	defer conn.Close()
	say := func(text string) error {
		_, err := io.WriteString(conn, text)
		require.NoError(t, err)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		_, err = io.ReadFull(conn, make([]byte, len(text)))
		return err
	}
	require.NoError(t, say("hello"))

	island.CutOff(t)
	require.ErrorIs(t, say("are you there"), os.ErrDeadlineExceeded)
	_, err = (&net.Dialer{Timeout: 300 * time.Millisecond}).Dial("tcp", island.Addr())
	var lost net.Error
	require.ErrorAs(t, err, &lost)
	require.True(t, lost.Timeout(), "%v", err)

	island.Reconnect(t)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, err = io.ReadFull(conn, make([]byte, len("are you there")))
	require.NoError(t, err)
}
