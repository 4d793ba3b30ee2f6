package proxy

import (
	"context"
	"log/slog"
	"time"

	"pgsidecar/proxy/stats"
)

// Enter raises the phase; it never goes back. From Noticed on servers that are not needed are given back, from Lingering
// on the proxy is not ready, from Draining on new clients are refused. It returns at once.
func (p *Proxy) Enter(phase stats.Phase) {
	for {
		before := p.phase.Load()
		if before >= uint32(phase) {
			return
		}
		if p.phase.CompareAndSwap(before, uint32(phase)) {
			break
		}
	}
	p.log.Info("phase", slog.String("phase", phase.String()), slog.Int("clients", p.Snapshot().Clients.All()))
	p.configurePool()
}

// Emptied returns when the last client left, or the zero time while there is one.
func (p *Proxy) Emptied() time.Time { return p.clients.emptied() }

// Shutdown stops at transaction boundaries: new clients are refused, those between transactions are told and closed, the
// others when their transaction has ended. When ctx ends first, what is left is cut. It returns when no client is left;
// Serve returns a moment later.
func (p *Proxy) Shutdown(ctx context.Context) error {
	p.Enter(stats.Draining)
	p.clients.close()
	for _, w := range p.workers {
		w.Drain()
	}
	select {
	case <-p.clients.ended:
		return nil
	case <-ctx.Done():
	}
	p.log.WarnContext(ctx, "drain deadline: cutting what is left", slog.Int("clients", p.Snapshot().Clients.All()))
	p.end()
	return ctx.Err()
}

// Close ends every session at once.
func (p *Proxy) Close() error {
	p.end()
	return nil
}

// end cuts all sessions.
func (p *Proxy) end() {
	p.Enter(stats.Closing)
	p.clients.close()
	for _, w := range p.workers {
		w.Abort()
	}
}

// awaitServers waits until PostgreSQL has ended the connections that are being closed, so that a successor does not find
// the database full; but not for ever.
func (p *Proxy) awaitServers(limit time.Duration) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if p.connections() == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return
		}
	}
}
