package proxy_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// gate stands before a server. It counts the requests that pass and can hold the answers back. It ends with its test.
//
// One goroutine accepts; a connection has one goroutine a direction.
type gate struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup
	requests atomic.Int64 // Query, Sync and FunctionCall messages that have passed

	mu     sync.Mutex // nothing blocks under it but the wait on opened
	opened *sync.Cond
	held   bool
	conns  []net.Conn
}

func openGate(t *testing.T, server string) *gate {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{listener: listener, server: server}
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

func (g *gate) addr() string { return g.listener.Addr().String() }

// seen returns how many requests that end with ReadyForQuery have passed.
func (g *gate) seen() int { return int(g.requests.Load()) }

// hold keeps answers back until release.
func (g *gate) hold() { g.set(true) }

func (g *gate) release() { g.set(false) }

func (g *gate) set(held bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
	g.opened.Broadcast()
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
		g.mu.Lock()
		g.conns = append(g.conns, client, server)
		g.mu.Unlock()
		g.running.Go(func() { g.passRequests(server, client) })
		g.running.Go(func() { g.passAnswers(client, server) })
	}
}

// passRequests passes on what the client sends, message by message; the first one is the startup packet.
func (g *gate) passRequests(server, client net.Conn) {
	defer func() { _ = server.Close() }()
	header := make([]byte, 4)
	for {
		if _, err := io.ReadFull(client, header); err != nil {
			return
		}
		size := int64(binary.BigEndian.Uint32(header)) - 4
		if len(header) == 5 {
			size = int64(binary.BigEndian.Uint32(header[1:])) - 4
		}
		if _, err := server.Write(header); err != nil {
			return
		}
		if _, err := io.CopyN(server, client, size); err != nil {
			return
		}
		if len(header) == 4 {
			header = make([]byte, 5)
			continue
		}
		switch header[0] {
		case 'Q', 'S', 'F':
			g.requests.Add(1)
		}
	}
}

func (g *gate) passAnswers(client, server net.Conn) {
	defer func() { _ = client.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		g.mu.Lock()
		for g.held {
			g.opened.Wait()
		}
		g.mu.Unlock()
		if n > 0 {
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
