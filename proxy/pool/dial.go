package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Dialer makes connections.
type Dialer interface {
	// Dial connects and logs in, and answers when ctx ends at the latest. private is nil, or what AcquirePrivate was
	// given. It is called in a goroutine of its own. An error may have a method SQLState() string, as those of PostgreSQL do.
	Dial(ctx context.Context, p *Pool, private any) (Conn, error)
}

// dial is one attempt, or the wish for a private one. It belongs to nobody but its pool: the waiter that caused it may
// give up, and the connection goes to the next.
type dial struct {
	kind    demand
	private any                // for the Dialer
	waiter  *Waiter            // whose it is, if private; nil once that one has given up
	cancel  context.CancelFunc // while in flight
	link    link[dial]         // in Target.dials while in flight

	generation uint32 // Target.generation when it began
	begun      int64
}

// abandon gives up a private dial.
func (d *dial) abandon() {
	d.waiter = nil
	d.cancel()
}

// dialFor begins an attempt, for the oldest private waiter or for whoever of the shared ones is next when it is done.
func (p *Pool) dialFor(kind demand) {
	d := &dial{kind: kind}
	if kind == private {
		w := p.waiting[private].front()
		p.dequeue(w)
		w.state = waiterDialing
		d = w.dial
	}
	t := p.target
	now := t.now()
	d.begun, d.generation = now, t.generation
	for _, b := range p.bounds {
		b.open++
	}
	p.dialing[kind]++
	t.dials.pushBack(&d.link, d)
	t.running.Add(1)
	t.alarm(now + int64(tick)) // There will be something to look after.
	// Nobody's context: the attempt outlives whoever caused it. Close and Recycle cancel it.
	ctx, cancel := context.WithTimeout(context.Background(), t.config.DialTimeout)
	d.cancel = cancel
	go p.dial(ctx, d)
}

// dial makes one attempt, without the lock, and ends with it. Target.Close waits for it.
func (p *Pool) dial(ctx context.Context, d *dial) {
	t := p.target
	defer t.running.Done()
	c, err := t.dialer.Dial(ctx, p, d.private)
	d.cancel()

	t.mu.Lock()
	defer t.unlock()
	t.dials.remove(&d.link)
	p.dialing[d.kind]--
	if err != nil {
		for _, b := range p.bounds {
			b.open--
		}
		p.failed(d, err)
	} else {
		p.dialled(d, c)
	}
	t.serve(t.now())
}

// dialled takes a new connection in and passes it on.
func (p *Pool) dialled(d *dial, c Conn) {
	t := p.target
	s := c.Slot()
	*s = Slot{
		pool: p, conn: c, created: t.now(), generation: d.generation, loop: noLoop, private: d.kind == private,
		jitter: rand.Float32(), //nolint:gosec // Spreads the ends of lifetimes; nothing secret.
	}
	p.served = true
	p.totals.opened++
	p.failure = failure{}
	w := d.waiter
	if !s.private {
		w = p.nextWaiter(noLoop, 0)
	}
	switch why, unfit := s.unfitNew(); {
	case s.private && t.held != nil:
		s.discard(reasonAbandoned)
		if w != nil {
			p.requeue(w)
		}
	case unfit:
		s.discard(why)
		if s.private && w != nil {
			p.requeue(w)
		}
	case w != nil:
		p.dequeue(w)
		w.grant(s)
		t.later(w.grantee.Granted)
	case s.private:
		s.discard(reasonAbandoned)
	default:
		s.adopt()
	}
}

// unfitNew says why a connection that has just been made is not wanted any more.
func (s *Slot) unfitNew() (reason, bool) {
	t := s.pool.target
	switch {
	case t.closed:
		return reasonPoolClosed, true
	case s.generation != t.generation:
		return reasonRecycled, true
	case s.pool.over():
		return reasonLimit, true
	}
	return 0, false
}

// discard closes a connection that has just been made.
func (s *Slot) discard(why reason) {
	s.condemn(why)
	s.pool.target.later(func() { s.conn.Evict(why.String()) })
}

// failure is what a pool knows about dials that fail. The zero value: the last one succeeded.
type failure struct {
	err      error         // of the last attempt
	at       int64         // when that was known
	delay    time.Duration // ceiling of the wait before the next
	retryAt  int64         // when that may begin
	deadline int64         // when Hold ends for those who depend on a dial
	spent    bool          // Hold has passed once: the next failure ends the wait of whoever has come since
}

