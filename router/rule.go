package router

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"pgsidecar/router/probe"
)

// renewAfter is how old the connection of a probe is at least that is made anew because it leads to a server that is not the one
// that its name stands for any more.
const renewAfter = 100 * time.Millisecond

// rule judges what is known now, and publishes it.
func (r *Router) rule(ctx context.Context, now time.Time) {
	all := make([]candidate, len(r.targets))
	for i, t := range r.targets {
		t.look()
		all[i] = candidate{Target: t.Target, seen: t.seen, timeouts: t.timeouts, drained: r.drained.has(t.Name)}
	}
	if a := r.appointed.Load(); a != nil && a.upTo > 0 {
		r.known.flushed = min(r.known.flushed, a.upTo)
	}
	was := r.known
	j := r.judge(all)
	if j.primary >= 0 {
		r.accepted(all, &j, now)
	} else {
		r.refused(ctx, all, now)
	}
	r.tell(ctx, was, &j)
	r.read(all, j.primary, now)
	r.publish(all, &j)
}

// judge applies the configuration's rules.
func (r *Router) judge(all []candidate) ruling {
	rules := rules{writable: r.config.Writable, maxLost: r.config.MaxLost}
	if r.config.Lenient && len(all) == 1 {
		return judgeAlone(rules, r.known, r.authority(), &all[0])
	}
	return judge(rules, r.known, r.authority(), all)
}

// look takes the target's latest observation.
func (t *target) look() {
	o := t.prober.Latest()
	if o == nil || o == t.seen {
		return
	}
	t.seen = o
	if o.Reason == probe.Timeout {
		t.timeouts++
	} else {
		t.timeouts = 0
	}
}

// accepted takes note of the primary, and of the switch if it is another one than before.
func (r *Router) accepted(all []candidate, j *ruling, now time.Time) {
	k, c := &r.known, &all[j.primary]
	o := c.seen
	if o != nil && o.Err == nil && !o.Standby {
		before := *k
		if k.system != 0 && o.SystemID != 0 && k.system != o.SystemID {
			*k = known{}
		}
		if k.system == 0 {
			k.system = o.SystemID
		}
		if o.Timeline != k.timeline || c.Addr() != k.addr {
			k.flushed = 0
		}
		k.primary, k.addr, k.instance = c.Name, c.Addr(), instanceOf(*k, c)
		k.timeline, k.flushed = max(o.Timeline, k.timeline), max(o.Flushed, k.flushed)
		if before.primary != "" && !renamed(&before, k, all) && (before.addr != k.addr || before.timeline != k.timeline || before.system != k.system) {
			r.switchOver(before, c, j, now)
		}
	}
	k.serving = true
	r.lostAt = time.Time{}
}

// renamed tells whether the primary is the one before under another name, as the name that was used is not listed any more: the
// connections that there are lead to it. One that is listed and leads nowhere has lost them.
func renamed(before, now *known, all []candidate) bool {
	if before.instance == "" || before.instance != now.instance || before.timeline != now.timeline {
		return false
	}
	return !slices.ContainsFunc(all, func(c candidate) bool {
		return c.Name == before.primary && (c.seen == nil || c.seen.Err != nil)
	})
}

// switchOver notes that another server is the primary, or the same one on another timeline.
func (r *Router) switchOver(before known, c *candidate, j *ruling, now time.Time) {
	s := Switch{
		From: before.primary, To: c.Name, Before: before.timeline, Timeline: c.seen.Timeline, At: now,
		Lost: j.lost, Approximate: j.approximate,
	}
	if !r.lostAt.IsZero() {
		s.Took = now.Sub(r.lostAt)
	}
	r.switched++
	if len(r.switches) == keptSwitches {
		r.switches = r.switches[1:]
	}
	r.switches = append(slices.Clip(r.switches), s) // Published ones are not written to.
}

// refused takes note that there is no primary, and has everybody looked at often until there is one.
func (r *Router) refused(ctx context.Context, all []candidate, now time.Time) {
	if r.known.serving {
		r.lostAt = now
	}
	r.known.serving = false
	r.Suspect()
	for _, s := range r.config.Sources {
		if source, ok := s.(interface{ Refresh() }); ok {
			source.Refresh()
		}
	}
	if len(all) != 1 || !r.config.Lenient || all[0].drained {
		return
	}
	// What the name stands for may be another server by now, but the probe's connection still leads to the old one.
	if t := r.targets[0]; t.seen != nil && t.seen.Err == nil && now.Sub(t.begun) >= renewAfter {
		t.stop()
		r.watch(ctx, t)
		t.seen = nil
		r.share()
	}
}

// tell logs what people should know, each thing once.
func (r *Router) tell(ctx context.Context, was known, j *ruling) {
	k := &r.known
	switch {
	case j.primary >= 0 && !was.serving:
		r.log.InfoContext(ctx, "primary accepted", slog.String("target", r.targets[j.primary].Name), slog.Uint64("timeline", uint64(k.timeline)))
	case j.primary >= 0 && (was.addr != k.addr || was.timeline != k.timeline) && was.primary != "":
		r.log.WarnContext(ctx, "primary switched", slog.String("from", was.primary), slog.String("to", k.primary),
			slog.Uint64("timeline", uint64(k.timeline)))
	case j.primary < 0 && was.serving:
		r.log.WarnContext(ctx, "primary lost: transactions are held", slog.String("reason", j.why))
	}
	if j.alarm != "" && j.alarm != r.alarmed {
		r.log.ErrorContext(ctx, "failover needs attention", slog.String("reason", j.alarm))
	}
	r.alarmed = j.alarm
}

// publish makes the judgement the topology.
func (r *Router) publish(all []candidate, j *ruling) {
	old := r.topology.Load()
	t := &Topology{
		Generation: 1 + r.switched, Targets: make([]Target, len(all)), Primary: j.primary, Why: j.why,
		SystemID: r.known.system, Timeline: r.known.timeline, Switches: r.switches, Switched: r.switched,
	}
	if j.alarm != "" {
		t.Alarms = []string{j.alarm}
	}
	for i := range all {
		t.Targets[i] = Target{Target: all[i].Target, Seen: all[i].seen, Refusal: j.refusals[i], Drained: all[i].drained, Reading: r.targets[i].reading}
		if j.sameAs != nil {
			t.Targets[i].SameAs = j.sameAs[i]
		}
		if t.Targets[i].Drained || t.Targets[i].SameAs != "" {
			t.Targets[i].Reading = nil
		}
	}
	if t.differs(old) || r.retell { // First: who sees the topology may rely on it that traffic follows it.
		r.retell = false
		r.config.Changed(t)
	}
	r.config.Watched(t)
	r.topology.Store(t)
	news := make(chan struct{})
	close(*r.news.Swap(&news))
}

// differs tells whether clients could see a difference.
func (t *Topology) differs(old *Topology) bool {
	a, b := t.Accepted(), old.Accepted()
	if t.Generation != old.Generation || (a == nil) != (b == nil) {
		return true
	}
	return a != nil && !same(a.Target, b.Target) || a == nil && t.Why != old.Why
}

// Await returns the first topology from now on that is what somebody waits for, or the
// latest one and the error of ctx.
func (r *Router) Await(ctx context.Context, is func(*Topology) bool) (*Topology, error) {
	for {
		news := *r.news.Load()
		if t := r.topology.Load(); is(t) {
			return t, nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return r.topology.Load(), ctx.Err()
		}
	}
}
