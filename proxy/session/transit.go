package session

import (
	"crypto/rand"
	"time"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
)

// A session can move to another process between two transactions. Here it is frozen from its Departure until it is known
// whether the other process has taken it; there it begins with an Arrival. What it misses meanwhile is done afterwards, by
// whoever has it then.
//
// One that listens takes three steps, so that each notification reaches it once: the other process listens to its channels; a
// barrier, a notification of the proxy's own, is sent; then it moves. What was committed before the barrier is delivered here,
// what was committed behind it there: both see the same order. If it stays after all, it gets here what was kept back.

// transit is what a session has to remember while it is on the way, in either process.
type transit struct {
	departure *Departure      // nil for an arrival
	cancels   []*cancellation // that have come in meanwhile
}

// Mover takes sessions to another process.
type Mover interface {
	// Prepare has the other process listen to the session's channels, up to the barrier without delivering anything, and
	// calls Prepared of the Departure.
	Prepare(d *Departure)
	// Forget ends what Prepare has begun, as the session stays.
	Forget(d *Departure)
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
	Barrier    string // the payload of the notification that parts what is delivered here from what is delivered there

	session   *Session
	mover     Mover
	transport loop.Transport // once it is off its loop
	timer     loop.Timer     // the limit of the steps before that
}

// depart lets the session go to another process, if that is asked for and it can go now. It reports whether it goes.
func (s *Session) depart() bool {
	w := s.worker
	if w.departures == nil || !s.movable() {
		return false
	}
	if s.waiting() {
		s.abandon(polite)
	}
	if s.link != nil {
		s.unlink().release()
	}
	d := &Departure{session: s, mover: w.departures.mover, Image: s.image()}
	s.phase, s.transit = moving, &transit{departure: d}
	if s.listening == nil {
		d.start()
		return true
	}
	d.Barrier = rand.Text()
	w.Loop.Arm(&d.timer, prepareWithin, (*overdue)(d))
	d.mover.Prepare(d)
	return true
}

// prepareWithin bounds how long a session that listens is frozen before it moves.
const prepareWithin = 5 * time.Second

// start takes the session off its loop.
func (d *Departure) start() {
	s := d.session
	s.rest()
	d.transport = s.conn.Detach()
	d.Descriptor, d.Image.Kept, d.Image.Unsent, _ = d.transport.Passing()
	d.mover.Move(d)
}

// Prepared tells whether the other process listens. It may be called from any goroutine.
func (d *Departure) Prepared(ok bool) {
	if !ok {
		d.Stay()
		return
	}
	d.session.do(func() {
		if d.waits() {
			d.session.listening.hub.barrier(d.session, d.Barrier, true, d.passed)
		}
	})
}

// current tells whether the session is on the way, by this departure: it may have been ended, or stayed for another reason.
func (d *Departure) current() bool {
	s := d.session
	return s.phase == moving && s.transit.departure == d
}

// waits tells whether the session still waits to go.
func (d *Departure) waits() bool { return d.current() && d.session.conn.Attached() }

// passed is called when all that was notified before the barrier has been delivered.
func (d *Departure) passed() {
	if d.waits() {
		d.session.worker.Loop.Disarm(&d.timer)
		d.session.listening.withheld = true
		d.start()
	}
}

// movable tells whether all there is of the session is in its image: it owes nothing, is owed nothing, and nothing of it is
// half read or half written.
func (s *Session) movable() bool {
	switch {
	case s.phase != active || !s.virtual() || s.is(stays|hungUp|partial|stalled|orphaned|resolving) || s.conn.IsTLS():
		return false
	case s.link != nil && (s.is(touched) || !s.between() || s.link.cancels > 0):
		return false
	}
	return s.pinned == nil && s.refusal == nil && s.scan.Left() == 0 && s.listening.movable()
}

// movable tells whether nothing but the shared connection is to be waited for. Listening to nothing is.
func (n *listening) movable() bool {
	return n == nil || (n.ready && !n.moving && n.own == nil && len(n.held)+len(n.notes)+len(n.unlistens) == 0)
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
	overdue Departure // the other process does not listen, or the barrier has not come
)

func (o *overdue) Run() { (*stayed)(o).Run() }

func (t *crossed) Run() {
	s := t.session
	w := s.worker
	if (*Departure)(t).current() {
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
	w.Loop.Disarm(&t.timer)
	if t.Barrier != "" {
		t.mover.Forget((*Departure)(t))
	}
	if !(*Departure)(t).current() {
		_ = t.transport.Close()
		return
	}
	cancels := s.transit.cancels
	s.phase, s.transit = active, nil
	s.set(stays, true)
	if n := s.listening; n != nil {
		n.hub.forgetBarrier(t.Barrier)
		n.withheld = false
	}
	if s.conn.Attached() || s.attach(t.transport) {
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
		s.Stuck()
	}
	s.tellNotes()
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
	barrier   string // "": it does not listen
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

// Listen listens to the session's channels, and calls done when that is certain. What comes before the barrier is dropped, as
// the other process delivers it; the rest waits for Enter. Replace follows, or Discard.
func (a *Arrival) Listen(barrier string, done func()) {
	s := a.session
	n := &listening{hub: s.worker.shared.Hubs.of(s), channels: make(map[string]struct{}), ready: true, skipping: true}
	names := make([]string, len(a.image.Channels))
	for i, channel := range a.image.Channels {
		names[i] = string(channel)
		n.channels[names[i]] = struct{}{}
	}
	s.listening, a.barrier = n, barrier
	n.hub.barrier(s, barrier, false, func() { n.skipping = false })
	n.hub.listen(s, names, done)
}

// Replace brings the image up to date.
func (a *Arrival) Replace(i *Image) { a.image = i }

// Discard forgets the session: the other process keeps it.
func (a *Arrival) Discard() {
	s := a.session
	s.worker.shared.Keys.Remove(s.key)
	if a.barrier != "" {
		s.do(func() {
			s.listening.hub.forgetBarrier(a.barrier)
			s.unlistenEverything()
		})
	}
}

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
	s.who = w.alike(s.who.Profile)
	if !s.attach(a.transport) {
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
