package session

import (
	"cmp"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"pgsidecar/proxy/stats"
)

// Pins knows the sessions that keep their servers, and the statements by which they came to. Any goroutine may use it.
type Pins struct {
	mu struct { // held for accesses to maps, and to copy them
		sync.Mutex
		sessions   map[*Session]stats.PinnedClient
		total      map[string]uint64 // pins that have begun, by kind
		statements map[pinningKey]*stats.PinningStatement
	}
}

// pinningKey tells statements apart.
type pinningKey struct {
	database    string
	kind        string
	verdict     stats.Verdict
	fingerprint uint64
}

const (
	// maxOutline is how much of a statement is shown, in bytes.
	maxOutline = 200
	// maxPinning bounds the statements that are known. When it is reached all are forgotten, and told again.
	maxPinning = 500
)

func newPins() *Pins {
	p := new(Pins)
	p.mu.sessions = make(map[*Session]stats.PinnedClient)
	p.mu.total = make(map[string]uint64)
	p.mu.statements = make(map[pinningKey]*stats.PinningStatement)
	return p
}

// add notes that a session is pinned, and reports whether its statement is one that has not been seen to do that.
func (p *Pins) add(s *Session, one stats.PinnedClient, fingerprint uint64) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.sessions[s] = one
	p.mu.total[one.Kind]++
	return p.countLocked(one, stats.DoesPin, fingerprint)
}

// report notes a statement that has pinned no session, and reports whether it is one that has not been seen before.
func (p *Pins) report(one stats.PinnedClient, verdict stats.Verdict, fingerprint uint64) (first bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.countLocked(one, verdict, fingerprint)
}

func (p *Pins) countLocked(one stats.PinnedClient, verdict stats.Verdict, fingerprint uint64) (first bool) {
	key := pinningKey{one.Database, one.Kind, verdict, fingerprint}
	known := p.mu.statements[key]
	if known == nil {
		if len(p.mu.statements) >= maxPinning {
			clear(p.mu.statements)
		}
		known = new(stats.PinningStatement)
		p.mu.statements[key] = known
	}
	known.PinnedClient, known.Verdict = one, verdict
	known.Count++
	return known.Count == 1
}

// rename tells the reason of a pin anew.
func (p *Pins) rename(s *Session, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.mu.sessions[s]
	one.Reason = reason
	p.mu.sessions[s] = one
}

func (p *Pins) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.sessions, s)
}

// Clients returns the pinned sessions, the one that has been for longest first.
func (p *Pins) Clients() []stats.PinnedClient {
	p.mu.Lock()
	all := slices.Collect(maps.Values(p.mu.sessions))
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b stats.PinnedClient) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Client, b.Client))
	})
	return all
}

// Totals returns how many pins of each kind have begun, by kind.
func (p *Pins) Totals() []stats.Count {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]stats.Count, 0, len(p.mu.total))
	for _, kind := range slices.Sorted(maps.Keys(p.mu.total)) {
		all = append(all, stats.Count{Label: kind, Count: p.mu.total[kind]})
	}
	return all
}

// Statements returns the statements that have pinned sessions, or would have, the most frequent first.
func (p *Pins) Statements() []stats.PinningStatement {
	p.mu.Lock()
	all := make([]stats.PinningStatement, 0, len(p.mu.statements))
	for _, one := range p.mu.statements {
		all = append(all, *one)
	}
	p.mu.Unlock()
	slices.SortFunc(all, func(a, b stats.PinningStatement) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Statement, b.Statement), cmp.Compare(a.Database, b.Database))
	})
	return all
}

// attrsOfPin says in the log who is pinned and why.
func attrsOfPin(one *stats.PinnedClient) []any {
	return []any{
		slog.String("reason", one.Reason), slog.String("statement", one.Statement),
		slog.String("application", one.Application), slog.String("user", one.User),
		slog.String("database", one.Database), slog.String("client", one.Client),
	}
}
