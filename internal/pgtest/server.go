package pgtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Step is one step of a script, of a client's or a server's. A step that returns an error ends the script and fails the test.
type Step func(p *Peer) error

// Script is what one connection does, step by step. When it is over the connection is closed.
type Script []Step

// Send is a step that sends messages in one write.
func Send(messages ...pgproto3.Message) Step {
	return func(p *Peer) error { return p.Send(messages...) }
}

// SendBytes is a step that sends bytes as they are.
func SendBytes(b []byte) Step {
	return func(p *Peer) error { return p.SendBytes(b) }
}

// Expect is a step that receives messages and compares their short forms (see Peer.Expect).
func Expect(want ...string) Step {
	return func(p *Peer) error { return p.Expect(want...) }
}

// ExpectEnd is a step that waits for the other side to close or reset the connection.
func ExpectEnd() Step { return (*Peer).ExpectEnd }

// ResetConn is a step that ends the connection with a TCP reset.
func ResetConn() Step { return (*Peer).Reset }

// Wait is a step that goes on when the channel is closed or has something to receive.
func Wait(ready <-chan struct{}) Step {
	return func(*Peer) error {
		<-ready
		return nil
	}
}

// Welcome is a server's step that lets the client in: authentication is not asked for, process id and secret key are 1 and
// [0 0 0 1], the parameters are those of a new server plus the given ones, and the session is idle.
func Welcome(parameters ...pgproto3.ParameterStatus) Step {
	defaults := []pgproto3.ParameterStatus{
		{Name: "server_version", Value: "18.0"},
		{Name: "server_encoding", Value: "UTF8"},
		{Name: "client_encoding", Value: "UTF8"},
		{Name: "DateStyle", Value: "ISO, MDY"},
		{Name: "TimeZone", Value: "UTC"},
		{Name: "integer_datetimes", Value: "on"},
		{Name: "standard_conforming_strings", Value: "on"},
		{Name: "in_hot_standby", Value: "off"},
	}
	return func(p *Peer) error {
		statuses := slices.Concat(defaults, parameters)
		messages := make([]pgproto3.Message, 0, len(statuses)+3)
		messages = append(messages, &pgproto3.AuthenticationOk{})
		for i := range statuses {
			messages = append(messages, &statuses[i])
		}
		messages = append(messages, &pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}}, ReadyForQuery('I'))
		return p.Send(messages...)
	}
}

// ReadyForQuery is the message with the given transaction status: I, T or E.
func ReadyForQuery(status byte) *pgproto3.ReadyForQuery {
	return &pgproto3.ReadyForQuery{TxStatus: status}
}

// Server is a scripted server on loopback. It ends with the test, which fails if a script has failed.
//
// One goroutine accepts, and each connection has one that runs its script.
type Server struct {
	listener net.Listener
	scripts  []Script
	running  sync.WaitGroup

	mu      sync.Mutex
	logins  int
	cancels [][]byte
	conns   []net.Conn
	errs    []error
	closing bool
}

// Serve starts a scripted server. Its first login runs the first script, and so on; the last script is repeated for all that
// follow. A startup packet has been received before a script begins (Peer.Startup); what the server answers, Welcome or an
// error, is the script's.
func Serve(t testing.TB, scripts ...Script) *Server {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	s := &Server{listener: listener, scripts: scripts}
	s.running.Go(s.accept)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("scripted server: %v", err)
		}
	})
	return s
}

// Addr is the server's host:port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Logins is the number of startup packets received so far.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Cancels are the bodies of the cancel requests received so far: 4 bytes of process id, then the secret key.
func (s *Server) Cancels() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][]byte(nil), s.cancels...)
}

// accept runs until the listener is closed.
func (s *Server) accept() {
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

// serve runs one connection.
func (s *Server) serve(conn net.Conn) {
	defer conn.Close()
	p := &Peer{Conn: conn, server: true}
	cancel, err := p.receiveStartup()
	if err != nil {
		if !errors.Is(err, io.EOF) {
			s.fail(fmt.Errorf("receive startup packet: %w", err))
		}
		return
	}
	if cancel != nil {
		s.mu.Lock()
		s.cancels = append(s.cancels, cancel)
		s.mu.Unlock()
		return
	}
	for i, step := range s.nextScript() {
		if err := step(p); err != nil {
			s.fail(fmt.Errorf("step %d: %w", i+1, err))
			return
		}
	}
}

func (s *Server) nextScript() Script {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logins++
	if len(s.scripts) == 0 {
		return nil
	}
	return s.scripts[min(s.logins, len(s.scripts))-1]
}

// fail keeps an error for the end of the test. What fails because the test is over is no failure.
func (s *Server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing {
		s.errs = append(s.errs, err)
	}
}

// close ends everything, waits for the goroutines and tells what failed.
func (s *Server) close() error {
	_ = s.listener.Close()
	s.mu.Lock()
	s.closing = true
	conns := s.conns
	s.mu.Unlock()
	for _, conn := range conns {
		_ = conn.Close() // Most have ended long ago.
	}
	s.running.Wait()
	return errors.Join(s.errs...)
}
