package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// The range from which ports are taken. It lies below the kernel's ephemeral ports (32768 and up), so that no outgoing
// connection takes a cluster's port while the cluster is being restarted.
const (
	lowestPort  = 18000
	highestPort = 32000
)

// reservation is a TCP port that no other cluster of any process on this machine takes. An abstract unix socket with the port
// in its name marks it: the kernel drops the mark with the process, so there is nothing to clean up.
type reservation struct {
	number int
	mark   net.Listener
}

// reservePort finds a port that nobody listens on and nobody has reserved.
func reservePort(ctx context.Context) (reservation, error) {
	for range 200 {
		number := lowestPort + rand.IntN(highestPort-lowestPort)
		var lc net.ListenConfig
		mark, err := lc.Listen(ctx, "unix", fmt.Sprintf("@pgsidecar-port-%d", number))
		if err != nil {
			continue
		}
		if isFree(ctx, number) {
			return reservation{number: number, mark: mark}, nil
		}
		_ = mark.Close()
	}
	return reservation{}, errors.New("reserve port: found none free in 200 tries")
}

func isFree(ctx context.Context, number int) bool {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(number)))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

// release lets others have the port.
func (r reservation) release() error {
	if r.mark == nil {
		return nil
	}
	if err := r.mark.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("release port: %w", err)
	}
	return nil
}
