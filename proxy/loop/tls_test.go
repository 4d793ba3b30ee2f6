package loop

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// testTLS returns configurations for both sides of one version.
func testTLS(t *testing.T, version uint16) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		MinVersion:   version, MaxVersion: version,
	}
	client = &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: version, MaxVersion: version}
	return server, client
}

// bothVersions runs a test with TLS 1.2 and 1.3.
func bothVersions(t *testing.T, f func(t *testing.T, server, client *tls.Config)) {
	t.Helper()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			server, client := testTLS(t, version)
			f(t, server, client)
		})
	}
}

// handshake makes an encrypted connection: ours over a Socket, ready for Take; theirs over what via makes of the raw end.
// Ours is the TLS server unless the two configurations are given the other way round.
func handshake(t *testing.T, ours, theirs func(net.Conn) *tls.Conn, rawOurs, rawTheirs net.Conn) (a, b *tls.Conn) {
	t.Helper()
	a, b = ours(NewSocket(rawOurs)), theirs(rawTheirs)
	done := make(chan error, 1)
	go func() { done <- b.HandshakeContext(t.Context()) }()
	require.NoError(t, a.HandshakeContext(t.Context()))
	require.NoError(t, receive(t, done))
	return a, b
}

func asServer(cfg *tls.Config) func(net.Conn) *tls.Conn {
	return func(c net.Conn) *tls.Conn { return tls.Server(c, cfg) }
}

func asClient(cfg *tls.Config) func(net.Conn) *tls.Conn {
	return func(c net.Conn) *tls.Conn { return tls.Client(c, cfg) }
}

// throttle returns the near end of a relay to far that passes bytes on in small pieces of random size. It ends when both
// directions have.
func throttle(t *testing.T, far net.Conn, largest int, seed uint64) (near net.Conn) {
	t.Helper()
	inner, near := tcpPair(t)
	var wg sync.WaitGroup
	for i, way := range [][2]net.Conn{{inner, far}, {far, inner}} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			defer func() { _ = way[1].(closeWriter).CloseWrite() }()
			b := make([]byte, largest)
			for {
				n, err := way[0].Read(b[:1+r.IntN(largest)])
				if err != nil {
					return
				}
				if _, err = way[1].Write(b[:n]); err != nil {
					return
				}
				runtime.Gosched()
			}
		})
	}
	t.Cleanup(func() { near.Close(); wg.Wait() })
	return near
}

func TestTLS_manyConnectionsAndSplitRecords_loseNothing(t *testing.T) {
	const connections, rounds, size = 500, 2, 9_000
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{})
		echoes := make([]*probe, connections)
		ends := make([]*tls.Conn, connections)
		for i := range ends {
			rawOurs, far := tcpPair(t)
			ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, throttle(t, far, 20+i*4, uint64(i)))
			echoes[i], ends[i] = startEcho(t, l, ours), theirs
		}
		var wg sync.WaitGroup
		for i, c := range ends {
			wg.Go(func() {
				want, got := random(size+i), make([]byte, size+i)
				for range rounds {
					sent := make(chan struct{})
					go func() { defer close(sent); _, _ = c.Write(want) }()
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(want, got) {
						t.Errorf("connection %d: wrong bytes, error %v", i, err)
						return
					}
					<-sent
				}
				if err := c.CloseWrite(); err != nil {
					t.Errorf("connection %d: close: %v", i, err)
				}
				if _, err := c.Read(got); err != io.EOF { //nolint:errorlint // Exactly this one: a close_notify.
					t.Errorf("connection %d: %v instead of the end", i, err)
				}
			})
		}
		wg.Wait()
		on(t, l, func() {
			for i, e := range echoes {
				if e.conn.Attached() {
					t.Errorf("connection %d is still there", i)
				}
			}
		})
	})
}

func TestTLS_bothWaysThroughSmallBuffers_losesNothing(t *testing.T) {
	const size = 4 << 20
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{Scratch: 16 << 10})
		rawA, farA := tcpPair(t)
		rawB, farB := tcpPair(t)
		require.NoError(t, rawA.SetWriteBuffer(1))
		require.NoError(t, rawB.SetWriteBuffer(1))
		oursA, theirsA := handshake(t, asServer(server), asClient(client), rawA, farA)
		oursB, theirsB := handshake(t, asClient(client), asServer(server), rawB, farB)
		a, b := attachPair(t, l, oursA, oursB)
		toB, toA := random(size), random(size+1)
		heardA, heardB := shoutTLS(t, theirsA, toB), shoutTLS(t, theirsB, toA)
		require.Equal(t, len(toB), receive(t, heardB))
		require.Equal(t, len(toA), receive(t, heardA))
		on(t, l, func() {
			if a.drained == 0 || b.drained == 0 {
				t.Error("nothing was ever blocked")
			}
			if most := max(a.most, b.most); most > 20<<10 {
				t.Errorf("a tail of %d bytes", most)
			}
		})
	})
}

