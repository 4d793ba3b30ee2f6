package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// side is one of the two processes of a handover.
type side int

const (
	successor side = iota
	predecessor
)

func (s side) other() side { return 1 - s }

func (s side) String() string { return [...]string{"successor", "predecessor"}[s] }

// moment is when a process is to be killed: about the count-th message of a name, which either side may send.
type moment struct {
	message string
	count   int
	victim  side
	// delivered is for the one that the message is for: it is killed when it has it, else before. Whoever has sent a message
	// is killed before it arrives; it arrives all the same, as from a dead process' socket.
	delivered bool
}

func (m moment) String() string {
	return fmt.Sprintf("%s %d, %s, delivered %t", m.message, m.count, m.victim, m.delivered)
}

// between stands on the takeover socket between two processes, and passes on what they say to each other, descriptors too. It
// kills one of them at a moment, and behaves then as their socket would. It knows the form of a message (package handover):
// a header of 16 bytes, with its kind in byte 4, its number from 8 and the length of its body from 12.
//
// It owns both connections; each has a goroutine that alone reads it. It ends with either process, or with the test.
type between struct {
	t        *testing.T
	path     string // Where the successor finds it.
	listener *net.UnixListener
	conns    [2]*net.UnixConn
	moment   moment
	pods     [2]*pod
	rewrite  func(message string, body []byte) []byte // Nil leaves all as it is.
	killed   chan struct{}                            // Closed at the moment.
	running  sync.WaitGroup

	mu    sync.Mutex // Held while one message is passed on.
	asked [2]map[uint32]request
	seen  map[string]int // How many messages of a name have passed.
	dead  *pod           // Who was killed; nil: nobody.
	moved map[uint32]bool
}

// request is what an answer is to.
type request struct {
	name string
	pid  uint32 // Of the client that it brings.
}

// newBetween listens on path. It serves one successor, which start starts.
func newBetween(t *testing.T, path string, m moment) *between {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	require.NoError(t, err)
	return &between{
		t: t, path: path, listener: listener, moment: m, killed: make(chan struct{}),
		asked: [2]map[uint32]request{{}, {}}, seen: map[string]int{}, moved: map[uint32]bool{},
	}
}

// start starts a successor of p, whose takeover socket is at target, and stands between the two.
func (b *between) start(p *pod, target string) *pod {
	b.t.Helper()
	b.mu.Lock() // Nothing passes before it is known who is who.
	defer b.mu.Unlock()
	b.running.Go(func() { b.run(target) })
	b.t.Cleanup(b.close)
	next := p.successor("PGSIDECAR_TAKEOVER_SOCKET=" + b.path)
	b.pods = [2]*pod{successor: next, predecessor: p}
	return next
}

// close ends it, whatever state it is in.
func (b *between) close() {
	_ = b.listener.Close()
	b.mu.Lock()
	for _, conn := range b.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
	b.mu.Unlock()
	b.running.Wait()
}

// run is the goroutine that waits for the successor, and for the end of both directions.
func (b *between) run(target string) {
	conn, err := b.listener.AcceptUnix()
	if err != nil {
		return // The test has ended.
	}
	other, err := net.DialUnix("unix", nil, &net.UnixAddr{Net: "unix", Name: target})
	if err != nil {
		_ = conn.Close()
		return
	}
	b.mu.Lock()
	b.conns = [2]*net.UnixConn{successor: conn, predecessor: other}
	b.mu.Unlock()
	var reading sync.WaitGroup
	for _, from := range []side{successor, predecessor} {
		reading.Go(func() { b.read(from) })
	}
	reading.Wait()
	for _, conn := range b.conns {
		_ = conn.Close()
	}
}

// read is the goroutine of one direction. When the process has said its last, the other one gets no further: it may not
// believe that something has arrived which has not.
func (b *between) read(from side) {
	for {
		m, err := readMessage(b.conns[from])
		if err != nil {
			break
		}
		b.pass(from, m)
	}
	if from == predecessor {
		_ = b.listener.Close() // As nobody serves its socket any more.
	}
	_ = b.conns[from.other()].CloseRead()
}

