package session

import (
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/wire"
)

// sweepEvery is how often the limits of linked and closing servers are looked at. They are few (no more than the pool may
// have), so that no timer has to be armed for each transaction.
const sweepEvery = 250 * time.Millisecond

// sweeper ends what lasts too long. It runs only while there is something to watch.
type sweeper struct {
	worker *Worker
	timer  loop.Timer
}

// start makes the sweeper watch: a server that has been linked or is being closed, or clients that may be idle.
func (t *sweeper) start() {
	if !t.timer.Armed() {
		t.worker.Loop.Arm(&t.timer, sweepEvery, t)
	}
}

// Run implements loop.Task.
func (t *sweeper) Run() {
	w := t.worker
	now := w.Loop.Nanos()
	w.gauges.Shared.Store(int64(w.table.Len()))
	w.servers.each(func(l *Server) {
		switch {
		case l.watched:
			l.press(now)
		case l.leaving:
			l.hasten(now)
		case l.session != nil:
			l.session.enforce(now)
		}
	})
	if idle := int64(w.config.ClientIdleTimeout); idle > 0 {
		w.sessions.each(func(s *Session) { s.enforceIdle(now, idle) })
	}
	if w.servers.count > 0 || (w.config.ClientIdleTimeout > 0 && w.sessions.count > 0) {
		t.start()
	}
}

// watchIdle makes the sweeper watch clients if they have a limit.
func (w *Worker) watchIdle() {
	if w.config.ClientIdleTimeout > 0 && w.sessions.count > 0 {
		w.sweeper.start()
	}
}

// enforce applies the limits of queries and transactions to a linked session.
func (s *Session) enforce(now int64) {
	c, l := &s.worker.config, s.link
	if !s.is(touched) || s.phase != active || s.who.Mode == Replication {
		return
	}
	quiet := time.Duration(now - l.since)
	busy := !l.Replies.Empty()
	inBlock := l.Status != wire.Idle
	switch {
	case exceeds(c.QueryTimeout, quiet) && busy && exceeds(2*c.QueryTimeout+cancelTimeout, quiet):
		s.fatal(wire.Error{Code: "57014", Message: "the query exceeded query_timeout and could not be cancelled"})
	case exceeds(c.QueryTimeout, quiet) && busy:
		l.hurry(now) // the server answers with 57014, and the session lives on
	case exceeds(c.IdleTransactionTimeout, quiet) && !busy && inBlock:
		s.fatal(wire.Error{Code: "25P03", Message: "terminating connection due to idle_transaction_timeout"})
	case l.began != 0 && exceeds(c.TransactionTimeout, time.Duration(now-l.began)):
		s.fatal(wire.Error{Code: "25P04", Message: "terminating connection due to transaction_timeout"})
	case !busy && !inBlock && exceeds(c.ClientIdleTimeout, quiet):
		s.fatal(errIdle())
	}
}

func exceeds(limit, spent time.Duration) bool { return limit > 0 && spent > limit }

// enforceIdle closes a client without a server that has not asked for anything for too long.
func (s *Session) enforceIdle(now, limit int64) {
	if s.phase == active && s.link == nil && !s.waiting() && now-s.since > limit {
		s.fatal(errIdle())
	}
}

func errIdle() wire.Error {
	return wire.Error{Code: "57P05", Message: "terminating connection due to client.idle_timeout"}
}
