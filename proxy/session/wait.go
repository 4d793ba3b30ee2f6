package session

import (
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
)

// wait is what a session waits with: for a server, or for its client to read. Most sessions wait for nothing, and have none:
// idle clients are to cost little.
type wait struct {
	waiter pool.Waiter
	timer  loop.Timer // the limit of the wait
}

// spareWaits is how many unused waits a loop keeps at least: so many that those of a usual pod are never made anew, when now all
// of its clients wait and now none.
const spareWaits = 64

// patience returns what the session waits with, which it has until rest.
func (s *Session) patience() *wait {
	if s.wait != nil {
		return s.wait
	}
	w := s.worker
	if n := len(w.waits); n > 0 {
		s.wait, w.waits = w.waits[n-1], w.waits[:n-1]
	} else {
		s.wait = new(wait)
	}
	s.wait.waiter.Init((*granted)(s), w.Loop.Index())
	return s.wait
}

// rest gives up what the session waits with, unless it waits for a server. The loop keeps about as many as there are
// sessions that wait, so that under steady load none is allocated.
func (s *Session) rest() {
	t, w := s.wait, s.worker
	if t == nil || s.waiting() {
		return
	}
	w.Loop.Disarm(&t.timer)
	s.wait = nil
	switch n, enough := len(w.waits), spareWaits+int(w.gauges.Waiting.Load()); {
	case n < enough:
		w.waits = append(w.waits, t)
	case n > enough:
		w.waits[n-1] = nil
		w.waits = w.waits[:n-1]
	}
}

// waiting tells whether the session waits for a server, or for there to be one.
func (s *Session) waiting() bool { return s.wait != nil && s.wait.waiter.Waiting() || s.is(awaiting) }

// await begins a wait for a server.
func (s *Session) await() {
	s.since = loop.Nanos()
	s.worker.gauges.Waiting.Add(1)
	s.worker.Loop.Arm(&s.patience().timer, s.worker.config.AcquireTimeout, (*timedOut)(s))
}

// endWait follows the end of a wait for a server, whatever has ended it.
func (s *Session) endWait() {
	s.worker.gauges.Waiting.Add(-1)
	s.endAwaiting()
	s.rest()
	if s.conn.Blocked() {
		s.Stuck()
	}
}

// cancelWait ends a wait for a server without one.
func (s *Session) cancelWait() {
	if c := s.who.Pool.Cancel(&s.wait.waiter); c != nil {
		c.(*Server).returned(s.worker)
	}
	s.endWait()
	s.reads.found()
}

// Stuck is called by the loop: the client does not take what is for it, and has to have taken it within the write timeout.
func (s *Session) Stuck() {
	if t := s.patience(); !t.timer.Armed() {
		s.worker.Loop.Arm(&t.timer, s.worker.config.WriteTimeout, (*timedOut)(s))
	}
}
