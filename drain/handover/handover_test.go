package handover

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
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

// pair makes two processes whose links run.
func pair(t *testing.T, serveOld, serveNew func(*Request)) (ours, theirs *Link, await func() (error, error)) {
	t.Helper()
	o := newOld(t)
	p, sockets, err := join(t, o.path)
	require.NoError(t, err)
	sockets.CloseUnclaimed()
	theirs, err = p.Serving()
	require.NoError(t, err)
	require.NoError(t, <-o.offered)
	ours = <-o.links
	errs := make([]error, 2)
	var running sync.WaitGroup
	running.Go(func() { errs[0] = ours.Run(serveOld) })
	running.Go(func() { errs[1] = theirs.Run(serveNew) })
	return ours, theirs, func() (error, error) {
		running.Wait()
		return errs[0], errs[1]
	}
}

func refuseAll(*Request) {}

// result is what came of an ask.
type result struct {
	body string
	err  error
}

func asking(l *Link, body string, descriptor int) <-chan result {
	done := make(chan result, 1)
	l.Ask([]byte(body), descriptor, func(answer []byte, err error) { done <- result{string(answer), err} })
	return done
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
	link, err := p.Serving()
	require.NoError(t, err)
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
	link, err := p.Serving()
	require.NoError(t, err)
	require.NoError(t, <-o.offered)
	require.NoError(t, o.offers.Close())
	require.FileExists(t, o.path, "the successor listens there")
	require.NoError(t, theirs.Close())
	require.NoFileExists(t, o.path)
	link.Close()
	require.NoError(t, link.Run(refuseAll))
	require.NoError(t, (<-o.links).Run(refuseAll))
}

func TestLink_answersInBothDirections(t *testing.T) {
	echo := func(r *Request) { r.Answer(append([]byte("re: "), r.Body()...), nil) }
	ours, theirs, await := pair(t, echo, echo)
	long := strings.Repeat("x", 3<<20)
	first, second := asking(ours, long, -1), asking(theirs, "b", -1)
	require.Equal(t, result{"re: " + long, nil}, <-first)
	require.Equal(t, result{"re: b", nil}, <-second)
	theirs.Close()
	ourErr, theirErr := await()
	require.NoError(t, ourErr)
	require.NoError(t, theirErr)
	require.Equal(t, ErrGone, (<-asking(ours, "too late", -1)).err)
}

// TestLink_descriptor_isTheOtherSidesWhenItHasAnswered passes the one end of a connection on.
func TestLink_descriptor_isTheOtherSidesWhenItHasAnswered(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[1])
	taken := make(chan int, 1)
	ours, _, await := pair(t, refuseAll, func(r *Request) {
		fd := r.TakeDescriptor()
		require.Equal(t, -1, r.TakeDescriptor())
		r.Answer(nil, func(err error) {
			require.NoError(t, err)
			taken <- fd
		})
	})
	require.NoError(t, (<-asking(ours, "client", fds[0])).err)
	require.NoError(t, unix.Close(fds[0]))
	theirs := <-taken
	_, err = unix.Write(theirs, []byte("alive"))
	require.NoError(t, err)
	buf := make([]byte, 9)
	n, err := unix.Read(fds[1], buf)
	require.NoError(t, err)
	require.Equal(t, "alive", string(buf[:n]))
	require.NoError(t, unix.Close(theirs))
	n, err = unix.Read(fds[1], buf)
	require.NoError(t, err)
	require.Zero(t, n, "nobody else has it")
	ours.Close()
	_, _ = await()
}

