package session

import (
	"bytes"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// Mode is how long a session keeps its server.
type Mode uint8

// Pool modes, and Replication for walsender connections, which keep theirs as in session mode but speak what is not framed
// here.
const (
	Transaction Mode = iota
	Statement        // as Transaction, but transaction blocks are refused
	WholeSession
	Replication
)

type phase uint8

const (
	opening phase = iota // logged in, but ReadyForQuery has not been sent
	active
	moving  // on the way to another process or from one; nobody reads or writes it meanwhile
	closing // the last bytes for the client are on their way
	ended
)

// Session is one client. Its loop's goroutine alone uses it; cancel requests are posted there.
type Session struct {
	conn   loop.Conn
	scan   wire.Scanner // of what the client sends
	worker *Worker
	who    *Client
	link   *Server // the server that it is linked to, or nil
	wait   *wait   // what it waits with, or nil
	links  links[Session]
	key    cancel.Key

	startup   *state.Settings      // the settings it has come with
	settings  *state.Settings      // those that it has now
	names     *statement.Names     // its named prepared statements; nil: none yet
	unnamed   *statement.Statement // its unnamed one
	effects   state.Effect         // of what it has run since it was linked
	pinned    *pin                 // why it keeps its server, or nil
	sequences *Server              // where it may have used a sequence last, or nil
	listening *listening           // what it listens to, or nil
	refusal   *wire.Error          // what its requests are answered with, up to the next Sync or for one Query
	since     int64                // loop.Nanos of the beginning of a wait or of the link; without either, of the last request
	phase     phase
	reruns    uint8 // how often the request at hand has been made again
	flags     flags

	deallocations map[string]deallocation // by portal; nil: none

	transit *transit // nil unless it is moving

	reads *reads // nil: it reads from the primary

	postponed func() // ends a cancel request that waits for the client's turn; nil: none

	unconfirmed int32  // entries in the reply queue that change names
	rereads     uint32 // numbers what the reading has become since the transaction began; 0: it is that of settings
}

type flags uint32

const (
	touched    flags = 1 << iota // something has been sent to the linked server on the client's behalf
	dropping                     // the rest of a client's message is dropped
	stalled                      // the next message waits until the server owes nothing
	hungUp                       // the client's side is closed or broken: read it out
	refused                      // the refusal has been told; what follows is dropped up to Sync
	undone                       // an error, or a ROLLBACK, since the transaction began
	committed                    // a COMMIT since then
	partial                      // the client has got only a part of a message from the server
	forgetting                   // a command that forgets statements or settings is on its way
	retelling                    // the client has to be told of its startup settings: DISCARD ALL
	unwanted                     // the client has asked for what the server is doing to be cancelled
	stays                        // it has not been taken by another process
	orphaned                     // the server has been lost in a transaction block that the client has not ended
	wrote                        // what it has run since it was linked may have changed what others see
	awaiting                     // it waits for a standby that will do
	resolving                    // what has become of its COMMIT is being looked up; it is not read meanwhile
)

func (s *Session) is(f flags) bool { return s.flags&f != 0 }

func (s *Session) set(f flags, on bool) {
	if on {
		s.flags |= f
	} else {
		s.flags &^= f
	}
}

func newSession(w *Worker, who *Client) *Session {
	return &Session{worker: w, who: who, reads: w.newReads(who), scan: wire.MakeScanner(w.shared.clients, longestClientWhole)}
}

func (s *Session) ringLinks() *links[Session] { return &s.links }

// virtual tells whether the session's prepared statements and settings are its own, whatever server it is linked to.
func (s *Session) virtual() bool { return !s.who.private() }

// Tasks of a session. They are the session under another name, so that queueing one allocates nothing.
type (
	granted   Session // the pool has decided
	continued Session // go on reading the client
	timedOut  Session // the timer has run out
)

// Granted is called by the pool from any goroutine.
func (g *granted) Granted() { (*Session)(g).worker.Loop.Post(g) }

func (g *granted) Run()   { (*Session)(g).takeGrant() }
func (c *continued) Run() { (*Session)(c).resume() }
func (t *timedOut) Run()  { (*Session)(t).timeOut() }

// cancellation is a cancel request with the session's key that has come in.
type cancellation struct {
	session *Session
	done    func()
	looked  bool // what the client has sent before the request has been read
}

func (c *cancellation) Run() {
	if t := c.session.transit; t != nil {
		t.cancels = append(t.cancels, c)
		return
	}
	if s := c.session; !c.looked && s.quiet() {
		c.looked = true
		s.worker.Loop.Later(c) // which is after a look at the connections
		return
	}
	c.session.cancelQuery(c.done)
}

// quiet tells whether the client has asked for nothing, as far as has been read.
func (s *Session) quiet() bool {
	return s.phase == active && !s.waiting() && (s.link == nil || s.link.Replies.Empty())
}

// CancelRequested implements cancel.Target.
func (s *Session) CancelRequested(done func()) {
	if !s.worker.Loop.Post(&cancellation{session: s, done: done}) {
		done()
	}
}

// Readable is called by the loop.
func (s *Session) Readable(hangup bool) {
	if hangup {
		s.set(hungUp, true)
	}
	switch s.phase {
	case active:
		if hangup && s.waiting() && !s.saidGoodbye() {
			s.leave(impolite) // nobody is there for the answer; what it has asked for has not begun
			return
		}
		s.pump()
	case opening:
		if hangup {
			s.leave(impolite)
		}
	case closing:
		if hangup {
			s.end()
		}
	case moving, ended:
	}
}

// farewell bounds how much of a client that has closed its side is read while it waits for a server, in bytes.
const farewell = 64 << 10

// saidGoodbye tells whether a client that has closed its side has said Terminate last. Then what it has asked for before is
// done even though nobody is there for the answer, as PostgreSQL does. One that has sent more than is looked at may have.
func (s *Session) saidGoodbye() bool {
	for s.conn.Kept() < farewell {
		buf, err := s.conn.Read()
		if err == nil {
			s.conn.Keep(buf)
			continue
		}
		said := s.conn.TakeKept()
		s.conn.Keep(said)
		return bytes.HasSuffix(said, wire.AppendEmpty(nil, wire.Terminate))
	}
	return true
}

// Drained is called by the loop.
func (s *Session) Drained() {
	s.rest()
	switch {
	case s.phase == closing:
		s.end()
	case s.link != nil && s.link.Unread():
		s.worker.Loop.Later((*delivered)(s.link))
	}
	if s.phase == active {
		s.pump()
	}
}

// tell writes to the client. What it does not take at once bounds the reading of what is for it, and has to be gone within
// the write timeout.
func (s *Session) tell(b []byte) {
	if len(b) == 0 {
		return
	}
	s.worker.Stats.BytesToClients.Add(uint64(len(b)))
	if err := s.conn.Write(b); err != nil {
		s.set(hungUp, true)
		s.worker.Loop.Later((*continued)(s)) // reading finds the end
		return
	}
	if s.conn.Blocked() {
		s.Stuck()
	}
}

// timeOut ends a wait that has lasted too long.
func (s *Session) timeOut() {
	switch {
	case s.phase == ended:
	case s.is(awaiting):
		s.gaveUp()
	case s.waiting():
		s.giveUp()
	case s.conn.Blocked():
		s.worker.log().Warn("client reads nothing: closed", s.attrs()...)
		s.leave(impolite)
	}
}

// manner is how a session leaves its server.
type manner uint8

const (
	polite   manner = iota // the client has said Terminate: what it asked for is still done
	impolite               // the client is gone: what it asked for is cancelled
)

// fatal tells the client why its session ends, and ends it.
func (s *Session) fatal(e wire.Error) {
	if s.phase == ended || s.phase == closing {
		return
	}
	e.Severity = "FATAL"
	s.worker.shared.Errors.Add([]byte(e.Code), fromProxy)
	if !s.is(partial) && (s.who.Mode != Replication || s.phase == opening) { // only between two messages
		s.tell(wire.AppendError(nil, e))
	}
	s.finish(impolite)
}

// finish gives up the server and closes the client once the last bytes have gone.
func (s *Session) finish(m manner) {
	if s.phase == ended {
		return
	}
	s.abandon(m)
	if s.conn.Flush() == nil && s.conn.Blocked() && !s.is(hungUp) {
		s.phase = closing
		return
	}
	s.end()
}

// leave ends the session at once: the client is not there any more.
func (s *Session) leave(m manner) {
	if s.phase == ended {
		return
	}
	s.abandon(m)
	s.end()
}

// abandon parts the session from the pool and from its server.
func (s *Session) abandon(m manner) {
	if s.waiting() {
		s.cancelWait()
	}
	if s.link != nil {
		s.part(m)
	}
}

// end closes the client's connection and forgets the session.
func (s *Session) end() {
	w := s.worker
	s.rest()
	s.forgetResolution()
	s.unlistenEverything()
	s.unpin() // if it has not got a server yet
	s.phase = ended
	w.shared.Keys.Remove(s.key)
	w.sessions.remove(s)
	w.gauges.Clients.Add(-1)
	if s.names != nil {
		w.gauges.Names.Add(-int64(s.names.Len()))
	}
	w.shared.Ended(s.who)
	s.conn.Close() // last: who sees it and connects again finds the place free
}
