package session

import (
	"errors"
	"math/rand/v2"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/standby"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// Some clients have their transactions run on standbys. Which server it is to be is decided for each transaction, when the
// session asks a pool for a connection: settings and prepared statements come along wherever it goes.
//
// A session that has waited for a connection, or got a fresh one, looks again whether that shows what its client has to see
// (standby.Shows): only then it is linked.

// Route says which servers a client's transactions run on, in libpq's words for target_session_attrs.
type Route uint8

// Routes.
const (
	Primary       Route = iota
	StandbyOnly         // standbys; it waits for one as others do for the primary
	PreferStandby       // a standby, or the primary where there is none that will do
	AnyServer           // whichever
	Auto                // a standby for what seems to read only, outside of a block; the primary for the rest
)

// Consistency is what a client that reads from standbys is certain to see.
type Consistency uint8

// Levels of consistency.
const (
	SessionConsistency Consistency = iota // what it has written, and what it has read before
	EventualConsistency
	StrictConsistency // that, and what was committed through the proxy before its transaction began
)

// reads is what a session remembers whose transactions may run on standbys.
type reads struct {
	needs   standby.Needs
	byText  bool // whether a transaction may run on a standby depends on what it begins with:
	reading bool // the one that the session wants a server for may

	trial  trial
	again  bool             // what is read next from the client has been put back, and runs on the primary
	learn  bool             // and is to be run there from then on
	chosen *standby.Standby // for the connection asked for last; nil: the primary
	pool   *pool.Pool       // that of chosen for the client
	until  int64            // when the wait for a standby ends, 0: it does not wait

	astray   int64         // since when it has read on the primary, because that shows more than standbys do; 0: it has not
	patience time.Duration // how long it may be so before it waits
}

// newReads returns what a client's session begins with; nil: it reads from the primary.
func (w *Worker) newReads(who *Client) *reads {
	switch {
	case who.private() && (who.Route == Primary || who.Route == Auto):
		return nil
	case who.Route != Primary && who.Route != Auto:
		return new(reads)
	case w.config.ReadOnlyTransactions || who.Route == Auto:
		return &reads{byText: true}
	}
	return nil
}

// found ends the wait for a standby.
func (r *reads) found() {
	if r != nil {
		r.until = 0
	}
}

// lost notes that the server it last read from may have been started anew since.
func (r *reads) lost() {
	if r != nil {
		r.needs.On = nil
	}
}

// needs returns what the next transaction has to see.
func (s *Session) needs() standby.Needs {
	n := s.reads.needs
	switch s.worker.config.Consistency {
	case EventualConsistency:
		return standby.Needs{}
	case StrictConsistency:
		n.Wrote = max(n.Wrote, s.worker.shared.wrote.Load())
	case SessionConsistency:
	}
	return n
}

// choose returns the pool for the next transaction; nil: there is none yet. primary keeps it from standbys where the route has
// another choice.
func (s *Session) choose(primary bool) *pool.Pool {
	r, route := s.reads, s.who.Route
	r.chosen = nil
	if s.is(resolving) || primary && route != StandbyOnly || r.byText && !r.reading {
		return s.who.Pool
	}
	needs := s.needs()
	if route == AnyServer && s.primaryByChance(needs) {
		s.worker.Stats.ReadsByChance.Inc()
		return s.who.Pool
	}
	b, fit := s.worker.shared.Standbys.Choose(needs)
	if b != nil {
		r.use(b, s.who.Pool)
		return r.pool
	}
	if fit.Behind > 0 {
		s.worker.shared.Suspect() // has positions looked at more often
	}
	if route == StandbyOnly || fit.Behind > 0 && s.comesBack(needs) {
		return nil
	}
	if fit.Behind > 0 {
		s.worker.Stats.ReadsBehind.Inc()
	} else {
		s.worker.Stats.ReadsNone.Inc()
	}
	return s.who.Pool
}

// primaryByChance tells whether it is the primary's turn among all servers. Who reads on the primary has to stay there until a
// standby has come as far, so that only those go there who could go anywhere.
func (s *Session) primaryByChance(needs standby.Needs) bool {
	needs.On = nil
	b, fit := s.worker.shared.Standbys.Choose(needs)
	return b != nil && rand.IntN(fit.Standbys+1) == 0 //nolint:gosec // Spreads the load; nothing secret.
}

// welcoming returns the pool whose servers' parameters a client that logs in is told. Who asks for a standby looks at them to see
// that it is one.
func (s *Session) welcoming() *pool.Pool {
	if s.who.Route == StandbyOnly {
		if p := s.choose(false); p != nil {
			return p
		}
	}
	return s.who.Pool
}

// use makes the standby the one that is asked for a connection.
func (r *reads) use(b *standby.Standby, as *pool.Pool) {
	if r.pool == nil || r.pool.Target() != b.Target {
		r.pool = b.Target.Pool(as.Database(), as.User())
	}
	r.chosen, r.astray, r.patience = b, 0, 0
}

// Who reads on the primary without a pause sees more and more there, which no standby shows yet at that moment. Now and then such
// a session waits for one, so that it does not stay for ever.
const (
	minPatience = time.Second // how long it reads on the primary before it waits, at first; doubled by each wait in vain
	maxPatience = time.Minute
	longestWait = 100 * time.Millisecond
)

// comesBack tells whether the session is to wait now for a standby that shows what it has read on the primary.
func (s *Session) comesBack(needs standby.Needs) bool {
	r, now := s.reads, loop.Nanos()
	switch {
	case needs.On != nil || needs.Read == 0:
		return false
	case r.until != 0:
		return now < r.until
	case r.astray == 0:
		r.astray, r.patience = now, max(r.patience, minPatience)
		return false
	case now-r.astray < int64(r.patience):
		return false
	}
	r.until = now + int64(longestWait)
	return true
}

// gaveUp ends the wait for a standby.
func (s *Session) gaveUp() {
	if s.who.Route == StandbyOnly {
		s.withdraw(errNoStandby())
		return
	}
	r := s.reads
	r.until, r.astray, r.patience = 0, loop.Nanos(), min(2*r.patience, maxPatience)
	s.endWait()
	s.reacquire(true)
}

// suits tells whether a connection that the session was given shows what its client has to see.
func (s *Session) suits(l *Server) bool {
	return s.reads == nil || l.standby == nil || l.standby.Shows(s.needs(), l.life)
}

// acquireRead asks a pool of the session's route for a server. It returns nil when the session has to wait.
func (s *Session) acquireRead(primary bool) *Server {
	for {
		p := s.choose(primary)
		if p == nil {
			s.awaitStandby()
			return nil
		}
		if !s.virtual() {
			s.await()
			p.AcquirePrivate(&s.wait.waiter, s.who.Login)
			return nil
		}
		c, ok := p.Acquire(&s.patience().waiter)
		if !ok {
			s.await()
			return nil
		}
		l := c.(*Server)
		if s.suits(l) {
			s.rest()
			s.worker.Stats.Wait.Observe(0)
			return l
		}
		if s.unsuited(l) {
			return nil
		}
		primary = true
	}
}

// unsuited gives a connection back that does not show what is needed. It reports whether the session waits for a standby that
// does, as it may not go to the primary.
func (s *Session) unsuited(l *Server) bool {
	if l.standby.Outdated(l.life) {
		l.retire("standby may have been started anew")
	} else {
		l.release()
	}
	s.worker.shared.Suspect()
	if s.who.Route == StandbyOnly {
		s.awaitStandby()
		return true
	}
	s.worker.Stats.ReadsBehind.Inc()
	return false
}

// reacquire asks anew, after what the session has waited for has not come, or will not do.
func (s *Session) reacquire(primary bool) {
	l := s.acquireRead(primary)
	if l == nil {
		return
	}
	s.linkTo(l)
	if s.phase == opening {
		s.opened()
	} else {
		s.resume()
	}
}

// missedStandby goes on after a standby has not given a connection: elsewhere, unless the client is to be told why. It reports
// whether it does.
func (s *Session) missedStandby(why error) bool {
	if s.reads == nil || s.reads.chosen == nil {
		return false
	}
	if s.who.Route != StandbyOnly {
		s.worker.Stats.ReadsNone.Inc()
		s.reacquire(true)
		return true
	}
	held, _ := errors.AsType[*pool.HeldError](why)
	if held == nil && !errors.Is(why, pool.ErrClosed) && !errors.Is(why, pool.ErrUnavailable) {
		return false
	}
	s.awaitStandby()
	return true
}

// awaitStandby leaves the client unread until a standby will do, as long as others wait for the primary.
func (s *Session) awaitStandby() {
	r, now := s.reads, loop.Nanos()
	if r.until == 0 {
		r.until = now + int64(s.worker.config.Hold)
	}
	s.await()
	s.set(awaiting, true)
	s.worker.gauges.Awaiting.Add(1)
	t := &s.patience().timer
	s.worker.Loop.Disarm(t)
	s.worker.Loop.Arm(t, max(time.Duration(r.until-now), time.Millisecond), (*timedOut)(s))
}

// endAwaiting follows the end of a wait.
func (s *Session) endAwaiting() {
	if s.is(awaiting) {
		s.set(awaiting, false)
		s.worker.gauges.Awaiting.Add(-1)
	}
}

// CutOff ends all connections to a standby that does not answer any more. It may be called from any goroutine.
func (w *Worker) CutOff(b *standby.Standby) {
	w.Loop.Post(&cut{worker: w, why: errLostStandby, hits: func(l *Server) bool { return l.standby == b }})
}

// LookForStandbys has sessions that wait for a standby look again. It may be called from any goroutine.
func (w *Worker) LookForStandbys() {
	if w.gauges.Awaiting.Load() > 0 {
		w.Loop.Post((*standbySearch)(w))
	}
}

type standbySearch Worker

func (x *standbySearch) Run() {
	w := (*Worker)(x)
	w.sessions.each(func(s *Session) {
		if s.is(awaiting) {
			s.endWait()
			s.reacquire(false)
		}
	})
}

// does takes note of the effects of what is about to be sent.
func (s *Session) does(effects state.Effect) {
	s.effects |= effects
	if effects.Has(mayWrite) {
		s.set(wrote, true)
	}
}

// mayWrite are the effects of texts after which a transaction may have changed what others see.
const mayWrite = state.Write | state.DDL | state.Copy | state.Sequence | state.Notify | state.PrepareTransaction | state.Opaque |
	state.Suspect

// noteRead takes note of what the client has seen and written, right before its server is taken away from it. The time has to be
// that of now: what it has been told was true before.
func (s *Session) noteRead(l *Server) {
	s.reads.trial.on = false
	n, now := &s.reads.needs, loop.Nanos()
	switch {
	case !s.is(touched):
	case l.standby != nil:
		n.Read, n.On = now, l.standby
	case s.is(wrote):
		n.Wrote = now
	default:
		n.Read, n.On = now, nil
	}
}

// noteWrite takes note, for everybody, that something may have been committed, before the client is told.
func (s *Session) noteWrite(l *Server) {
	if s.worker.config.Consistency != StrictConsistency || l.standby != nil || (s.virtual() && !s.is(wrote)) {
		return
	}
	s.worker.shared.noteWrite(loop.Nanos())
}

// noteWrite notes that something may have been committed until now.
func (s *Shared) noteWrite(now int64) {
	for before := s.wrote.Load(); before < now && !s.wrote.CompareAndSwap(before, now); before = s.wrote.Load() {
	}
}

// errNoStandby is for a client whose route leads to standbys only.
func errNoStandby() wire.Error {
	return wire.Error{
		Code: "57P03", Message: "no standby can be read from, and this transaction has waited for failover.hold",
		Hint: "Try again: the proxy goes on as soon as there is one. /status says why each standby is not used.",
	}
}
