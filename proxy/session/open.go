package session

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// longestClientWhole bounds what is held in memory of one message from a client. A longer Parse or Query is streamed; what
// it does to the session is then not known, and its statement exists on one server only.
const longestClientWhole = 1 << 20

// ProtocolLongKeys is the first protocol version whose cancel keys may be longer than four bytes.
const ProtocolLongKeys = 3<<16 | 2

// admission brings a logged-in client to its loop.
type admission struct {
	worker    *Worker
	transport loop.Transport
	who       *Client
}

// Admit hands a client whose authentication has succeeded to the worker. It may be called from any goroutine. It reports
// false when the loop has stopped; the transport is still the caller's then.
func (w *Worker) Admit(t loop.Transport, who *Client) bool {
	return w.Loop.Post(&admission{worker: w, transport: t, who: who})
}

func (a *admission) Run() {
	w := a.worker
	s := newSession(w, a.who)
	s.since = loop.Nanos()
	w.sessions.add(s)
	w.watchIdle()
	w.gauges.Clients.Add(1)
	if !s.attach(a.transport) {
		return
	}
	if w.draining {
		s.fatal(errDraining())
		return
	}
	s.open()
}

// attach puts the client's connection on the loop. It reports false when that is impossible, and has ended the session then.
func (s *Session) attach(t loop.Transport) bool {
	if err := s.worker.Loop.Attach(&s.conn, t, s); err != nil {
		_ = t.Close()
		s.worker.log().Error("cannot serve client", append(s.attrs(), attrError(err))...)
		s.end()
		return false
	}
	return true
}

// open gets what the welcome needs: what the server reports under the client's settings.
func (s *Session) open() {
	if !s.virtual() {
		s.acquirePrivate()
		return
	}
	s.startup = s.worker.shared.Settings.Intern(s.who.Settings)
	s.settings = s.startup
	s.worker.shared.Custom.learn(s.startup)
	if known, ok := s.worker.shared.Welcomes.get(s.welcoming(), s.startup); ok {
		s.startup, s.settings = known.settings, known.settings
		s.welcome(known.parameters, 0)
		return
	}
	if l := s.acquire(); l != nil {
		s.linkTo(l)
		s.opened()
	}
}

// opened goes on with a login that has got a server.
func (s *Session) opened() {
	l := s.link
	if !s.virtual() {
		s.set(touched, true)
		s.welcome(appendParameters(nil, l.Parameters()), l.PID)
		return
	}
	w := s.worker
	e := edit{out: w.toServer[:0]}
	if !s.replay(&e, 0, purposeOpen) {
		s.introduce()
		return
	}
	w.toServer = keepBuffer(e.out)
	s.send(e.result(0))
}

// startOnly is what a server answers to the SET of a parameter that cannot change after the start of a connection.
const startOnly = "55P02"

// openOwn goes on with a login whose settings no server of the pool can be given: it gets one of its own, as in session mode.
func (s *Session) openOwn(why string) {
	own := *s.who
	own.Mode, own.Settings = WholeSession, nil
	s.who, s.startup, s.settings = &own, nil, nil
	s.pin(0, pinStartup, why, endless)
	s.open()
}

// introduce sends the welcome of a client whose settings the linked server has, and lets the server go. The first time
// that somebody comes with these settings, the server is asked how it spells them, so that equal settings are one set
// whoever has made them.
func (s *Session) introduce() {
	l, came := s.link, s.startup
	if came != nil && !l.audited && l.refused != purposeAudit {
		s.audit()
		return
	}
	if l.audited {
		s.adopt()
		s.startup = s.settings
	}
	parameters := appendParameters(nil, l.Parameters())
	s.worker.shared.Welcomes.put(l.pool, came, welcome{settings: s.startup, parameters: parameters})
	s.welcome(parameters, 0)
	if s.phase == active {
		s.settle()
	}
}

// welcome ends the login. pid is the process id that the client sees, 0 for a random one.
func (s *Session) welcome(parameters []byte, pid uint32) {
	w := s.worker
	key, err := w.shared.Keys.Add(s, pid, s.who.Protocol >= ProtocolLongKeys)
	if err != nil {
		w.log().Error("cannot make cancel key", append(s.attrs(), attrError(err))...)
		s.fatal(errInternal())
		return
	}
	s.key = key
	s.phase = active
	s.who = w.alike(s.who.Profile) // without what the login needed: idle clients are to cost little
	b := wire.AppendKey(slices.Concat(w.local[:0], parameters), key.PID(), key.Secret())
	b = wire.AppendReadyForQuery(b, wire.Idle)
	w.local = keepBuffer(b)
	s.tell(b)
	w.Loop.Later((*continued)(s)) // what came in meanwhile
}

// Welcomes remembers what servers report under the settings that clients have come with, so that a login needs no server.
// What a server reports differently, at its login or at any later time, makes all of its pool's forgotten. Any goroutine
// may use it.
type Welcomes struct {
	mu struct { // held for map accesses
		sync.Mutex
		pools map[*pool.Pool]*reported
	}
}

type reported struct {
	base    map[string]string           // what the latest new connection reported
	servers int                         // connections that are open
	known   map[*state.Settings]welcome // by what clients have come with
}

// welcome is what a client is told that comes with certain settings, and what these are in the server's spelling.
type welcome struct {
	settings   *state.Settings
	parameters []byte // ParameterStatus messages
}

// maxWelcomes bounds what is remembered of one pool.
const maxWelcomes = 1000

func newWelcomes() *Welcomes {
	w := new(Welcomes)
	w.mu.pools = make(map[*pool.Pool]*reported)
	return w
}

func (w *Welcomes) get(p *pool.Pool, came *state.Settings) (welcome, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.mu.pools[p]
	if r == nil {
		return welcome{}, false
	}
	known, ok := r.known[came]
	return known, ok
}

func (w *Welcomes) put(p *pool.Pool, came *state.Settings, known welcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.mu.pools[p]; r != nil && r.servers > 0 {
		if len(r.known) >= maxWelcomes {
			clear(r.known)
		}
		r.known[came] = known
	}
}

// connected takes what a new connection reports.
func (w *Welcomes) connected(p *pool.Pool, parameters map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.mu.pools[p]
	if r == nil {
		r = &reported{known: make(map[*state.Settings]welcome)}
		w.mu.pools[p] = r
	}
	r.servers++
	if !maps.Equal(r.base, parameters) {
		r.base = parameters
		clear(r.known)
	}
}

// disconnected notes that a connection has ended. When it was the last one, nothing is known of the server any more.
func (w *Welcomes) disconnected(p *pool.Pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := w.mu.pools[p]
	if r == nil {
		return
	}
	if r.servers--; r.servers <= 0 {
		delete(w.mu.pools, p)
	}
}

// changed notes that a server has reported a new value on its own.
func (w *Welcomes) changed(p *pool.Pool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.mu.pools[p]; r != nil {
		clear(r.known)
	}
}

// refuseLogin tells a client that has no server yet why it gets none.
func (s *Session) refuseLogin(err error) {
	var answer wire.Error
	held, _ := errors.AsType[*pool.HeldError](err)
	switch e := serverError(err); {
	case held != nil:
		answer = errHeld(held.Why)
	case e != nil:
		answer = wire.Error{Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
	case errors.Is(err, pool.ErrUnavailable):
		answer = errUnavailable()
	default:
		answer = errServerLost()
	}
	s.worker.log().Warn("login failed: no server connection", append(s.attrs(), attrError(err))...)
	s.fatal(answer)
}

var _ cancel.Target = (*Session)(nil)