// shoutTLS sends everything, and then hears as many bytes as the seed of random says from the other side.
func shoutTLS(t *testing.T, c *tls.Conn, b []byte) <-chan int {
	t.Helper()
	result := make(chan int, 1)
	go func() {
		if _, err := c.Write(b); err != nil {
			t.Error("write:", err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Error("close:", err)
		}
	}()
	go func() {
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, random(len(got))) {
			t.Errorf("wrong bytes, error %v", err)
		}
		result <- len(got)
	}()
	return result
}

// tap is a connection that hands what crypto/tls writes to the test instead of the peer.
type tap struct {
	net.Conn
	on      bool
	written []byte
}

func (c *tap) Write(b []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(b)
	}
	c.written = append(c.written, b...)
	return len(b), nil
}

func TestTLS_recordCutAnywhere_isReadWhenItIsWhole(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{})
		rawOurs, far := tcpPair(t)
		wire := &tap{Conn: far}
		ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, wire)
		wire.on = true
		p := &probe{}
		told := make(chan struct{}, 100)
		p.readable = func(bool) { told <- struct{}{} }
		p.attach(t, l, ours)
		receive(t, told) // The one that Attach makes.
		read := func() (text string, err error, unread bool) {
			on(t, l, func() {
				var b []byte
				b, err = p.conn.Read()
				text, unread = string(b), p.conn.Unread()
			})
			return text, err, unread
		}
		_, err, _ := read()
		require.ErrorIs(t, err, ErrWouldBlock)
		for cut := 1; ; cut++ {
			wire.written = nil
			_, err = theirs.Write([]byte("whole"))
			require.NoError(t, err)
			if cut >= len(wire.written) {
				break
			}
			_, err = far.Write(wire.written[:cut])
			require.NoError(t, err)
			receive(t, told)
			_, err, unread := read()
			require.ErrorIs(t, err, ErrWouldBlock, "cut at %d", cut)
			require.False(t, unread)
			_, err = far.Write(wire.written[cut:])
			require.NoError(t, err)
			receive(t, told)
			text, err, unread := read()
			require.NoError(t, err)
			require.Equal(t, "whole", text)
			require.False(t, unread)
		}
	})
}

func TestTLS_recordsThatFillTheBuffer_stayUnread(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{Scratch: 1000})
		rawOurs, far := tcpPair(t)
		wire := &tap{Conn: far}
		ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, wire)
		p := &probe{}
		told := make(chan struct{}, 100)
		p.readable = func(bool) { told <- struct{}{} }
		p.attach(t, l, ours)
		receive(t, told)
		on(t, l, func() { _, _ = p.conn.Read() })
		wire.on = true
		want := random(2500)
		for i := range 25 { // In one segment, so there is one event for all.
			_, err := theirs.Write(want[i*100 : i*100+100])
			require.NoError(t, err)
		}
		_, err := far.Write(wire.written)
		require.NoError(t, err)
		receive(t, told)
		var got []byte
		reads := 0
		on(t, l, func() {
			for p.conn.Unread() {
				b, err := p.conn.Read()
				if err != nil {
					break
				}
				got = append(got, b...)
				reads++
			}
		})
		require.True(t, bytes.Equal(want, got))
		require.Equal(t, 3, reads, "several records fit one Read")
	})
}

func TestTLS_bytesReadBeforeTake_areTold(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{})
		rawOurs, far := tcpPair(t)
		ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, far)
		_, err := theirs.Write([]byte("password and query"))
		require.NoError(t, err)
		b := make([]byte, len("password"))
		_, err = io.ReadFull(ours, b) // The rest stays inside the tls.Conn; no event tells of it.
		require.NoError(t, err)
		got := make(chan []byte, 10)
		p := &probe{}
		p.readable = p.collect(got)
		p.attach(t, l, ours)
		require.Equal(t, " and query", string(receive(t, got)))
		exchangeTLS(t, l, p, theirs, got)
	})
}

// exchangeTLS sends a word each way.
func exchangeTLS(t *testing.T, l *Loop, p *probe, theirs *tls.Conn, got <-chan []byte) {
	t.Helper()
	_, err := theirs.Write([]byte("ping"))
	require.NoError(t, err)
	require.Equal(t, "ping", string(receive(t, got)))
	on(t, l, func() { err = p.conn.Write2([]byte("po"), []byte("ng")) })
	require.NoError(t, err)
	b := make([]byte, 4)
	_, err = io.ReadFull(theirs, b)
	require.NoError(t, err)
	require.Equal(t, "pong", string(b))
}

func TestTLS_write_isOneSystemCall(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{})
		rawOurs, far := tcpPair(t)
		ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, far)
		p := &probe{}
		p.attach(t, l, ours)
		want := random(40_000) // Many records: the first ones of a connection are short.
		before := l.Stats().Writes
		var err error
		on(t, l, func() { err = p.conn.Write2(want[:5], want[5:]) })
		require.NoError(t, err)
		require.EqualValues(t, 1, l.Stats().Writes-before)
		got := make([]byte, len(want))
		_, err = io.ReadFull(theirs, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
	})
}