// message is one message of the handover.
type message struct {
	header, body []byte
	fds          []int
}

func readMessage(conn *net.UnixConn) (*message, error) {
	m := &message{header: make([]byte, 16)}
	rights := make([]byte, unix.CmsgSpace(4*64))
	n, length, _, _, err := conn.ReadMsgUnix(m.header, rights)
	if err != nil {
		return nil, err
	}
	if controls, err := unix.ParseSocketControlMessage(rights[:length]); err == nil {
		for i := range controls {
			fds, _ := unix.ParseUnixRights(&controls[i])
			m.fds = append(m.fds, fds...)
		}
	}
	if _, err := io.ReadFull(conn, m.header[n:]); err != nil {
		return nil, err
	}
	m.body = make([]byte, binary.BigEndian.Uint32(m.header[12:]))
	_, err = io.ReadFull(conn, m.body)
	return m, err
}

// pass passes one message on, unless whom it is for is dead.
func (b *between) pass(from side, m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() {
		for _, fd := range m.fds {
			_ = unix.Close(fd)
		}
	}()
	name := b.note(from, m)
	if b.rewrite != nil {
		m.body = b.rewrite(name, m.body)
		binary.BigEndian.PutUint32(m.header[12:], uint32(len(m.body)))
	}
	now := name == b.moment.message && b.seen[name] == b.moment.count
	if now && (b.moment.victim == from || !b.moment.delivered) {
		b.kill()
	}
	if b.dead == b.pods[from.other()] {
		return
	}
	rights := unix.UnixRights(m.fds...)
	if len(m.fds) == 0 {
		rights = nil
	}
	all, to := slices.Concat(m.header, m.body), b.conns[from.other()]
	if n, _, err := to.WriteMsgUnix(all, rights, nil); err == nil { // It may have ended.
		_, _ = to.Write(all[n:])
	}
	if now && b.dead == nil {
		b.kill()
	}
}

// kill kills the victim.
func (b *between) kill() {
	b.dead = b.pods[b.moment.victim]
	_ = b.dead.cmd.Process.Kill()
	<-b.dead.exited
	close(b.killed)
}

// note returns the name of a message, and keeps in mind what follows from it: a client whose offer was accepted has moved when
// the successor has said so.
func (b *between) note(from side, m *message) (name string) {
	id := binary.BigEndian.Uint32(m.header[8:])
	switch kind := m.header[4]; kind {
	case 1, 2, 3:
		name = [...]string{"hello", "welcome", "serving"}[kind-1]
	case 4:
		r := parseRequest(m.body)
		b.asked[from][id] = r
		name = r.name
	case 5:
		r := b.asked[from.other()][id]
		name = "answer to " + r.name
		if r.name == "client" && string(m.body) == `{"yes":true}` {
			b.moved[r.pid] = true
		}
	}
	b.seen[name]++
	return name
}

// parseRequest finds out what is asked, by its only key, and about which client.
func parseRequest(body []byte) (r request) {
	var keys map[string]struct {
		Session struct{ PID uint32 }
	}
	if json.Unmarshal(body, &keys) != nil { // Of a number: held.
		return request{name: "held"}
	}
	for name, about := range keys {
		r = request{name, about.Session.PID}
	}
	return r
}

// passed returns how many messages of each name have passed.
func (b *between) passed() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.seen)
}

// awaitMessage waits until a message has passed.
func (b *between) awaitMessage(name string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.passed()[name] > 0 }, time.Minute, time.Millisecond, name)
}

// await waits for the moment, and until the survivor has all that the dead process had said.
func (b *between) await() {
	b.t.Helper()
	select {
	case <-b.killed:
	case <-time.After(time.Minute):
		require.Fail(b.t, "the moment has not come", "%s: %v\nsuccessor:\n%spredecessor:\n%s", b.moment, b.passed(), b.pods[successor].stderr, b.pods[predecessor].stderr)
	}
	b.running.Wait()
}

// owner returns who has the client, or had it when it was killed.
func (b *between) owner(pid uint32) side {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.moved[pid] {
		return successor
	}
	return predecessor
}
