package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/standby"
	"pgsidecar/proxy/stats"
	"pgsidecar/proxy/wire"
)

// Server is a connection to PostgreSQL in a pool. It belongs to the loop of its worker, which attaches, reads, writes and
// closes it; between Detach and the next attachment it belongs to whoever carries it there.
type Server struct {
	server.Conn

	slot      pool.Slot
	standby   *standby.Standby   // that it leads to, or nil: the primary
	life      standby.Connection // of a connection to a standby
	pool      *pool.Pool
	traffic   []stats.Pool   // the pool's counters, one a loop
	worker    *Worker        // nil while it is on no loop
	workers   []*Worker      // all of them
	transport loop.Transport // while it is on no loop
	session   *Session       // that it is linked to, or nil
	user      *Session       // whose values of sequences it remembers, or nil: the last one that has used one here
	hub       *Hub           // that listens on it, or nil
	links     links[Server]

	// home is the worker for other goroutines, nil before the first attachment.
	home atomic.Pointer[Worker]

	since     int64 // loop.Nanos of its last change between busy and waiting for the client, or of the beginning of closing
	began     int64 // loop.Nanos of the first request of the transaction under way, 0 between two
	hurried   int64 // loop.Nanos of the last cancel request for what takes too long
	tainted   bool  // what its settings are is not known: they are to be reset before any is set
	cut       bool  // the rest of a message from it is cut out
	dying     bool  // it has reported that it ends
	leaving   bool  // it is being closed: Terminate has been written
	unwanted  bool  // what it still does is to be cancelled
	torn      bool  // it may have got only a part of a message, of which it would take a Terminate for the rest
	cancels   int   // cancel requests on their way
	watched   bool  // it is being asked something, and nobody has it
	observed  bool  // the sentinel will look at it when it is released
	astray    bool  // a cancel request has failed: it may still be on its way
	releasing bool  // to be released when those have ended
	retiring  string
	attempt   attempt
	commit    commitment
	causes    causes   // texts of the linked session that may leave something on it
	resets    []reset  // settings that the linked session has reset, see followResets
	custom    []string // custom settings that texts of the linked session have set since the last audit
	answer    []byte   // rows of an audit
	audited   bool     // answer is complete
	failure   []byte   // the body of the ErrorResponse to a request of the session's own
	refused   uint8    // the purpose of that request
	opened    bool     // Welcomes has been told
	learned   *Learned // what is known of its database; nil: nothing is looked for
	version   uint64   // of that, when the transaction began
	changing  bool     // the linked session's transaction may change it
	study     *study   // under way, or nil
	seen      seen     // texts of the linked session, if it is observed
	evicted   atomic.Pointer[string]

	words *wire.Error // that a server which shuts down has ended with, kept from the client that outlives it; nil: none

	// Generation numbers the servers that connections lead to, one after the other: Cut ends those of earlier ones. Set
	// before the connection is attached.
	Generation uint64
}

// NewServer returns a connection to be dialled.
func NewServer(p *pool.Pool, traffic []stats.Pool) *Server { return &Server{pool: p, traffic: traffic} }

// LeadsTo says that the connection has been dialled at a standby, and from when to when. It comes before the connection is attached.
func (l *Server) LeadsTo(b *standby.Standby, life standby.Connection) { l.standby, l.life = b, life }

// Dialled takes the socket of a connection that has just been logged in, and the workers of which one will have it.
func (l *Server) Dialled(t loop.Transport, workers []*Worker) { l.transport, l.workers = t, workers }

// Discard closes a connection that is on no loop.
func (l *Server) Discard() {
	if l.opened {
		l.opened = false
		l.workers[0].shared.Welcomes.disconnected(l.pool)
	}
	_ = l.transport.Close()
	l.slot.Closed()
}

// Slot implements pool.Conn.
func (l *Server) Slot() *pool.Slot { return &l.slot }

func (l *Server) ringLinks() *links[Server] { return &l.links }

// Tasks of a server.
type (
	delivered Server // go on reading
	eviction  Server
)

func (d *delivered) Run() {
	if l := (*Server)(d); l.Attached() {
		l.Readable(false)
	}
}

// Evict implements pool.Conn.
func (l *Server) Evict(reason string) {
	l.evicted.Store(&reason)
	w := l.home.Load()
	if w == nil || !w.Loop.Post((*eviction)(l)) {
		l.Discard()
	}
}

