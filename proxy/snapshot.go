package proxy

import (
	"maps"
	"slices"

	"pgsidecar/proxy/stats"
)

// Snapshot reads the counters. They are read one after the other while the proxy works on.
func (p *Proxy) Snapshot() stats.Snapshot {
	s := stats.Snapshot{
		Phase:   p.Phase(),
		Started: p.started,
		Logins:  p.logins.Snapshot(),
		Errors:  p.errors.Snapshot(),
	}
	for _, w := range p.workers {
		w.Stats.AddTo(&s.Totals)
		g := w.Gauges()
		all, active, waiting := int(g.Clients.Load()), int(g.Active.Load()), int(g.Waiting.Load())
		s.Clients.Active += active
		s.Clients.Waiting += waiting
		s.Clients.Idle += max(all-active-waiting, 0)
		s.Prepared.Clients += int(g.Names.Load())
		s.Prepared.Servers += int(g.Held.Load())
		s.Prepared.Shared += int(g.Shared.Load())
	}
	total := p.target.Stats()
	s.Limit = total.MaxConnections
	standbys, read := p.standbys.snapshot()
	s.Standbys, s.ServerConnects = standbys, total.Opened+read.opened
	for _, why := range slices.Sorted(maps.Keys(total.Closed)) {
		s.ServersClosed = append(s.ServersClosed, stats.Count{Label: why, Count: total.Closed[why] + read.closed[why]})
	}
	kinds := make(map[string]uint64)
	s.PinnedClients = p.shared.Pins.Clients()
	for _, one := range s.PinnedClients {
		kinds[one.Kind]++
	}
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		s.Pinned = append(s.Pinned, stats.Count{Label: kind, Count: kinds[kind]})
	}
	s.Pins, s.PinningStatements = p.shared.Pins.Totals(), p.shared.Pins.Statements()
	for one := range p.target.Pools() {
		o := one.Stats()
		s.Pools = append(s.Pools, stats.PoolSnapshot{
			Database: o.Database, User: o.User,
			Idle: o.Idle, Active: o.Lent, Dialing: o.Dialing, Closing: o.Closing,
			Waiting: o.Waiting, OldestWait: o.OldestWait,
			Transactions: p.traffic.transactions(one),
		})
	}
	return s
}
