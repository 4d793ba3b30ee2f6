package proxy

import "pgsidecar/proxy/loop"

// LoopStats returns the totals of all loops.
func (p *Proxy) LoopStats() (all loop.Stats) {
	for _, l := range p.loops {
		s := l.Stats()
		all.Reads += s.Reads
		all.Writes += s.Writes
		all.Wakeups += s.Wakeups
		all.Posts += s.Posts
	}
	return all
}
