package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"pgsidecar/drain/handover"
	"pgsidecar/internal/config"
	"pgsidecar/proxy/stats"
)

// succession is the process's place in the line of those that serve on the same sockets: it may take over from a
// predecessor when it starts, and hand over to a successor later, but not both at once.
type succession struct {
	process *process
	path    string // Where a successor asks; "" if none may.
	sockets handover.Sockets
	passed  *activated // By systemd.

	listener    net.Listener          // For successors; nil if none may ask.
	predecessor *handover.Predecessor // Nil without one.

	mu struct { // Held for an assignment.
		sync.Mutex
		taking bool // The predecessor is still there.
	}
}

func newSuccession(p *process, path string, passed *activated) *succession {
	s := &succession{process: p, path: path, passed: passed}
	if p.parts.moving != nil {
		p.parts.moving.ListenBy(s.listenClients)
	}
	return s
}

// spareDescriptors is what a process opens besides clients and servers: files, logins, requests, the loops' own.
const spareDescriptors = 64

// join finds the predecessor and gets its sockets. Nothing changes for that one before begin.
func (s *succession) join(ctx context.Context, c config.Config) error {
	if s.path == "" || s.process.parts.moving == nil {
		return &configError{errors.New("takeover.socket: is not set, and --takeover asks there for the proxy to take over from; set it for both")}
	}
	joiner := handover.Joiner{Version: build().Version, Sockets: &s.sockets, Descriptors: 2*c.Pool.MaxConnections + spareDescriptors}
	predecessor, err := joiner.Join(ctx, s.path)
	switch {
	case errors.Is(err, handover.ErrNobody):
		s.process.log.InfoContext(ctx, "nobody to take over from: starting as usual", slog.String("socket", s.path))
		return nil
	case err != nil:
		return err
	}
	s.predecessor, s.mu.taking = predecessor, true
	s.process.parts.moving.Succeed(predecessor.Link, predecessor.Connections)
	s.process.log.InfoContext(ctx, "taking over", slog.String("from_version", predecessor.Version), slog.Int("clients", predecessor.Clients))
	return nil
}

// giveUp leaves the predecessor alone, before begin.
func (s *succession) giveUp() {
	s.sockets.CloseUnclaimed()
	if s.predecessor != nil {
		s.predecessor.Close()
	}
}

type binder = func() (net.Listener, error)

func (s *succession) listenClients(address string, bind binder) (net.Listener, error) {
	return s.sockets.Listen("listen "+address, s.passed.or(address, bind))
}

func (s *succession) listenHTTP(address string, bind binder) (net.Listener, error) {
	return s.sockets.Listen("http.listen "+address, s.passed.or(address, bind))
}

// listen makes the socket for successors.
func (s *succession) listen(ctx context.Context) error {
	if s.path == "" || s.process.parts.moving == nil {
		return nil
	}
	l, err := s.sockets.Listen("takeover.socket", func() (net.Listener, error) { return handover.Bind(ctx, s.path) })
	if err != nil {
		return fmt.Errorf("listen for successors on %s: %w; set takeover.socket to another path", s.path, err)
	}
	s.listener = l
	return nil
}

// begin tells the predecessor that this process serves, and lets successors ask. What it starts ends with ctx.
func (s *succession) begin(ctx context.Context, wg *sync.WaitGroup) {
	s.sockets.Settle()
	s.passed.settle(ctx, s.process.log)
	if s.predecessor != nil {
		s.process.tell(ctx, "MAINPID="+strconv.Itoa(os.Getpid())) // Before the other one, which systemd watches, can end.
		if err := s.predecessor.Serving(); err != nil {           // It has died since: whoever connects is served here all the same.
			s.process.log.ErrorContext(ctx, "the predecessor is gone", slog.Any("error", err))
		}
		wg.Go(func() { s.takeOver(ctx) })
	}
	if s.listener != nil {
		wg.Go(func() { s.offer(ctx) })
	}
}

