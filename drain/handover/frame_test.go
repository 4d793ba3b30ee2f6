package handover

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func FuzzReadFrame(f *testing.F) {
	body, _ := json.Marshal(hello{Protocol: 1})
	f.Add(append([]byte{'p', 'g', 's', 'c', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(body))}, body...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		conns := make([]*net.UnixConn, 2)
		for i, fd := range fds {
			file := os.NewFile(uintptr(fd), "pair")
			conn, err := net.FileConn(file)
			require.NoError(t, err)
			require.NoError(t, file.Close())
			conns[i] = conn.(*net.UnixConn)
		}
		defer conns[1].Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var writing sync.WaitGroup
		writing.Go(func() {
			defer conns[0].Close()
			_, _ = conns[0].Write(sent)
		})
		for ctx.Err() == nil {
			got, err := readFrame(conns[1])
			if err != nil {
				break
			}
			require.Empty(t, got.descriptors)
			require.LessOrEqual(t, len(got.body), len(sent))
		}
		_ = conns[1].Close()
		writing.Wait()
	})
}
