package pool

import (
	"context"
	"slices"
	"time"
)

// tick is how often the reaper looks at connections that others may change in the meantime.
const tick = time.Second

// Run does what becomes due: idle timeouts, lifetimes, min_connections, retries, the end of Hold. It ends with ctx or
// with Close. It sleeps without a tick while the target has no connection.
func (t *Target) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.done:
			return
		case <-t.wake:
		case <-timer.C:
		}
		timer.Reset(t.reap())
	}
}

// reap does what is due now and answers how long Run may sleep.
func (t *Target) reap() time.Duration {
	t.mu.Lock()
	defer t.unlock()
	now := t.now()
	t.nextAt, t.reaping = never, true
	for _, p := range slices.Backward(t.list) { // Backwards, as retire removes the pool at hand.
		p.reap(now)
	}
	t.serve(now)
	for _, p := range t.list {
		p.replenish(now)
	}
	t.reaping = false
	if t.nextAt == never {
		return never
	}
	return max(time.Duration(t.nextAt-now), time.Millisecond)
}

// alarm has Run wake at the given time if it would sleep longer.
func (t *Target) alarm(at int64) {
	if at >= t.nextAt {
		return
	}
	t.nextAt = at
	if t.reaping {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// reap closes what has been idle or has lived too long, ends Hold, and retires the pool when it has long been empty.
func (p *Pool) reap(now int64) {
	for i := range p.idle {
		for s := range p.idle[i].slots.all() {
			s.reap(now)
		}
	}
	if p.target.held != nil {
		p.expire(now)
	} else if f := &p.failure; f.err != nil && p.dependents() > 0 {
		if now >= f.deadline {
			p.unavailable()
		} else {
			p.target.alarm(f.deadline)
		}
	}
	p.reapEmpty(now)
}

// reap closes an idle connection that has been idle or has lived too long.
func (s *Slot) reap(now int64) {
	p := s.pool
	c := &p.target.config
	switch expires := s.expires(c.MaxLifetime); {
	case now >= expires:
		s.evict(reasonLifetime, reasonLifetime.String())
	case c.IdleTimeout < 0 || p.live <= c.MinConnections:
		p.target.alarm(expires)
	case now-s.idleSince >= int64(c.IdleTimeout):
		s.evict(reasonIdle, reasonIdle.String())
	default:
		p.target.alarm(min(expires, s.idleSince+int64(c.IdleTimeout)))
	}
}

// reapEmpty keeps Run awake for a pool in use and retires one that has long been empty, so that database names that come
// and go do not add up.
func (p *Pool) reapEmpty(now int64) {
	t := p.target
	idle := int64(t.config.IdleTimeout)
	switch {
	case p.slots() > 0 || p.waiters() > 0:
		p.emptyAt = 0
		t.alarm(now + int64(tick))
	case idle < 0 || p.served && t.config.MinConnections > 0:
	case p.emptyAt == 0:
		p.emptyAt = now
		t.alarm(now + idle)
	case now-p.emptyAt >= idle:
		t.retire(p)
	default:
		t.alarm(p.emptyAt + idle)
	}
}

// slots counts the places under the bound that the pool takes.
func (p *Pool) slots() int {
	n := p.dialing[shared] + p.dialing[private]
	for state := slotIdle; state <= slotClosing; state++ {
		n += p.count[state]
	}
	return n
}

// replenish dials up to MinConnections where there is room. It evicts nothing for it.
func (p *Pool) replenish(now int64) {
	t := p.target
	for p.served && !t.closed && t.held == nil && p.size() < t.config.MinConnections && p.fits() && p.mayDial(now) {
		p.dialFor(shared)
	}
}