func (e *eviction) Run() {
	l := (*Server)(e)
	if l.worker == nil { // on its way to a session that will not have it
		l.Discard()
		return
	}
	if l.session == nil && !l.leaving && !l.watched && l.Attached() {
		l.retire(*l.evicted.Load())
	}
}

// move carries an idle connection to a grantee on another loop.
type move struct {
	server *Server
	to     pool.Grantee
}

// Move implements pool.Conn.
func (l *Server) Move(to pool.Grantee) {
	if w := l.home.Load(); w == nil || !w.Loop.Post(&move{server: l, to: to}) {
		l.slot.MoveFailed()
	}
}

func (m *move) Run() {
	l := m.server
	if !l.Attached() || l.leaving {
		l.slot.MoveFailed()
		return
	}
	l.detach()
	m.to.Granted()
}

// adoption brings a connection that nobody waits for to a loop.
type adoption struct {
	server *Server
	worker *Worker
}

// Adopt implements pool.Conn.
func (l *Server) Adopt(index int) {
	w := l.workers[index]
	if !w.Loop.Post(&adoption{server: l, worker: w}) {
		l.Discard()
	}
}

func (a *adoption) Run() {
	if a.server.settleOn(a.worker) == nil {
		a.server.release()
	}
}

// settleOn attaches the connection to a worker's loop, unless it is there already. After an error it is closed.
func (l *Server) settleOn(w *Worker) error {
	if l.worker == w && l.Attached() {
		return nil
	}
	l.worker = w
	l.home.Store(w)
	if err := w.Loop.Attach(&l.Conn.Conn, l.transport, l); err != nil {
		_ = l.transport.Close()
		l.gone()
		return fmt.Errorf("attach server connection: %w", err)
	}
	l.transport = loop.Transport{}
	if !l.opened {
		l.opened = true
		w.shared.Welcomes.connected(l.pool, l.Parameters())
	}
	return nil
}

func (l *Server) detach() {
	l.worker.gauges.Held.Add(-int64(l.Held.Len()))
	l.transport = l.Detach()
	l.worker = nil
}

// returned takes back a connection that was granted to a session which does not want it any more.
func (l *Server) returned(w *Worker) {
	if l.settleOn(w) == nil {
		l.release()
	}
}

// release gives a connection whose state is clean back to the pool.
func (l *Server) release() {
	switch {
	case l.cancels > 0:
		l.releasing = true
		return
	case l.astray:
		l.retire("cancel request failed")
		return
	case l.dying:
		l.retire("server ends the connection")
		return
	}
	verdict, to := l.pool.Release(l)
	switch verdict {
	case pool.Idle:
	case pool.Close:
		l.retire("pool")
	case pool.Give:
		if g, ok := to.(*granted); ok && (*Session)(g).worker == l.worker {
			l.worker.Loop.Later(g)
			return
		}
		l.detach()
		to.Granted()
	}
}

// retire closes a connection that no session uses: the server is told, and its slot is free when it has ended, so that
// PostgreSQL never sees more connections than the bound. What it is still doing it finishes first.
func (l *Server) retire(reason string) {
	if l.leaving || !l.Attached() {
		return
	}
	l.leaving, l.retiring = true, reason
	l.slot.Closing()
	l.worker.servers.add(l)
	l.since = l.worker.Loop.Nanos()
	l.worker.sweeper.start()
	if l.terminate() != nil {
		l.finish()
		return
	}
	if l.Unread() {
		l.worker.Loop.Later((*delivered)(l))
	}
}

// terminate tells the server that nothing more comes.
func (l *Server) terminate() error {
	if l.torn {
		return l.CloseWrite()
	}
	return l.Write(wire.AppendEmpty(nil, wire.Terminate))
}

// finish closes the socket of a connection that is being closed.
func (l *Server) finish() {
	l.worker.servers.remove(l)
	l.gone()
}

// gone closes the socket and gives the slot back.
func (l *Server) gone() {
	if l.worker != nil {
		l.worker.gauges.Held.Add(-int64(l.Held.Len()))
		if l.opened {
			l.opened = false
			l.worker.shared.Welcomes.disconnected(l.pool)
		}
	}
	l.Close()
	l.slot.Closing()
	l.slot.Closed()
}

// Readable is called by the loop.
func (l *Server) Readable(hangup bool) {
	switch {
	case l.hub != nil:
		l.hub.readable()
	case l.watched:
		l.examine()
	case l.leaving:
		l.discard()
	case l.session != nil:
		l.session.deliver(l)
	default:
		l.listen()
	}
}

