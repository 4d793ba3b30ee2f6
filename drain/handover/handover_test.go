package handover

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// old is a process that may be succeeded: its takeover socket, and one for clients.
type old struct {
	t       *testing.T
	path    string
	sockets Sockets
	offers  net.Listener
	clients net.Listener
	refusal error
	offered chan error // What came of each offer.
	links   chan *Link
}

func newOld(t *testing.T) *old {
	t.Helper()
	return newOldRefusing(t, nil)
}

// newOldRefusing makes one that wants no successor, unless refusal is nil.
func newOldRefusing(t *testing.T, refusal error) *old {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t, goleak.IgnoreCurrent()) })
	o := &old{t: t, path: filepath.Join(t.TempDir(), "takeover"), refusal: refusal, offered: make(chan error, 9), links: make(chan *Link, 9)}
	var err error
	o.offers, err = o.sockets.Listen("takeover", func() (net.Listener, error) { return Bind(t.Context(), o.path) })
	require.NoError(t, err)
	o.clients, err = o.sockets.Listen("clients", func() (net.Listener, error) {
		return (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	})
	require.NoError(t, err)
	var offering sync.WaitGroup
	offering.Go(o.offer)
	t.Cleanup(func() {
		_ = o.offers.Close()
		_ = o.clients.Close()
		offering.Wait()
	})
	return o
}

// offer is the goroutine that lets successors in.
func (o *old) offer() {
	offerer := Offerer{Version: "old", Sockets: &o.sockets, State: func() (State, error) { return State{Clients: 7, Connections: 5}, o.refusal }}
	for {
		conn, err := o.offers.Accept()
		if err != nil {
			return
		}
		link, err := offerer.Offer(conn)
		if err == nil {
			o.links <- link
		}
		o.offered <- err
	}
}

// serves checks that a client who connects is accepted by l.
func serves(t *testing.T, l net.Listener) {
	t.Helper()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	conn, err := l.Accept()
	require.NoError(t, err)
	require.Equal(t, client.LocalAddr().String(), conn.RemoteAddr().String())
	require.NoError(t, conn.Close())
}

func join(t *testing.T, path string) (*Predecessor, *Sockets, error) {
	t.Helper()
	sockets := new(Sockets)
	p, err := (&Joiner{Version: "new", Sockets: sockets, Descriptors: 10}).Join(t.Context(), path)
	return p, sockets, err
}

func TestHandover_socketsPassToTheSuccessor_andBack(t *testing.T) {
	o := newOld(t)
	p, sockets, err := join(t, o.path)
	require.NoError(t, err)
	require.Equal(t, State{Clients: 7, Connections: 5}, p.State)
	require.Equal(t, "old", p.Version)
	serves(t, o.clients) // Nothing has changed yet.

	mustNotBind := func() (net.Listener, error) { return nil, errors.New("it is there already") }
	theirs, err := sockets.Listen("clients", mustNotBind)
	require.NoError(t, err)
	defer theirs.Close()
	_, err = sockets.Listen("clients", mustNotBind)
	require.Error(t, err, "it is given out once")
	sockets.CloseUnclaimed()
	link := p.Link
	require.NoError(t, p.Serving())
	require.NoError(t, <-o.offered)

	accepted := make(chan net.Conn, 1)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		conn, err := o.clients.Accept()
		require.NoError(t, err)
		accepted <- conn
	})
	serves(t, theirs) // While the predecessor waits to accept, it rests.
	require.Empty(t, accepted)

	var running sync.WaitGroup
	running.Go(func() { require.NoError(t, (<-o.links).Run(refuseAll)) })
	link.Close()
	require.NoError(t, link.Run(refuseAll))
	running.Wait()
	require.NoError(t, theirs.Close())
	o.sockets.Resume()
	client, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", o.clients.Addr().String())
	require.NoError(t, err)
	require.NoError(t, client.Close())
	require.NoError(t, (<-accepted).Close())
	accepting.Wait()
}

func TestSockets_unixSocket_fileIsWhoseTheSocketIs(t *testing.T) {
	o := newOld(t)
	info, err := os.Stat(o.path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	p, sockets, err := join(t, o.path)
	require.NoError(t, err)
	theirs, err := sockets.Listen("takeover", nil)
	require.NoError(t, err)
	require.NoError(t, theirs.Close())
	require.FileExists(t, o.path, "a successor that has failed changes nothing")
	p.Close()
	require.Error(t, <-o.offered)

	p, sockets, err = join(t, o.path)
	require.NoError(t, err)
	theirs, err = sockets.Listen("takeover", nil)
	require.NoError(t, err)
	sockets.Settle()
	link := p.Link
	require.NoError(t, p.Serving())
	require.NoError(t, <-o.offered)
	require.NoError(t, o.offers.Close())
	require.FileExists(t, o.path, "the successor listens there")
	require.NoError(t, theirs.Close())
	require.NoFileExists(t, o.path)
	link.Close()
	require.NoError(t, link.Run(refuseAll))
	require.NoError(t, (<-o.links).Run(refuseAll))
}

func TestOffer_whatIsNotASuccessor_isRefused(t *testing.T) {
	header := func(change func(h []byte)) []byte {
		h := []byte{'p', 'g', 's', 'c', byte(kindHello), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, '{', '}'}
		change(h)
		return h
	}
	for name, bytes := range map[string][]byte{
		"nothing":           nil,
		"http":              []byte("GET /metrics HTTP/1.1\r\n\r\n"),
		"part of a header":  header(func([]byte) {})[:7],
		"another magic":     header(func(h []byte) { h[0]++ }),
		"another kind":      header(func(h []byte) { h[4] = byte(kindServing) }),
		"no kind":           header(func(h []byte) { h[4] = 99 }),
		"descriptors":       header(func(h []byte) { h[5] = 1 }),
		"too long":          header(func(h []byte) { h[12] = 0xff }),
		"no JSON":           header(func(h []byte) { h[16] = '[' }),
		"an older protocol": header(func([]byte) {}),
	} {
		t.Run(name, func(t *testing.T) {
			o := newOld(t)
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", o.path)
			require.NoError(t, err)
			_, err = conn.Write(bytes)
			require.NoError(t, err)
			require.NoError(t, conn.(*net.UnixConn).CloseWrite())
			require.Error(t, <-o.offered)
			require.NoError(t, conn.Close())
			serves(t, o.clients)
			p, sockets, err := join(t, o.path) // Nor does it keep others out.
			require.NoError(t, err)
			sockets.CloseUnclaimed()
			p.Close()
			require.ErrorContains(t, <-o.offered, "given up before it served")
			serves(t, o.clients)
		})
	}
}
