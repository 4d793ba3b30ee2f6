package proxy_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// The loops share one pool: its servers move to where they are wanted. Every transaction is answered, by nobody else's answer;
// no server is lost or made on the way; and whatever loop a client is on, it gets its share.
func TestLoops_shareOnePool_withoutLossAndFairly(t *testing.T) {
	c := pgtest.Shared(t, 0)
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers, " servers"), func(t *testing.T) {
			const clients, transactions = 24, 3000
			p := start(t, c, func(config *proxy.Config) {
				config.Loops, config.Pool.MaxConnections, config.Session.SentinelEvery = 3, servers, 100
			})
			raws := make([]*rawClient, clients)
			for i := range raws {
				raws[i] = raw(t, p.url())
			}
			var begun atomic.Int64
			counts := make([]int, clients)
			var ends []<-chan error
			for i, client := range raws {
				ends = append(ends, started(func() error {
					for ; begun.Add(1) <= transactions; counts[i]++ {
						sql, want := fmt.Sprintf("select %d, %d", i, counts[i]), fmt.Sprintf("D %d,%d", i, counts[i])
						if err := client.Peer.Send(query("begin"), query(sql), query("commit")); err != nil {
							return err
						}
						if err := client.Peer.Expect("C BEGIN", "Z T", "T ?column?,?column?", want, "C SELECT 1", "Z T", "C COMMIT", "Z I"); err != nil {
							return err
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				require.NoError(t, <-end)
			}
			total := 0
			for _, n := range counts {
				total += n
			}
			require.Equal(t, transactions, total)
			require.LessOrEqual(t, p.Snapshot().ServerConnects, uint64(servers), "a server that moves is not made anew")
			require.Equal(t, int(p.Snapshot().ServerConnects), p.idle(t), "none is lost")
			// With one server for three loops, it has moved; those who have waited longest come first, so nobody is left behind.
			require.Greater(t, 3*slices.Min(counts), slices.Max(counts), "%v", counts)
		})
	}
}

// A loop whose clients have nothing to do keeps no server from the clients of another.
func TestLoops_idleServersOfOneLoop_serveAnother(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Loops, config.Pool.MaxConnections = 2, 2 })
	clients := []*rawClient{raw(t, p.url()), raw(t, p.url()), raw(t, p.url()), raw(t, p.url())} // two on each loop
	for i := range 20 {
		// Two clients at a time, of one loop and of both in turn, need both servers.
		a, b := clients[i%4], clients[(i+1+i/4%3)%4]
		a.say(query("begin"))
		b.say(query("begin"))
		require.NotEqual(t, a.pid(), b.pid())
		a.say(query("commit"))
		b.say(query("commit"))
	}
	require.EqualValues(t, 2, p.Snapshot().ServerConnects)
	require.Empty(t, p.Snapshot().Errors)
}
