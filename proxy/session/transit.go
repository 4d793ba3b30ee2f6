package session

import (
	"time"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
)

// A session can move to another process between two transactions. Here it is frozen from its Departure until it is known
// whether the other process has taken it; there it begins with an Arrival. What it misses meanwhile is done afterwards, by
// whoever has it then.

// transit is what a session has to remember while it is on the way, in either process.
type transit struct {
	cancels []*cancellation // that have come in meanwhile
}

// Mover takes sessions to another process.
type Mover interface {
	// Move is called on the session's loop and must not block. Taken or Stay of the Departure is called in the end, once.
	Move(d *Departure)
}

// moveEvery is how often sessions are looked at that could not move when it was asked for: most do when their transaction
// ends, but some wait for something else.
const moveEvery = 20 * time.Millisecond

// HandOver makes every session move as soon as it can; nil: none any more. It may be called from any goroutine.
func (w *Worker) HandOver(m Mover) { w.Loop.Post(&departures{worker: w, mover: m}) }

type departures struct {
	worker *Worker
	mover  Mover
	timer  loop.Timer
}

// Run implements loop.Task.
func (d *departures) Run() {
	w := d.worker
	if w.departures != d {
		if w.departures != nil {
			w.Loop.Disarm(&w.departures.timer)
		}
		w.departures = d
		w.sessions.each(func(s *Session) { s.set(stays, false) })
	}
	if d.mover == nil {
		w.departures = nil
		return
	}
	w.sessions.each(func(s *Session) { s.depart() })
	w.Loop.Arm(&d.timer, moveEvery, d)
}

// Departure is a session on its way to another process. Its socket is open in both until one of them closes it.
type Departure struct {
	Image      Image
	Descriptor int

	session   *Session
	transport loop.Transport
}

// depart lets the session go to another process, if that is asked for and it can go now. It reports whether it goes.
func (s *Session) depart() bool {
	w := s.worker
	if w.departures == nil || !s.movable() {
		return false
	}
	if s.waiter.Waiting() {
		s.abandon(polite)
	}
	if s.link != nil {
		s.unlink().release()
	}
	w.Loop.Disarm(&s.timer)
	d := &Departure{session: s, Image: s.image(), transport: s.conn.Detach()}
	d.Descriptor, d.Image.Kept, d.Image.Unsent, _ = d.transport.Passing()
	s.phase, s.transit = moving, new(transit)
	w.departures.mover.Move(d)
	return true
}

// movable tells whether all there is of the session is in its image: it owes nothing, is owed nothing, and nothing of it is
// half read or half written.
func (s *Session) movable() bool {
	switch {
	case s.phase != active || !s.virtual() || s.is(stays|hungUp|partial|stalled|orphaned) || s.conn.IsTLS():
		return false
	case s.link != nil && (s.is(touched) || !s.between() || s.link.cancels > 0):
		return false
	}
	return s.pinned == nil && s.refusal == nil && s.scan.Left() == 0 && s.listening == nil
}

// Taken says that the other process has the session. It may be called from any goroutine.
func (d *Departure) Taken() { d.conclude((*crossed)(d)) }

// Stay says that the other process does not have it. It may be called from any goroutine.
func (d *Departure) Stay() { d.conclude((*stayed)(d)) }

func (d *Departure) conclude(t loop.Task) {
	if !d.session.worker.Loop.Post(t) {
		_ = d.transport.Close() // The loop has ended, and the session with it.
	}
}

type (
	crossed Departure
	stayed  Departure
)

func (t *crossed) Run() {
	s := t.session
	w := s.worker
	if s.phase == moving {
		cancels, key := s.transit.cancels, s.key
		s.transit = nil
		w.Stats.HandedOver.Inc()
		s.end()
		for _, c := range cancels {
			w.shared.CancelElsewhere(key, c.done)
		}
	}
	_ = t.transport.Close()
}

func (t *stayed) Run() {
	s := t.session
	w := s.worker
	if s.phase != moving {
		_ = t.transport.Close() // It has been ended meanwhile.
		return
	}
	cancels := s.transit.cancels
	s.phase, s.transit = active, nil
	s.set(stays, true)
	if err := w.Loop.Attach(&s.conn, t.transport, s); err != nil {
		_ = t.transport.Close()
		w.log().Error("cannot serve client", append(s.attrs(), attrError(err))...)
		s.end()
	} else {
		s.proceed()
	}
	for _, c := range cancels {
		c.Run()
	}
}

// proceed goes on with a session whose connection has just been attached again.
func (s *Session) proceed() {
	w := s.worker
	if s.conn.Blocked() {
		w.Loop.Arm(&s.timer, w.config.WriteTimeout, (*timedOut)(s))
	}
	if w.draining {
		s.drain(&w.Stats.DrainedIdle)
		return
	}
	w.Loop.Later((*continued)(s))
}

// Arrival is a session on its way from another process. Enter or Discard is due, once, from any goroutine.
type Arrival struct {
	session   *Session
	image     *Image
	transport loop.Transport
}

// Arrive prepares a session of an image. From now on it can be found by its cancel key. It may be called from any goroutine.
func (w *Worker) Arrive(i *Image, who *Client) (*Arrival, error) {
	s := newSession(w, who)
	s.phase, s.transit = moving, new(transit)
	key, err := w.shared.Keys.Restore(i.PID, i.Secret, s)
	if err != nil {
		return nil, err
	}
	s.key = key
	return &Arrival{session: s, image: i}, nil
}

// Discard forgets the session: the other process keeps it.
func (a *Arrival) Discard() { a.session.worker.shared.Keys.Remove(a.session.key) }

// Enter brings the session to its loop, with its socket. It reports false when the loop has stopped; the transport is still
// the caller's then.
func (a *Arrival) Enter(t loop.Transport) bool {
	a.transport = t
	return a.session.worker.Loop.Post(a)
}

// Run implements loop.Task.
func (a *Arrival) Run() {
	s := a.session
	w := s.worker
	cancels := s.transit.cancels
	s.phase, s.transit = active, nil
	w.sessions.add(s)
	w.gauges.Clients.Add(1)
	w.Stats.TakenOver.Inc()
	s.adoptImage(a.image)
	if err := w.Loop.Attach(&s.conn, a.transport, s); err != nil {
		_ = a.transport.Close()
		w.log().Error("cannot serve client", append(s.attrs(), attrError(err))...)
		s.end()
		return
	}
	w.watchIdle()
	s.proceed()
	for _, c := range cancels {
		c.Run()
	}
}

// noCancelElsewhere is for a request whose session is nowhere: it has no effect.
func noCancelElsewhere(_ cancel.Key, done func()) { done() }
