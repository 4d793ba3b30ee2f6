package pool

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
)

// bareConn and bareGrantee do nothing, so that only the pool is measured.
type bareConn struct{ slot Slot }

func (c *bareConn) Slot() *Slot  { return &c.slot }
func (c *bareConn) Evict(string) { c.slot.Closed() }
func (c *bareConn) Move(Grantee) {}
func (c *bareConn) Adopt(int)    {}

type bareGrantee struct{ granted chan struct{} }

func (g *bareGrantee) Granted() {
	select {
	case g.granted <- struct{}{}:
	default:
	}
}

type bareDialer struct{}

func (bareDialer) Dial(context.Context, *Pool, any) (Conn, error) { return &bareConn{}, nil }

// bareClients are waiters on the given loops, the first of which have a connection each.
func bareClients(t testing.TB, c Config, connections int, loops ...int) (*Pool, []Waiter, []Conn) {
	t.Helper()
	target := NewTarget(c, bareDialer{})
	t.Cleanup(target.Close)
	p := target.Pool("db", "user")
	waiters := make([]Waiter, len(loops))
	conns := make([]Conn, connections)
	for i, loop := range loops {
		g := &bareGrantee{make(chan struct{}, 1)}
		waiters[i].Init(g, loop)
		if i < connections {
			p.Acquire(&waiters[i])
			<-g.granted
			conns[i], _ = waiters[i].Take()
			require.NotNil(t, conns[i])
		}
	}
	return p, waiters, conns
}

func TestAcquireRelease_idle_allocatesNothing(t *testing.T) {
	p, w, c := bareClients(t, Config{}, 1, 0)
	p.Release(c[0])
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		c, ok := p.Acquire(&w[0])
		if !ok {
			t.Fatal("not idle")
		}
		p.Release(c)
	}))
}

func TestAcquireRelease_queued_allocatesNothing(t *testing.T) {
	for name, loops := range map[string][]int{"one loop": {0, 0}, "two loops": {0, 1}} {
		t.Run(name, func(t *testing.T) {
			p, w, c := bareClients(t, Config{Loops: 2, MaxConnections: 1}, 1, loops...)
			holder, other, conn := 0, 1, c[0]
			require.Zero(t, testing.AllocsPerRun(1000, func() {
				p.Acquire(&w[other])
				_, grantee := p.Release(conn)
				grantee.Granted()
				conn, _ = w[other].Take()
				holder, other = other, holder
			}))
		})
	}
}

func TestCancel_queued_allocatesNothing(t *testing.T) {
	p, w, _ := bareClients(t, Config{MaxConnections: 1}, 1, 0, 0)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		p.Acquire(&w[1])
		p.Cancel(&w[1])
	}))
}

func BenchmarkAcquireRelease_idle(b *testing.B) {
	p, w, c := bareClients(b, Config{}, 1, 0)
	p.Release(c[0])
	b.ReportAllocs()
	for b.Loop() {
		c, _ := p.Acquire(&w[0])
		p.Release(c)
	}
}

// A waiter is queued, granted and takes: what a transaction costs when there are more clients than servers.
func BenchmarkAcquireRelease_queued(b *testing.B) {
	p, w, c := bareClients(b, Config{MaxConnections: 1}, 1, 0, 0)
	other, conn := 1, c[0]
	b.ReportAllocs()
	for b.Loop() {
		p.Acquire(&w[other])
		_, grantee := p.Release(conn)
		grantee.Granted()
		conn, _ = w[other].Take()
		other = 1 - other
	}
}

func BenchmarkAcquireRelease_movedToTheOtherLoop(b *testing.B) {
	p, w, c := bareClients(b, Config{Loops: 2, MaxConnections: 1}, 1, 0, 1)
	other, conn := 1, c[0]
	b.ReportAllocs()
	for b.Loop() {
		p.Acquire(&w[other])
		_, grantee := p.Release(conn)
		grantee.Granted()
		conn, _ = w[other].Take()
		other = 1 - other
	}
}

// A thousand clients wait all the time.
func BenchmarkAcquireRelease_longQueue(b *testing.B) {
	loops := make([]int, 1001)
	p, w, c := bareClients(b, Config{MaxConnections: 1}, 1, loops...)
	for i := 1; i < len(w); i++ {
		p.Acquire(&w[i])
	}
	holder, conn := 0, c[0]
	b.ReportAllocs()
	for b.Loop() {
		p.Release(conn)
		p.Acquire(&w[holder])
		holder = (holder + 1) % len(w)
		conn, _ = w[holder].Take()
	}
	p.target.Close()
}

func BenchmarkCancel_longQueue(b *testing.B) {
	loops := make([]int, 1001)
	p, w, _ := bareClients(b, Config{MaxConnections: 1}, 1, loops...)
	for i := 1; i < len(w); i++ {
		p.Acquire(&w[i])
	}
	b.ReportAllocs()
	for i := 500; b.Loop(); i = 1 + i%1000 {
		p.Cancel(&w[i])
		p.Acquire(&w[i])
	}
}