// Drained is called by the loop.
func (l *Server) Drained() {
	if l.session != nil {
		l.session.pump()
	}
}

// Stuck is called by the loop. A server may take as long as it likes.
func (l *Server) Stuck() {}

// discard reads what comes from a connection that is being closed, until its end.
func (l *Server) discard() {
	for {
		_, err := l.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			return
		}
		if err != nil {
			l.finish()
			return
		}
	}
}

// listen reads what an idle connection says without being asked: that a parameter has changed, or that it ends.
func (l *Server) listen() {
	for {
		buf, err := l.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			return
		}
		if err != nil || !l.heed(buf) {
			l.worker.shared.Suspect()
			l.gone()
			return
		}
	}
}

// heed takes messages that nobody asked for. It reports false when the connection must not be used any more.
func (l *Server) heed(buf []byte) bool {
	for len(buf) > 0 {
		p, err := l.Scan.Next(buf)
		if err != nil {
			return false
		}
		if len(p.Data) == 0 {
			break
		}
		buf = buf[len(p.Data):]
		if !p.Start {
			continue
		}
		switch p.Type {
		case wire.ParameterStatus:
			if name, value, ok := wire.ParseStatus(wire.Body(p.Data)); ok && l.Report(name, value) {
				l.worker.shared.Welcomes.changed(l.pool)
			}
		case wire.NoticeResponse, wire.NotificationResponse:
		case wire.ErrorResponse:
			l.worker.log().Info("server ends an idle connection", attrPID(l),
				attrMessage(p))
			return false
		default:
			l.worker.log().Error("idle server connection is out of step: closed", attrPID(l), slog.String("message_type", string(p.Type)))
			return false
		}
	}
	l.Keep(buf)
	return true
}

// cancelTimeout bounds a cancel request, its connection's end included.
const cancelTimeout = 10 * time.Second

// cancel sends a cancel request for what the server is doing. While one is on its way the connection is not lent to
// anybody else, so that it cannot hit the next one's query. done is called when it has ended, or at once if there is none
// because the server is being cancelled already, or ends anyway.
func (l *Server) cancel(done func()) {
	if l.cancels > 0 || l.dying {
		done()
		return
	}
	l.cancels++
	go l.runCancel(done)
}

// nobody is told of the end of a cancel request that no client has made.
func nobody() {}

// cancelAndRetire closes a connection whose client is gone in the middle of something. PostgreSQL does not look for
// Terminate while it executes, so it is cancelled first.
func (l *Server) cancelAndRetire() {
	l.unwanted = true
	l.retire("client gone")
	if l.Attached() {
		l.cancel(nobody)
	}
}

// cancelAgain is how long something may run on after it has been cancelled. A request that arrives before the server has
// begun a query does not end that query, and nobody is left to notice.
const cancelAgain = time.Second

// hurry cancels what takes too long.
func (l *Server) hurry(now int64) {
	if now-l.hurried > int64(cancelAgain) {
		l.hurried = now
		l.cancel(nobody)
	}
}

// hasten makes a server end that is being closed.
func (l *Server) hasten(now int64) {
	if l.unwanted && now-l.since > int64(cancelAgain) {
		l.since = now
		l.cancel(nobody)
	}
}

// runCancel is the goroutine of one cancel request. It ends with the request's connection.
func (l *Server) runCancel(done func()) {
	defer done()
	ctx, stop := context.WithTimeout(context.Background(), cancelTimeout)
	defer stop()
	err := l.Cancel(ctx)
	l.home.Load().Loop.Post(&cancelEnd{server: l, err: err})
}

type cancelEnd struct {
	server *Server
	err    error
}

func (c *cancelEnd) Run() {
	l := c.server
	l.cancels--
	if c.err != nil {
		l.worker.log().Warn("cancel request failed", attrPID(l), attrError(c.err))
	}
	l.astray = l.astray || c.err != nil
	switch {
	case l.cancels > 0:
	case l.session != nil:
		l.worker.Loop.Later((*continued)(l.session))
	case l.releasing && l.Attached():
		l.releasing = false
		l.release()
	}
}

// beingCancelled tells whether a cancel request is on its way that what is sent now must not meet.
func (l *Server) beingCancelled() bool { return l.cancels > 0 && l.Replies.Empty() }
