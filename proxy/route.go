package proxy

import (
	"cmp"
	"context"
	"sync"
	"time"

	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
)

// route is where servers are dialled. It is immutable.
type route struct {
	place      *server.Place // nil: where the upstream leads
	generation uint64
}

// holds are the reasons for which transactions are held: there is no primary, an operator wants it, or it is being changed.
type holds struct {
	mu        sync.Mutex // held while the pool is told, which takes no time
	route     string
	operator  string
	suspended string
}

// dialSpread is the time over which proxies that have all learned of a new primary begin to dial it.
const dialSpread = 20 * time.Millisecond

// Redirect has servers dialled at a place; nil is where the upstream leads. With another generation than before, connections made
// until then are given up: idle ones at once, those in a transaction with an error for their clients, whose sessions stay
// wherever nothing but the transaction is lost. It ends a Detain. It may be called from any goroutine.
func (p *Proxy) Redirect(place *server.Place, generation uint64) {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	old := p.route.Load()
	p.route.Store(&route{place: place, generation: generation})
	if old != nil && old.generation != generation {
		p.target.Recycle("another server is the primary now")
		for _, w := range p.workers {
			w.Cut(generation)
		}
		p.shared.Hubs.Cut(generation)
	}
	p.routing.route = ""
	p.holdOrResume()
}

// Detain holds all transactions that begin from now on, as there is no server for them, until Redirect. why is a sentence that
// clients are told whose wait has lasted too long (Config.Pool.Hold).
func (p *Proxy) Detain(why string) {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	p.routing.route = why
	p.holdOrResume()
}

// Hold does the same for an operator, until Resume: both have to want it no more.
func (p *Proxy) Hold(why string) {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	p.routing.operator = why
	p.holdOrResume()
}

// Resume ends a Hold. It reports whether there was one.
func (p *Proxy) Resume() bool {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	was := p.routing.operator != ""
	p.routing.operator = ""
	p.holdOrResume()
	return was
}

// Suspend holds all transactions that begin from now on, also those of sessions that keep their server, which Hold lets go on; until
// Continue. Only one is in force at a time.
func (p *Proxy) Suspend(why string) {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	p.routing.suspended = why
	p.shared.Suspended.Store(true)
	p.holdOrResume()
}

// Continue ends a Suspend.
func (p *Proxy) Continue() {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	p.routing.suspended = ""
	p.shared.Suspended.Store(false)
	p.holdOrResume()
	for _, w := range p.workers {
		w.Continue()
	}
}

// Busy counts the transactions that are under way. While transactions are suspended, none is when it has once been 0.
func (p *Proxy) Busy(ctx context.Context) (int, error) {
	n := p.target.Stats().Granted // First: what is taken from here on is counted by the workers.
	counts := make(chan int, len(p.workers))
	for _, w := range p.workers {
		if !w.Busy(func(n int) { counts <- n }) {
			counts <- 0
		}
	}
	for range p.workers {
		select {
		case one := <-counts:
			n += one
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return n, nil
}

// Recycle has all connections replaced: idle ones at once, the others when their transactions end.
func (p *Proxy) Recycle(why string) {
	p.target.Recycle(why)
	p.standbys.each(func(t *pool.Target) { t.Recycle(why) })
}

// Held returns why transactions are held, or "".
func (p *Proxy) Held() string {
	p.routing.mu.Lock()
	defer p.routing.mu.Unlock()
	return p.routing.reason()
}

func (h *holds) reason() string { return cmp.Or(h.suspended, h.operator, h.route) }

// holdOrResume tells the pool. The caller holds the lock.
func (p *Proxy) holdOrResume() {
	if why := p.routing.reason(); why != "" {
		p.target.Hold(why)
		return
	}
	p.target.Resume(dialSpread)
}
