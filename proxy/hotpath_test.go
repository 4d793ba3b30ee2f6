package proxy_test

import (
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/wire"
)

// runner repeats one transaction over a connection, without allocating anything itself.
type runner struct {
	conn    net.Conn
	request []byte
	answer  []byte // as long as the answer to it
}

// newRunner logs in, prepares the statement "s", and learns how long the answer to the request is.
func newRunner(t *testing.T, to string, request ...pgproto3.Message) *runner {
	t.Helper()
	c := raw(t, to)
	c.say(parse("s", "select $1::int"), syncNow())
	r := &runner{conn: c.Conn}
	owed := 0
	for _, m := range decoded(t, request) {
		r.request = append(r.request, m.Bytes()...)
		if m.Type == wire.Sync || m.Type == wire.Query {
			owed++
		}
	}
	c.SendBytes(r.request)
	for owed > 0 {
		m := c.Receive()
		require.NotEqual(t, wire.ErrorResponse, m.Type, m.String())
		r.answer = append(r.answer, m.Bytes()...)
		if m.Type == wire.ReadyForQuery {
			owed--
		}
	}
	require.NoError(t, c.Conn.SetDeadline(time.Time{}))
	return r
}

func (r *runner) run(times int) error {
	for range times {
		if _, err := r.conn.Write(r.request); err != nil {
			return err
		}
		if _, err := io.ReadFull(r.conn, r.answer); err != nil {
			return err
		}
	}
	return nil
}

// hotPaths are transactions whose messages must not cost an allocation each.
func hotPaths() map[string][]pgproto3.Message {
	return map[string][]pgproto3.Message{
		"simple":      {query("select 1")},
		"prepared":    run("s", "7"),
		"extended":    together(parse("", "select $1::int"), describe(""), run("", "7")),
		"transaction": together(query("begin"), run("s", "7"), query("commit")),
		"pipeline":    together(run("s", "7"), run("s", "8"), run("s", "9")),
	}
}

// runAll lets all runners run at once.
func runAll(t *testing.T, runners []*runner, times int) {
	t.Helper()
	var all sync.WaitGroup
	faults := make(chan error, len(runners))
	for _, r := range runners {
		all.Go(func() { faults <- r.run(times) })
	}
	all.Wait()
	for range runners {
		require.NoError(t, <-faults)
	}
}

// 32 clients share four servers, so that most transactions wait, and meet a server with other statements than their last one.
// No message costs an allocation, and a transaction costs two reads, two writes and its share of the waits.
func TestHotPath_costsOfATransaction(t *testing.T) {
	c := pgtest.Shared(t, 0)
	const clients, times = 32, 320
	for name, request := range hotPaths() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, func(config *proxy.Config) {
				config.Pool.MaxConnections, config.Session.SentinelEvery = 4, 0
			})
			var runners []*runner
			for range clients {
				runners = append(runners, newRunner(t, p.url(), request...))
			}
			runAll(t, runners, 20)
			var before, after runtime.MemStats
			calls := p.LoopStats()
			runtime.ReadMemStats(&before)
			runAll(t, runners, times)
			runtime.ReadMemStats(&after)
			per := func(n uint64) float64 { return float64(n) / (clients * times) }
			t.Logf("%.4f allocations and %.1f bytes a transaction", per(after.Mallocs-before.Mallocs), per(after.TotalAlloc-before.TotalAlloc))
			require.Less(t, per(after.Mallocs-before.Mallocs), 0.05) // the goroutines of this test, and the garbage collector's
			now := p.LoopStats()
			reads, writes, waits := per(now.Reads-calls.Reads), per(now.Writes-calls.Writes), per(now.Wakeups-calls.Wakeups)
			t.Logf("%.2f reads, %.2f writes and %.2f waits a transaction: %.2f", reads, writes, waits, reads+writes+waits)
			if name != "transaction" && name != "pipeline" { // their answers may come in pieces
				require.InDelta(t, 2, writes, 0.1)
				require.Less(t, reads, 2.5) // a read may find nothing
			}
		})
	}
}
