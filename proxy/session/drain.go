package session

import "pgsidecar/proxy/stats"

// Drain makes every session of the worker end at its next transaction boundary; those that are between transactions, or
// wait for a server to begin one, end now. It may be called from any goroutine.
func (w *Worker) Drain() { w.Loop.Post((*drain)(w)) }

// Abort ends every session now, and closes the servers that they use. It may be called from any goroutine.
func (w *Worker) Abort() { w.Loop.Post((*abort)(w)) }

type (
	drain Worker
	abort Worker
)

func (d *drain) Run() {
	w := (*Worker)(d)
	w.draining = true
	w.sessions.each(func(s *Session) {
		if s.is(resolving) {
			return // it ends when its client has been told
		}
		if s.link == nil || (s.phase == active && (!s.is(touched) || s.between())) {
			s.drain(&w.Stats.DrainedIdle)
		}
	})
}

// drain ends a session for the proxy's end, and counts how it was met.
func (s *Session) drain(as *stats.Counter) {
	if s.phase < closing {
		as.Inc()
	}
	s.fatal(errDraining())
}

func (a *abort) Run() {
	w := (*Worker)(a)
	w.draining = true
	w.sessions.each(func(s *Session) {
		if s.phase == closing {
			s.end()
			return
		}
		if s.link != nil && s.is(touched) && !s.between() {
			s.drain(&w.Stats.DrainedCut)
		} else {
			s.drain(&w.Stats.DrainedIdle)
		}
		if s.phase == closing {
			s.end()
		}
	})
	w.servers.each(func(l *Server) {
		if l.leaving && l.cancels == 0 { // what is being cancelled ends at once, and would run on if we were not here to cancel it
			l.finish()
		}
	})
}
