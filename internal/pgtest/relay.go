package pgtest

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Relay passes TCP connections on to a target, so that a test can break them on the way, without either end knowing. It is
// safe for concurrent use. It ends with the test that started it.
//
// One goroutine accepts; a connection has one goroutine a direction, each of which alone writes to its destination.
type Relay struct {
	target   string
	listener net.Listener
	running  sync.WaitGroup

	accepted           atomic.Int64
	toServer, toClient atomic.Int64

	mu       sync.Mutex // nothing blocks under it but the wait on resumed
	resumed  *sync.Cond
	stalled  bool
	refusing bool
	closed   bool
	faults   struct{ toServer, toClient Fault }
	links    map[*relayed]struct{}
}

// relayed is one connection through a relay.
type relayed struct {
	client, server *BreakableConn
}

// StartRelay listens on a port of loopback for connections to target, a host:port or the path of a unix socket.
func StartRelay(t testing.TB, target string) *Relay {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	return startRelay(t, listener, target)
}

func startRelay(t testing.TB, listener net.Listener, target string) *Relay {
	t.Helper()
	r := &Relay{target: target, listener: listener, links: map[*relayed]struct{}{}}
	r.resumed = sync.NewCond(&r.mu)
	r.running.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

// Addr is the host:port to connect to.
func (r *Relay) Addr() string { return r.listener.Addr().String() }

// URL is a connection URL with its host and port replaced by the relay's.
func (r *Relay) URL(t testing.TB, through string) string {
	t.Helper()
	u, err := url.Parse(through)
	check(t, err)
	u.Host = r.Addr()
	return u.String()
}

// SetFaults gives faults to the connections that will be accepted from now on, counted for each connection anew.
func (r *Relay) SetFaults(toServer, toClient Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults.toServer, r.faults.toClient = toServer, toClient
}

// Accepted is the number of connections accepted so far.
func (r *Relay) Accepted() int { return int(r.accepted.Load()) }

// Passed is the number of bytes passed on so far in each direction, over all connections.
func (r *Relay) Passed() (toServer, toClient int64) { return r.toServer.Load(), r.toClient.Load() }

// Stall stops passing bytes in all connections, old and new, which stay open.
func (r *Relay) Stall() { r.set(&r.stalled, true) }

// Resume ends a Stall; what was held back is passed on.
func (r *Relay) Resume() { r.set(&r.stalled, false) }

// Refuse resets new connections as soon as they come.
func (r *Relay) Refuse() { r.set(&r.refusing, true) }

// Admit ends a Refuse.
func (r *Relay) Admit() { r.set(&r.refusing, false) }

func (r *Relay) set(flag *bool, value bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*flag = value
	r.resumed.Broadcast()
}

// Cut resets all connections at both ends.
func (r *Relay) Cut() { r.endAll(Reset) }

// Drop closes all connections at both ends in an orderly way.
func (r *Relay) Drop() { r.endAll(Close) }

func (r *Relay) endAll(how Action) {
	for _, l := range r.current() {
		l.end(how)
	}
}

func (r *Relay) current() []*relayed {
	r.mu.Lock()
	defer r.mu.Unlock()
	links := make([]*relayed, 0, len(r.links))
	for l := range r.links {
		links = append(links, l)
	}
	return links
}

// close ends everything and waits for the goroutines.
func (r *Relay) close() {
	_ = r.listener.Close()
	r.set(&r.closed, true)
	r.endAll(Reset)
	r.running.Wait()
}

// accept runs until the listener is closed.
func (r *Relay) accept() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.accepted.Add(1)
		r.running.Go(func() { r.relay(client) })
	}
}

// relay connects to the target and passes bytes until both directions have ended.
func (r *Relay) relay(client net.Conn) {
	l, ok := r.link(client)
	if !ok {
		abort(client)
		_ = client.Close()
		return
	}
	var up sync.WaitGroup
	up.Go(func() { r.pass(l, l.server, l.client, &r.toServer) })
	r.pass(l, l.client, l.server, &r.toClient)
	up.Wait()
	l.end(Close)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.links, l)
}

// link makes the connection to the target, with the faults of the moment. A fault belongs to the side that writes.
func (r *Relay) link(client net.Conn) (*relayed, bool) {
	network := "tcp"
	if strings.HasPrefix(r.target, "/") {
		network = "unix"
	}
	r.mu.Lock()
	refused, faults := r.refusing || r.closed, r.faults
	r.mu.Unlock()
	if refused {
		return nil, false
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), network, r.target)
	if err != nil {
		return nil, false
	}
	l := &relayed{client: Break(client, Fault{}, faults.toClient), server: Break(server, Fault{}, faults.toServer)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links[l] = struct{}{}
	if r.closed { // It was closed while we dialled, and did not see this link.
		l.end(Reset)
	}
	return l, true
}

// pass copies one direction until it ends: a FIN is passed on, a fault or an error ends both directions.
func (r *Relay) pass(l *relayed, to, from *BreakableConn, count *atomic.Int64) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		r.awaitResume()
		if n > 0 {
			written, err := to.Write(buffer[:n])
			count.Add(int64(written))
			if err != nil {
				l.end(to.write.fault.Then)
				return
			}
		}
		if errors.Is(err, io.EOF) {
			_ = to.CloseWrite() // The other end may be gone, which its own direction will find.
			return
		}
		if err != nil {
			l.end(Reset)
			return
		}
	}
}

// awaitResume blocks while the relay is stalled.
func (r *Relay) awaitResume() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.stalled && !r.closed {
		r.resumed.Wait()
	}
}

// end closes both sides.
func (l *relayed) end(how Action) {
	for _, conn := range []*BreakableConn{l.client, l.server} {
		if how == Reset {
			abort(conn)
		}
		_ = conn.Close() // Closing twice is harmless.
	}
}