func TestTLS_close_tellsThePeer(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		server.SessionTicketsDisabled = true // They would be in the way of the alert.
		l := start(t, Config{})
		for _, how := range []func(*Conn){
			(*Conn).Close,
			func(c *Conn) { _ = c.CloseWrite() },
			func(c *Conn) { _ = c.Detach().Close() },
		} {
			rawOurs, far := tcpPair(t)
			ours, _ := handshake(t, asServer(server), asClient(client), rawOurs, far)
			p := &probe{}
			p.attach(t, l, ours)
			on(t, l, func() { how(&p.conn) })
			alert, err := io.ReadAll(far) // Not by tls.Conn.Read, which takes a bare end of the stream for one too.
			require.NoError(t, err)
			require.NotEmpty(t, alert)
		}
	})
}

func TestTLS_peerThatClosesOrBreaksTheProtocol_isReported(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		l := start(t, Config{})
		for name, end := range map[string]func(*tls.Conn, net.Conn){
			"close_notify": func(c *tls.Conn, _ net.Conn) { _, _ = c.Write([]byte("last")); _ = c.Close() },
			"cut":          func(c *tls.Conn, raw net.Conn) { _, _ = c.Write([]byte("last")); _ = raw.Close() },
			"garbage": func(c *tls.Conn, raw net.Conn) {
				_, _ = c.Write([]byte("last"))
				_, _ = raw.Write([]byte("\x17\x03\x03\x00\x20this is no record of this session"))
			},
			"cut in a record": func(c *tls.Conn, raw net.Conn) {
				_, _ = c.Write([]byte("last"))
				_, _ = raw.Write([]byte("\x17\x03\x03"))
				_ = raw.Close()
			},
		} {
			rawOurs, far := tcpPair(t)
			ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, far)
			var got bytes.Buffer
			ended := make(chan error, 1)
			p := &probe{}
			p.readable = func(bool) {
				for p.conn.Unread() {
					b, err := p.conn.Read()
					if err == ErrWouldBlock { //nolint:errorlint // It is returned as it is.
						return
					}
					if err != nil {
						p.conn.Close()
						ended <- err
						return
					}
					got.Write(b)
				}
			}
			p.attach(t, l, ours)
			end(theirs, far)
			err := receive(t, ended)
			require.Equal(t, "last", got.String(), name)
			if name == "close_notify" || name == "cut" {
				require.Equal(t, io.EOF, err, name)
			} else {
				require.NotEqual(t, io.EOF, err, name)
			}
		}
	})
}

func TestTLS_detachedAndAttachedElsewhere_goesOn(t *testing.T) {
	bothVersions(t, func(t *testing.T, server, client *tls.Config) {
		loops := [2]*Loop{start(t, Config{}), start(t, Config{Index: 1})}
		rawOurs, far := tcpPair(t)
		ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, far)
		got := make(chan []byte, 10)
		p := &probe{}
		p.readable = p.collect(got)
		p.attach(t, loops[0], ours)
		for i := range 10 {
			exchangeTLS(t, loops[i%2], p, theirs, got)
			var tr Transport
			on(t, loops[i%2], func() { tr = p.conn.Detach() })
			require.True(t, tr.IsTLS())
			state, ok := tr.TLSState()
			require.True(t, ok)
			require.Equal(t, client.MinVersion, state.Version)
			var err error
			on(t, loops[1-i%2], func() { err = loops[1-i%2].Attach(&p.conn, tr, p) })
			require.NoError(t, err)
		}
	})
}

func TestTake_ofUnfinishedOrForeignTLS_isRefused(t *testing.T) {
	server, client := testTLS(t, tls.VersionTLS13)
	rawOurs, _ := tcpPair(t)
	_, err := Take(tls.Server(NewSocket(rawOurs), server))
	require.ErrorContains(t, err, "handshake")
	_, err = Take(tls.Client(rawOurs, client))
	require.ErrorContains(t, err, "loop.Socket")
}

// cacheFunc is told of session tickets.
type cacheFunc func(*tls.ClientSessionState)

func (cacheFunc) Get(string) (*tls.ClientSessionState, bool)    { return nil, false }
func (f cacheFunc) Put(_ string, state *tls.ClientSessionState) { f(state) }

func TestTLS_sessionTicketsAfterTheHandshake_areTaken(t *testing.T) {
	server, client := testTLS(t, tls.VersionTLS13)
	tickets := make(chan struct{}, 10)
	client.ClientSessionCache = cacheFunc(func(*tls.ClientSessionState) { tickets <- struct{}{} })
	client.ServerName, client.InsecureSkipVerify = "", true // So that the peer's address is asked for.
	l := start(t, Config{})
	rawOurs, far := tcpPair(t)
	ours, theirs := handshake(t, asClient(client), asServer(server), rawOurs, far)
	got := make(chan []byte, 10)
	p := &probe{}
	p.readable = p.collect(got)
	p.attach(t, l, ours)
	receive(t, tickets)
	exchangeTLS(t, l, p, theirs, got)
}
