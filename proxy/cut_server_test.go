package proxy_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// recording is what went over one connection to PostgreSQL, in the order in which it passed. So the server's bytes can be
// repeated whenever the same requests have come.
type recording []recorded

// recorded is a message of the client's, or what the server has sent at once.
type recorded struct {
	fromClient bool
	bytes      []byte
}

// answers are the server's bytes.
func (r recording) answers() (n int) {
	for _, e := range r {
		if !e.fromClient {
			n += len(e.bytes)
		}
	}
	return n
}

// tape stands in the place of a server. It either passes everything on to one and records it, or repeats a recording. It ends
// with its test.
//
// One goroutine accepts, and each connection has one, while recording two.
type tape struct {
	listener net.Listener
	server   string
	running  sync.WaitGroup

	mu        sync.Mutex // nothing blocks under it
	conns     []net.Conn
	recording recording
	plays     []playback // for the next connections, the last one for all that follow; none: the server is recorded
	faults    []string
}

// playback is a recording and how many of the server's bytes are left to be sent before the connection is cut; -1: all.
type playback struct {
	recording recording
	left      int
	reset     bool
}

func startTape(t *testing.T, server string) *tape {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &tape{listener: listener, server: server}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		for _, conn := range s.conns {
			_ = conn.Close()
		}
		s.mu.Unlock()
		s.running.Wait()
		require.Empty(t, s.faults)
	})
	return s
}

// url is a server's URL with the tape in its place.
func (s *tape) url(t *testing.T, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	require.NoError(t, err)
	u.Host = s.listener.Addr().String()
	u.RawQuery = "sslmode=disable"
	return u.String()
}

// record begins a new recording with the next connection, and returns a function that ends it.
func (s *tape) record() (end func() recording) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recording, s.plays = nil, nil
	return func() recording {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.Clone(s.recording)
	}
}

// repeat has the next connections play what was recorded, the last one also all that follow.
func (s *tape) repeat(plays ...playback) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plays = plays
}

// next is what the next connection is to play, if anything.
func (s *tape) next() (p playback, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.plays) == 0 {
		return p, false
	}
	p = s.plays[0]
	if len(s.plays) > 1 {
		s.plays = s.plays[1:]
	}
	return p, true
}

func (s *tape) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.mu.Unlock()
		s.running.Go(func() { s.serve(conn) })
	}
}

// serve is the goroutine of one connection.
func (s *tape) serve(conn net.Conn) {
	defer conn.Close()
	startup, err := nextMessage(conn, true)
	if err != nil || binary.BigEndian.Uint32(startup[4:]) == 80877102 {
		return // The end of a cancel request is all the answer there is.
	}
	if p, ok := s.next(); ok {
		s.play(conn, p)
	} else {
		s.pass(conn, startup)
	}
}

// pass records a connection to the server.
func (s *tape) pass(client net.Conn, startup []byte) {
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", s.server)
	if err != nil {
		return
	}
	defer server.Close()
	s.running.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			s.note(recorded{bytes: slices.Clone(buf[:n])})
			if _, failed := client.Write(buf[:n]); err != nil || failed != nil {
				_ = client.Close()
				return
			}
		}
	})
	for m := startup; err == nil; m, err = nextRequest(client) {
		if m[0] != 0 {
			s.note(recorded{fromClient: true, bytes: m})
		}
		if _, err := server.Write(m); err != nil {
			return
		}
	}
}

func (s *tape) note(e recorded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(e.bytes) > 0 {
		s.recording = append(s.recording, e)
	}
}

