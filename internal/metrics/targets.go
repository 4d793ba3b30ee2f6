package metrics

import "pgsidecar/proxy/stats"

// collectTargets shows the servers. Their names come from the configuration or from whoever runs the cluster, not from clients.
func (c *Collector) collectTargets(out sink, s *stats.Snapshot) {
	out.flag(c.held, s.Held != "")
	for _, r := range s.Reads() {
		out.counter(c.reads, r.Count, escape(r.Target), r.Reason)
	}
	for _, b := range s.Standbys {
		name := escape(b.Name)
		out.gauge(c.standbys, b.Idle, name, "idle")
		out.gauge(c.standbys, b.Active, name, "active")
		out.gauge(c.standbys, b.Dialing, name, "dialing")
		out.gauge(c.standbys, b.Closing, name, "closing")
	}
	t := &s.Topology
	if !t.Known {
		return
	}
	for i := range t.Targets {
		o := &t.Targets[i]
		name := escape(o.Name)
		out.flag(c.targetUp, o.Health == "ok", name)
		out.flag(c.targetRole, o.Role == "primary", name, "primary")
		out.flag(c.targetRole, o.Role == "standby", name, "standby")
		out.flag(c.targetRole, o.Accepted, name, "accepted")
		out.gauge(c.targetTimeline, int(o.Timeline), name)
		if o.Role == "standby" {
			out.gauge(c.targetLagBytes, int(o.LagBytes), name)
			out.seconds(c.targetLag, o.LagTime, name)
		}
	}
	out.gauge(c.alarms, len(t.Alarms))
	out.counter(c.switches, t.Switched)
	if n := len(t.Switches); n > 0 {
		out.seconds(c.switchSeconds, t.Switches[n-1].Took)
		out.gauge(c.switchLost, int(t.Switches[n-1].Lost))
	}
}