// TestLink_ended_exactlyOneSideHasIt ends links at random moments while requests are answered: what one side has been told,
// the other must know, or both must know that it is not so.
func TestLink_ended_exactlyOneSideHasIt(t *testing.T) {
	for i := range 30 {
		const requests = 100
		var mu sync.Mutex
		took := make(map[string]bool)
		ours, theirs, await := pair(t, refuseAll, func(r *Request) {
			name := string(r.Body())
			r.Answer([]byte("yes"), func(err error) {
				mu.Lock()
				defer mu.Unlock()
				took[name] = err == nil
			})
		})
		var all []<-chan result
		for n := range requests {
			if n == i*3 {
				if i%2 == 0 {
					ours.Close()
				} else {
					theirs.Close()
				}
			}
			all = append(all, asking(ours, string(rune('0'+n)), -1))
		}
		if i%3 == 0 {
			ours.Close()
		}
		theirs.Close()
		_, _ = await()
		for n, one := range all {
			r := <-one
			require.Equal(t, r.err == nil, took[string(rune('0'+n))], "%d of link %d: %v", n, i, r.err)
		}
	}
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

func TestJoin_refused_saysWhy(t *testing.T) {
	o := newOldRefusing(t, errors.New("the proxy is draining"))
	_, _, err := join(t, o.path)
	require.ErrorContains(t, err, "the other process refuses: the proxy is draining")
	require.Error(t, <-o.offered)
	serves(t, o.clients)
}

func TestJoin_tooFewDescriptors_isFoundOutFirst(t *testing.T) {
	o := newOld(t)
	_, err := (&Joiner{Sockets: new(Sockets), Descriptors: 1 << 40}).Join(t.Context(), o.path)
	require.ErrorContains(t, err, "raise its limit (RLIMIT_NOFILE)")
	require.Error(t, <-o.offered)
	serves(t, o.clients)
}

func TestJoin_nobody(t *testing.T) {
	dir := t.TempDir()
	_, _, err := join(t, filepath.Join(dir, "nothing"))
	require.ErrorIs(t, err, ErrNobody)
	left := filepath.Join(dir, "left behind")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: left})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	_, _, err = join(t, left)
	require.ErrorIs(t, err, ErrNobody)
	bound, err := Bind(t.Context(), left)
	require.NoError(t, err, "what a process has left behind is removed")
	_, err = Bind(t.Context(), left)
	require.ErrorContains(t, err, "another process serves it")
	require.NoError(t, bound.Close())
}

func TestJoin_whatIsNotAPredecessor_isRefused(t *testing.T) {
	for name, c := range map[string]struct {
		answer any
		want   string
	}{
		"another program":   {nil, "not the handover protocol"},
		"an older protocol": {welcome{Protocol: Protocol - 1, Version: "v0"}, "(version v0) is older"},
		"a newer protocol":  {welcome{Protocol: Protocol + 1, Version: "v9"}, "(version v9) is newer"},
		"sockets missing":   {welcome{Protocol: Protocol, Sockets: []string{"clients"}}, "not the handover protocol"},
		"clients below 0":   {welcome{Protocol: Protocol, Clients: -1}, "not the handover protocol"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
			require.NoError(t, err)
			defer l.Close()
			var answering sync.WaitGroup
			answering.Go(func() {
				conn, err := l.Accept()
				require.NoError(t, err)
				defer conn.Close()
				if c.answer == nil {
					_, err = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
				} else {
					err = say(conn.(*net.UnixConn), kindWelcome, c.answer)
				}
				require.NoError(t, err)
				_, _ = io.Copy(io.Discard, conn) // Until the other side has had enough.
			})
			_, _, err = join(t, path)
			require.ErrorContains(t, err, c.want)
			answering.Wait()
		})
	}
}

func TestPeer_ofAnotherUser_isRefused(t *testing.T) {
	require.NoError(t, sameUser(5, 5))
	require.ErrorContains(t, sameUser(6, 5), "belongs to a process of user 6, and this one is of user 5")

	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, _, err := join(t, file)
	require.ErrorContains(t, err, "is not a socket")
	_, err = Bind(t.Context(), file)
	require.ErrorContains(t, err, "is not a socket")
	require.FileExists(t, file)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "s")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	require.NoError(t, err)
	defer l.Close()
	require.NoError(t, os.Chown(path, 65534, -1))
	_, _, err = join(t, path)
	require.ErrorContains(t, err, "belongs to a process of user 65534")
}

// TestLink_slow_isGivenUp is about a process that has a client and neither takes nor refuses it.
func TestLink_slow_isGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	ours, _, await := pair(t, refuseAll, refuseAll)
	fd, err := unix.Dup(0)
	require.NoError(t, err)
	defer unix.Close(fd)
	since := time.Now()
	require.Equal(t, ErrGone, (<-asking(ours, "client", fd)).err)
	require.GreaterOrEqual(t, time.Since(since), patience)
	ourErr, _ := await()
	require.Equal(t, errSlow, ourErr)
}

func FuzzReadFrame(f *testing.F) {
	body, _ := json.Marshal(hello{Protocol: 1})
	f.Add(append([]byte{'p', 'g', 's', 'c', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(len(body))}, body...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		conns := make([]*net.UnixConn, 2)
		for i, fd := range fds {
			file := os.NewFile(uintptr(fd), "pair")
			conn, err := net.FileConn(file)
			require.NoError(t, err)
			require.NoError(t, file.Close())
			conns[i] = conn.(*net.UnixConn)
		}
		defer conns[1].Close()
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var writing sync.WaitGroup
		writing.Go(func() {
			defer conns[0].Close()
			_, _ = conns[0].Write(sent)
		})
		for ctx.Err() == nil {
			got, err := readFrame(conns[1])
			if err != nil {
				break
			}
			require.Empty(t, got.descriptors)
			require.LessOrEqual(t, len(got.body), len(sent))
		}
		_ = conns[1].Close()
		writing.Wait()
	})
}