// nextMessage reads a message, or the startup packet.
func nextMessage(from io.Reader, startup bool) ([]byte, error) {
	head := make([]byte, 5)
	if startup {
		head = head[1:]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	m := make([]byte, len(head)-4+int(binary.BigEndian.Uint32(head[len(head)-4:])))
	_, err := io.ReadFull(from, m[copy(m, head):])
	return m, err
}

// nextRequest reads a message. It answers the empty query by which pgconn makes sure, on a busy machine, that nothing of the
// login is on its way.
func nextRequest(conn net.Conn) ([]byte, error) {
	for {
		m, err := nextMessage(conn, false)
		if err != nil || !bytes.Equal(m, message('Q', "-- ping\x00")) {
			return m, err
		}
		if _, err := conn.Write(append(message('I', ""), message('Z', "I")...)); err != nil {
			return nil, err
		}
	}
}

// play repeats a recording up to where it is to be cut, or to where the client says goodbye. A client whose server was cut may
// still have a rest of its pipeline behind the next Sync: that is no fault at the beginning, and loses this server too.
func (s *tape) play(conn net.Conn, p playback) {
	begun := false
	for _, e := range p.recording {
		if e.fromClient {
			got, err := nextRequest(conn)
			if err != nil || got[0] == 'X' {
				return
			}
			if !sameRequest(got, e.bytes) {
				if !begun {
					return
				}
				s.mu.Lock()
				s.faults = append(s.faults, fmt.Sprintf("%q in place of %q", got, e.bytes))
				s.mu.Unlock()
				return
			}
			begun = true
			continue
		}
		b := e.bytes
		if p.left >= 0 {
			b = b[:min(len(b), p.left)]
			p.left -= len(b)
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
		if p.left == 0 {
			if tcp, ok := conn.(*net.TCPConn); ok && p.reset {
				_ = tcp.SetLinger(0)
			}
			return
		}
	}
}

// sameRequest tells whether messages are the same but for the names of statements, which are new ones each time.
func sameRequest(a, b []byte) bool {
	return a[0] == b[0] && (bytes.ContainsRune([]byte("PBDC"), rune(a[0])) || bytes.Equal(a, b))
}

// lost is what a client may be told whose server has been cut, or could not be had.
var lost = map[string]bool{"E 08006": true, "E 57P03": true}

// requireLost checks that a client has heard what it hears without a cut, as far as that goes, and then that the server is lost.
func requireLost(t *testing.T, want, heard []string, where int) {
	t.Helper()
	same := 0
	for same < len(heard) && same < len(want) && heard[same] == want[same] {
		same++
	}
	for _, m := range heard[same:] {
		require.True(t, lost[m], "cut at byte %d: after %q came %q", where, heard[:same], heard[same:])
	}
}

// TestCut_serverAtEveryByte_isToldToItsClientAlone cuts the server, from its login on, at every byte that it sends. What the
// next server is sent is compared with what it is sent without a cut: nothing of the client that is gone is with it.
// PgBouncer's #1446 and #1520.
func TestCut_serverAtEveryByte_isToldToItsClientAlone(t *testing.T) {
	c := pgtest.Shared(t, 0)
	for name := range exchanges("") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			steps := exchanges(cutTable(t, c, c.Role(t)))[name]
			server := startTape(t, c.Addr())
			p := startFor(t, server.url(t, c.URL("postgres", pgtest.Superuser)), func(config *proxy.Config) {
				config.Pool.MaxConnections, config.Pool.Hold, config.Pool.BackoffMin = 1, -1, 1
				config.Session.SentinelEvery = 0 // Its questions would come as it likes.
			})
			// served is what a client of its own gets, up to its end.
			served := func() (login string, heard []string) {
				client := pgtest.Dial(t, p.Addresses()[0])
				defer client.Conn.Close()
				m := client.Login("postgres", pgtest.Superuser)
				if login = m[len(m)-1].String(); login == "Z I" {
					heard = perform(t, client, steps, -1)
				}
				return login, heard
			}
			const question = "select current_setting('work_mem')"
			answer := []string{"T current_setting", "D 4MB", "C SELECT 1", "Z I"}

			end := server.record()
			login, want := served()
			require.Equal(t, "Z I", login)
			p.renew(t)
			exchange := end()
			end = server.record()
			other := raw(t, p.url())
			require.Equal(t, answer, other.say(query(question)))
			p.renew(t)
			plain := end()

			atLogin := exchange[:slices.IndexFunc(exchange, func(e recorded) bool { return e.fromClient })].answers()
			first := atLogin
			if name == "simple" { // Once is enough for the login.
				first = 1
			}
			for n := first; n < exchange.answers(); n++ {
				server.repeat(playback{exchange, n, n%4 == 3}, playback{exchange, min(n, atLogin), false})
				login, heard := served()
				if login != "Z I" {
					require.True(t, lost[login], "cut at byte %d: %s", n, login)
				}
				requireLost(t, want, heard, n)
				p.renew(t)
				server.repeat(playback{plain, -1, false})
				require.Equal(t, answer, other.say(query(question)), "cut at byte %d", n)
				p.renew(t)
			}
			await(t, "only the other client is there", func() bool { return p.Snapshot().Clients.All() == 1 }, p)
			require.Empty(t, p.Snapshot().Pinned)
		})
	}
}

// renew has the next transaction get a new server.
func (p *testProxy) renew(t *testing.T) {
	t.Helper()
	p.Recycle("test")
	await(t, "the end of all servers", func() bool {
		for _, pool := range p.Snapshot().Pools {
			if pool.Idle+pool.Active+pool.Dialing+pool.Closing > 0 {
				return false
			}
		}
		return true
	}, p)
}
