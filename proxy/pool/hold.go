package pool

import (
	"math/rand/v2"
	"slices"
	"time"
)

// HeldError is what waiters get whose time has passed while the target was held.
type HeldError struct{ Why string }

func (e *HeldError) Error() string { return "transactions are held: " + e.Why }

// Hold lets nobody have a connection, nor one be dialled, until Resume. Who waits, or comes to wait, keeps its place for
// Config.Hold from now on or from when it came, and gets a HeldError then. Connections that are lent stay so, and lie idle
// when they are released. Called again, it replaces the reason.
func (t *Target) Hold(why string) {
	t.mu.Lock()
	defer t.unlock()
	if t.held == nil {
		t.heldAt = t.now()
	}
	t.held = &HeldError{Why: why}
	t.holding.Store(true)
	for d := range t.dials.all() {
		d.cancel()
	}
	t.alarm(t.now())
}

// Resume ends a Hold: idle connections go to those who have waited longest, and dials begin, each pool's within spread.
func (t *Target) Resume(spread time.Duration) {
	t.mu.Lock()
	defer t.unlock()
	if t.held == nil {
		return
	}
	t.held = nil
	t.holding.Store(false)
	now := t.now()
	for _, p := range t.list {
		p.failure = failure{retryAt: now}
		if spread > 0 {
			p.failure.retryAt += rand.Int64N(int64(spread)) //nolint:gosec // Spreads the load; nothing secret.
		}
	}
	for p := range t.waiting.all() {
		p.resume()
	}
	t.serve(now)
	t.alarm(now)
}

// resume gives what lies idle to the pool's waiters.
func (p *Pool) resume() {
	for _, w := range slices.Collect(p.waiting[shared].all()) {
		s := p.idle[w.loop].slots.front()
		if s == nil && p.idleElsewhere() == nil {
			return
		}
		p.dequeue(w)
		p.requeue(w)
	}
}

// expire ends the waits that have lasted too long while the target is held. The queues are in the order of coming.
func (p *Pool) expire(now int64) {
	t := p.target
	for kind := range demands {
		for w := p.waiting[kind].front(); w != nil; w = p.waiting[kind].front() {
			end := max(w.since, t.heldAt) + int64(max(t.config.Hold, 0))
			if now < end {
				t.alarm(end)
				break
			}
			p.dequeue(w)
			t.refuse(w, t.held)
		}
	}
}