// failed notes that an attempt has failed and tells those for whom that settles it.
func (p *Pool) failed(d *dial, err error) {
	t := p.target
	p.totals.dialErrors++
	w := d.waiter
	d.waiter = nil
	switch {
	case t.closed:
		if w != nil {
			t.refuse(w, ErrClosed)
		}
		return
	case d.generation != t.generation, t.held != nil: // Recycle or Hold has cancelled it: no failure.
		if w != nil {
			d.waiter = w
			p.enqueue(w, true)
		}
		return
	case d.kind == private && w == nil: // Cancelled by the waiter that has given up: no failure.
		return
	case d.kind == private && severity(err) != unreachable: // May well be about what was asked for.
		t.refuse(w, err)
		return
	case w != nil:
		d.waiter = w
		p.enqueue(w, true)
	}
	now := t.now()
	p.failure.add(p, d, err, now)
	switch f := &p.failure; {
	case severity(err) == fatal && p.live == 0:
		p.refuseAll(shared, err)
	case severity(err) != fatal && (f.spent || now >= f.deadline):
		p.unavailable()
	}
}

// dependents counts the waiters that nothing but a dial can help. The others will be served by what there is.
func (p *Pool) dependents() int {
	if p.live > 0 {
		return p.waiting[private].n
	}
	return p.waiters()
}

// add notes a failure. Attempts that were in flight together count once.
func (f *failure) add(p *Pool, d *dial, err error, now int64) {
	t := p.target
	if f.err == nil {
		f.deadline = now + int64(max(t.config.Hold, 0))
		t.alarm(f.deadline)
	}
	if f.err == nil || d.begun > f.at {
		f.delay = min(max(2*f.delay, t.config.BackoffMin), t.config.BackoffMax)
		f.retryAt = now + 1 + rand.Int64N(int64(f.delay)) //nolint:gosec // Spreads the load; nothing secret.
		t.alarm(f.retryAt)
	}
	f.err, f.at = err, now
}

// welcome gives a waiter Hold of its own when it has no predecessors, but the next failure ends its wait if Hold had
// passed before. After a while without attempts, nothing is known any more.
func (f *failure) welcome(p *Pool, now int64) {
	if f.err == nil || p.dependents() > 0 {
		return
	}
	t := p.target
	c := &t.config
	if now-f.at >= int64(max(c.Hold, c.BackoffMax)) {
		*f = failure{}
		return
	}
	f.spent = f.spent || now >= f.deadline
	f.deadline = now + int64(max(c.Hold, 0))
	t.alarm(f.deadline)
}

// bereave begins Hold anew when the pool has lost its last connection, as all depend on dials from now on.
func (f *failure) bereave(p *Pool) {
	if f.err == nil {
		return
	}
	t := p.target
	f.deadline, f.spent = t.now()+int64(max(t.config.Hold, 0)), false
	t.alarm(f.deadline)
}

// unavailable refuses all who depend on a dial, as Hold has passed.
func (p *Pool) unavailable() {
	err := fmt.Errorf("%w: %w", ErrUnavailable, p.failure.err)
	p.refuseAll(private, err)
	if p.live == 0 {
		p.refuseAll(shared, err)
	}
}

func (p *Pool) refuseAll(kind demand, err error) {
	for w := range p.waiting[kind].all() {
		p.dequeue(w)
		p.target.refuse(w, err)
	}
}

// class is what a dial's error says about the next attempt.
type class uint8

const (
	unreachable class = iota // no server, or none that is ready: it may heal by itself
	full                     // the server has no connection left
	fatal                    // the same will happen again until somebody changes something
)

// severity classifies by SQLSTATE. The classes that will not heal: 0A feature not supported, 22 data exception (a bad
// startup parameter), 28 invalid authorization, 3D invalid catalog name, 3F invalid schema name, 42 access rule
// violation, and 55000, which a database that allows no connections answers.
func severity(err error) class {
	var server interface{ SQLState() string }
	if !errors.As(err, &server) {
		return unreachable
	}
	code := server.SQLState()
	if len(code) != 5 {
		return unreachable
	}
	switch code[:2] {
	case "0A", "22", "28", "3D", "3F", "42":
		return fatal
	}
	switch code {
	case "55000":
		return fatal
	case "53300":
		return full
	}
	return unreachable
}
