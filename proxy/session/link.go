package session

import (
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// acquire asks the pool for a server. It returns nil when the session has to wait; takeGrant goes on then.
func (s *Session) acquire() *Server {
	if s.reads != nil {
		return s.acquireRead(false)
	}
	c, ok := s.who.Pool.Acquire(&s.patience().waiter)
	if !ok {
		s.await()
		return nil
	}
	s.rest()
	s.worker.Stats.Wait.Observe(0)
	return c.(*Server)
}

// acquirePrivate asks the pool for a server of the session's own; takeGrant goes on.
func (s *Session) acquirePrivate() {
	if s.reads != nil {
		s.acquireRead(false)
		return
	}
	s.await()
	s.who.Pool.AcquirePrivate(&s.wait.waiter, s.who.Login)
}

// giveUp ends a wait that has lasted too long.
func (s *Session) giveUp() {
	waited := time.Duration(loop.Nanos() - s.since)
	s.worker.log().Warn("no server connection became free in time", append(s.attrs(), attrWaited(waited))...)
	s.withdraw(errAcquireTimeout())
}

// withdraw ends a wait without a server, and tells the client why.
func (s *Session) withdraw(why wire.Error) {
	s.cancelWait()
	s.worker.Stats.Wait.Observe(time.Duration(loop.Nanos() - s.since))
	if s.phase == opening {
		s.fatal(why)
		return
	}
	s.refuse(why)
}

// takeGrant goes on with what the session has waited for.
func (s *Session) takeGrant() {
	if !s.waiting() {
		return // It has given up meanwhile.
	}
	c, err := s.wait.waiter.Take()
	if c == nil && err == nil {
		return
	}
	s.endWait()
	s.worker.Stats.Wait.Observe(time.Duration(loop.Nanos() - s.since))
	if err == nil {
		l := c.(*Server)
		if err = l.settleOn(s.worker); err == nil && !s.suits(l) {
			if !s.unsuited(l) {
				s.reacquire(true)
			}
			return
		}
		if err == nil {
			s.linkTo(l)
		}
	}
	switch {
	case err != nil && s.missedStandby(err):
	case err != nil && s.phase == opening:
		s.refuseLogin(err)
	case err != nil:
		s.worker.log().Warn("no server connection", append(s.attrs(), attrError(err))...)
		s.refuse(refusalFor(err))
	case s.phase == opening:
		s.opened()
	case s.is(resolving):
		s.askOutcome()
	default:
		s.resume()
	}
}

// linkTo gives the session a server.
func (s *Session) linkTo(l *Server) {
	w := s.worker
	s.link, l.session = l, s
	s.reads.found()
	if l.standby != nil {
		l.standby.Use(1)
	}
	s.tries()
	s.since = loop.Nanos()
	s.set(touched, false)
	l.attempt.begin()
	l.since = w.Loop.Nanos()
	l.consult()
	l.observed = s.virtual() && w.observes()
	l.seen = seen{}
	w.servers.add(l)
	w.gauges.Active.Add(1)
	w.sweeper.start()
}

// unlink takes the session's server away from it and returns it.
func (s *Session) unlink() *Server {
	l, w := s.link, s.worker
	if l.standby != nil {
		l.standby.Use(-1)
	}
	if s.reads != nil {
		s.noteRead(l)
	}
	s.link, l.session = nil, nil
	l.custom, l.resets = nil, nil
	l.endChange()
	l.causes.forget()
	l.commit = commitment{}
	s.deallocations = nil // portals end with their transaction
	w.servers.remove(l)
	w.gauges.Active.Add(-1)
	if s.is(touched) {
		w.Stats.Transaction.Observe(time.Duration(loop.Nanos() - s.since))
		l.traffic[w.Loop.Index()].Transactions.Inc()
	}
	s.set(touched|unwanted|wrote, false)
	s.since = w.Loop.Nanos()
	s.cancelPostponed()
	return l
}

// between tells whether the linked server has nothing more to do for the session: it is idle, owes nothing, and nothing of
// the client's or of its own is half forwarded.
func (s *Session) between() bool {
	l := s.link
	return l.Replies.Settled() && l.Status == wire.Idle && s.scan.Left() == 0 && l.Scan.Left() == 0
}

// settle looks, after replies have been delivered, whether the transaction is over, and lets the server go if it is.
func (s *Session) settle() {
	l := s.link
	if l == nil {
		return
	}
	s.tryNoMore()
	switch {
	case s.is(resolving):
		if l.Replies.Settled() && l.Status == wire.Idle {
			s.learn()
		}
		return
	case l.Replies.Unsure():
		s.probe()
		return
	case s.restore():
		return
	case s.is(stalled) && (l.Replies.Starving() || (l.Replies.Empty() && (!s.between() || !s.virtual()))):
		s.set(stalled, false)
		s.worker.Loop.Later((*continued)(s))
		return
	case !s.between():
		return
	case !s.virtual() || s.phase != active:
		s.settlePrivate()
		return
	}
	if s.endTrial() {
		return
	}
	s.tellNotes()
	if !s.judge() {
		return
	}
	waits := s.is(stalled)
	s.set(stalled, false)
	if s.pinned == nil && s.link != nil {
		s.unlink().giveBack()
	}
	if s.worker.draining {
		s.drain(&s.worker.Stats.DrainedFinished)
		return
	}
	if s.depart() {
		return
	}
	if waits || (s.conn.Unread() && !s.conn.Blocked()) {
		s.worker.Loop.Later((*continued)(s))
	}
}

func (s *Session) settlePrivate() {
	if s.worker.draining && s.phase == active {
		s.drain(&s.worker.Stats.DrainedFinished)
	}
}

// part takes the server away from a session that ends, whatever the server is doing.
func (s *Session) part(m manner) {
	clean := s.virtual() && s.pinned == nil && !s.effects.Has(audited|state.Unseen) && !state.Suspicious(s.effects)
	idle := s.between()
	untouched, unwanted := !s.is(touched), s.is(unwanted)
	torn := s.is(touched) && (s.scan.Left() > 0 || s.who.Mode == Replication) // whose messages are not looked at
	s.noteSequences()
	l := s.unlink()
	l.torn = torn
	s.unpin()
	s.effects = 0
	switch {
	case untouched && l.Replies.Settled() && s.virtual():
		l.release()
	case idle && clean && l.Replies.Settled():
		l.giveBack()
	case idle || (m == polite && !unwanted) || l.Replies.Settled():
		l.retire("client left")
	default:
		l.cancelAndRetire()
	}
}

// cancelQuery does what a cancel request asks for. What has not begun is refused; what the server is doing it is asked to
// end.
func (s *Session) cancelQuery(done func()) {
	l := s.link
	switch {
	case s.phase != active:
	case s.waiting():
		s.withdraw(errCancelled())
	case l == nil || l.Replies.Empty():
	case l.Replies.Head().Purpose == 0:
		s.set(unwanted, true)
		l.cancel(done)
		return
	case l.Replies.Len() > 1 && s.postponed == nil:
		s.postponed = done // until the proxy's own request is over, and the client's turn comes
		return
	}
	done()
}

// cancelPostponed does what a cancel request has asked for that met a request of the proxy's own.
func (s *Session) cancelPostponed() {
	if done := s.postponed; done != nil {
		s.postponed = nil
		s.cancelQuery(done)
	}
}