// run runs a link, and beside it what lasts as long. It ends with ctx at the latest.
func (s *succession) run(ctx context.Context, link *handover.Link, beside ...func(context.Context)) error {
	linked, gone := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, f := range beside {
		wg.Go(func() { f(linked) })
	}
	stop := context.AfterFunc(ctx, link.Close)
	defer stop()
	err := link.Run(func(r *handover.Request) { s.process.parts.moving.Requested(r) })
	gone()
	wg.Wait()
	return err
}

// takeOver is the goroutine of the predecessor's end. It ends with that process.
func (s *succession) takeOver(ctx context.Context) {
	err := s.run(ctx, s.predecessor.Link)
	s.process.parts.moving.Alone()
	s.mu.Lock()
	s.mu.taking = false
	s.mu.Unlock()
	totals := s.process.parts.observed.Snapshot().Totals
	s.process.log.InfoContext(ctx, "taken over", slog.Uint64("clients", totals.TakenOver), slog.Any("error", err))
}

// state is what a successor is told.
func (s *succession) state() (handover.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.taking {
		return handover.State{}, errors.New("it has just taken over itself, and the process before it still serves clients that could not move; try again when that has ended")
	}
	if err := s.process.Ready(); err != nil {
		return handover.State{}, err
	}
	snapshot := s.process.parts.observed.Snapshot()
	if snapshot.Held != "" { // The successor would not know, and let them go.
		return handover.State{}, fmt.Errorf("transactions are held (%s); try again when they go on", snapshot.Held)
	}
	return handover.State{Clients: snapshot.Clients.All(), Connections: snapshot.Limit}, nil
}

// acceptPause is how long offer rests when the process has no descriptor left.
const acceptPause = 50 * time.Millisecond

// offer is the goroutine that waits for successors. It ends with ctx.
func (s *succession) offer(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = s.listener.Close() })
	defer stop()
	for {
		conn, err := s.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return
		case err != nil:
			s.process.log.ErrorContext(ctx, "cannot accept a successor", slog.Any("error", err))
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
		default:
			s.admit(ctx, conn)
		}
	}
}

// admit deals with one process that wants to be the successor. It returns when that is gone.
func (s *succession) admit(ctx context.Context, conn net.Conn) {
	log := s.process.log
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	offerer := handover.Offerer{Version: build().Version, Sockets: &s.sockets, State: s.state}
	link, err := offerer.Offer(conn)
	stop()
	switch {
	case errors.Is(err, io.EOF): // Somebody has looked whether the socket is served.
		return
	case err != nil:
		log.WarnContext(ctx, "no handover, everything stays as it was", slog.Any("error", err))
		return
	}
	before := s.process.parts.observed.Snapshot()
	log.InfoContext(ctx, "handing over to a successor", slog.Int("clients", before.Clients.All()))
	err = s.run(ctx, link, func(ctx context.Context) { s.process.parts.moving.HandOver(ctx, link) }, s.leave)
	moved := s.process.parts.observed.Snapshot().Totals.HandedOver - before.Totals.HandedOver
	if ctx.Err() != nil {
		log.InfoContext(ctx, "handed over", slog.Uint64("clients", moved))
		return
	}
	s.sockets.Resume()
	log.ErrorContext(ctx, "the successor is gone: serving on", slog.Uint64("clients_moved", moved), slog.Any("error", err))
}

// leaveEvery is how often it is looked whether everybody has left.
const leaveEvery = 20 * time.Millisecond

// leave ends the process when no client is left: two looks in a row, as one may just be coming in. Those that cannot move stay
// for drain.timeout; then it is as at any other end. ctx ends when there is no successor any more.
func (s *succession) leave(ctx context.Context) {
	tick := time.NewTicker(leaveEvery)
	defer tick.Stop()
	deadline := time.NewTimer(s.process.end().Timeout)
	defer deadline.Stop()
	for empty := 0; empty < 2; {
		select {
		case <-ctx.Done():
			return
		case <-deadline.C:
			empty = 2
		case <-tick.C:
			if empty++; !s.process.parts.moving.Empty() {
				empty = 0
			}
		}
	}
	if s.process.parts.moving.Phase() < stats.Draining {
		s.process.life.Drain(s.process.end())
	}
}
