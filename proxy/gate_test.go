package proxy_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// gate stands before a server. It counts the requests that pass, and can hold the answers back, or the ends of cancel
// requests. It ends with its test.
//
// One goroutine accepts; a connection has one goroutine a direction.
type gate struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup
	requests atomic.Int64 // Query, Sync and FunctionCall messages that have passed, and those of the proxy's own
	cancels  atomic.Int64 // cancel requests in clear text
	secured  atomic.Int64 // connections that have asked for TLS

	mu     sync.Mutex // nothing blocks under it but the wait on opened
	opened *sync.Cond
	held   map[kind]bool
	conns  []net.Conn
}

// kind is what a connection is for.
type kind uint32

const (
	forSession kind = iota
	forCancel
)

func openGate(t *testing.T, server string) *gate {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{listener: listener, server: server, held: make(map[kind]bool)}
	g.opened = sync.NewCond(&g.mu)
	g.running.Go(g.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		g.release()
		g.mu.Lock()
		for _, conn := range g.conns {
			_ = conn.Close()
		}
		g.mu.Unlock()
		g.running.Wait()
	})
	return g
}

// url is a server's URL with the gate before it.
func (g *gate) url(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Host = g.listener.Addr().String()
	return u.String()
}

// seen returns how many requests that end with ReadyForQuery have passed.
func (g *gate) seen() int { return int(g.requests.Load()) }

// hold keeps answers to sessions back until release.
func (g *gate) hold() { g.change(func() { g.held[forSession] = true }) }

// holdCancels keeps from whoever has sent a cancel request that its connection has ended, until release.
func (g *gate) holdCancels() { g.change(func() { g.held[forCancel] = true }) }

// refuse lets nobody connect any more.
func (g *gate) refuse() { _ = g.listener.Close() }

func (g *gate) release() { g.change(func() { clear(g.held) }) }

func (g *gate) change(how func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	how()
	g.opened.Broadcast()
}

// passage is one connection through a gate.
type passage struct {
	client, server net.Conn
	kind           atomic.Uint32
}

func (g *gate) accept() {
	for {
		client, err := g.listener.Accept()
		if err != nil {
			return
		}
		var dialer net.Dialer
		server, err := dialer.DialContext(context.Background(), "tcp", g.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		g.change(func() { g.conns = append(g.conns, client, server) })
		p := &passage{client: client, server: server}
		g.running.Go(func() { g.passRequests(p) })
		g.running.Go(func() { g.passAnswers(p) })
	}
}

// passRequests passes on what the client sends, message by message. Behind a request for TLS it cannot tell messages.
func (g *gate) passRequests(p *passage) {
	defer func() { _ = p.server.Close() }()
	if !g.passStartup(p) {
		return
	}
	var header [5]byte
	for {
		if _, err := io.ReadFull(p.client, header[:]); err != nil {
			return
		}
		if _, err := p.server.Write(header[:]); err != nil {
			return
		}
		if _, err := io.CopyN(p.server, p.client, int64(binary.BigEndian.Uint32(header[1:]))-4); err != nil {
			return
		}
		switch header[0] {
		case 'Q', 'S', 'F':
			g.requests.Add(1)
		}
	}
}

// passStartup passes the first packet on, and reports whether messages follow.
func (g *gate) passStartup(p *passage) bool {
	var head [8]byte
	if _, err := io.ReadFull(p.client, head[:]); err != nil {
		return false
	}
	rest := int64(binary.BigEndian.Uint32(head[:])) - 8
	switch binary.BigEndian.Uint32(head[4:]) {
	case 80877102:
		g.cancels.Add(1)
		p.kind.Store(uint32(forCancel))
	case 80877103:
		g.secured.Add(1)
		rest = 1 << 40
	}
	if _, err := p.server.Write(head[:]); err != nil {
		return false
	}
	_, err := io.CopyN(p.server, p.client, rest)
	return err == nil && p.kind.Load() == uint32(forSession)
}

func (g *gate) passAnswers(p *passage) {
	defer func() { _ = p.client.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := p.server.Read(buf)
		g.mu.Lock()
		for g.held[kind(p.kind.Load())] {
			g.opened.Wait()
		}
		g.mu.Unlock()
		if n > 0 {
			if _, err := p.client.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
