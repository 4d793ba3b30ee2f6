package router

import (
	"fmt"
	"slices"
	"time"

	"pgsidecar/router/probe"
)

// Reading is how far a standby has come that clients may read from.
type Reading struct {
	// Shows is a moment: all that the primary had told anybody was committed before it is visible. It is the latest one at which
	// the primary was asked for its position, that was on the standby's timeline, and that the standby has replayed. Zero: nothing
	// like that is known.
	Shows time.Time

	// Seen is when the standby said so, over a connection that had been logged in at Since: it has not been started anew in
	// between.
	Since, Seen time.Time

	// Bytes and Lag are how far it is behind what the primary has been seen to have written, at most: WAL that it has not
	// replayed, and the time over which that was written.
	Bytes uint64
	Lag   time.Duration

	// Behind is why nobody is to be sent there at the moment, in a sentence: it is behind by more than it may be. "": it is not.
	Behind string
}

// position is where a primary was at least not beyond when it was asked.
type position struct {
	asked time.Time
	lsn   probe.LSN
}

// positions are those of the accepted primary on one timeline, the one that was asked for last at the end.
type positions struct {
	latest   *probe.Observation // that has been taken
	system   uint64
	timeline uint32
	list     []position
}

// keptPositions is how many positions are remembered. When there are more, every other one of the older half is forgotten:
// standbys that are far behind are known less exactly.
const keptPositions = 256

// take adds what a probe of the primary has found.
func (p *positions) take(o *probe.Observation) {
	if o == p.latest || o.Err != nil || o.LSN == 0 {
		return
	}
	if o.Timeline != p.timeline || o.SystemID != p.system {
		*p = positions{system: o.SystemID, timeline: o.Timeline}
	}
	p.latest = o
	asked := o.At.Add(-o.Took) // It began then: the question was put later.
	if n := len(p.list); n > 0 && p.list[n-1].lsn == o.LSN {
		p.list[n-1].asked = asked
		return
	}
	p.list = append(p.list, position{asked, o.LSN})
	if len(p.list) <= keptPositions {
		return
	}
	at := -1
	p.list = slices.DeleteFunc(p.list, func(position) bool {
		at++
		return at < keptPositions/2 && at%2 == 1
	})
}

// shown returns the latest moment at which the primary was not beyond a position.
func (p *positions) shown(lsn probe.LSN) (moment time.Time) {
	for _, one := range p.list {
		if one.lsn <= lsn && one.asked.After(moment) {
			moment = one.asked
		}
	}
	return moment
}

// read finds out what the standbys show.
func (r *Router) read(all []candidate, primary int, now time.Time) {
	if primary >= 0 && all[primary].seen != nil {
		r.positions.take(all[primary].seen)
	}
	for i, t := range r.targets {
		t.reading = r.reading(t, &all[i], now)
		if t.reading == nil {
			t.standby, t.standbySince = nil, time.Time{}
		}
	}
}

// reading returns what is known of a target as a standby; nil if nobody is to read from it. A probe that has been lost, or is
// refused by a server that lives, says nothing against what is known.
func (r *Router) reading(t *target, c *candidate, now time.Time) *Reading {
	o := c.seen
	switch {
	case o == nil:
		return nil
	case o.Err != nil && (t.standby == nil || !bearable(c)):
		return nil
	case o.Err != nil:
		o = t.standby
	case !o.Standby, r.known.system != 0 && o.SystemID != 0 && o.SystemID != r.known.system:
		return nil
	}
	if t.standby == nil {
		t.standbySince = now
	}
	t.standby = o
	reading := &Reading{Since: o.Since, Seen: o.At}
	if o.LSN == 0 || len(r.positions.list) == 0 {
		return reading // Nothing can be compared: storage that is not PostgreSQL's own, or no primary.
	}
	last := r.positions.list[len(r.positions.list)-1]
	if o.Timeline == r.positions.timeline {
		reading.Shows = r.positions.shown(o.LSN)
	}
	if o.LSN < last.lsn {
		reading.Bytes = uint64(last.lsn - o.LSN)
	}
	from := reading.Shows
	if from.IsZero() {
		from = t.standbySince
	}
	reading.Lag = max(0, last.asked.Sub(from))
	reading.Behind = r.config.behind(t.Name, reading)
	return reading
}

// behind says why a standby is too far behind.
func (c *Config) behind(name string, r *Reading) string {
	switch {
	case c.MaxLagBytes > 0 && r.Bytes > c.MaxLagBytes:
		return fmt.Sprintf("%s is %d bytes of WAL behind, more than reads.max_lag_bytes (%d)", name, r.Bytes, c.MaxLagBytes)
	case c.MaxLag > 0 && r.Lag > c.MaxLag && r.Shows.IsZero():
		return fmt.Sprintf("%s is not known to be on the primary's timeline, for longer than reads.max_lag (%v)", name, c.MaxLag)
	case c.MaxLag > 0 && r.Lag > c.MaxLag:
		return fmt.Sprintf("%s is up to %v behind, more than reads.max_lag (%v)", name, r.Lag.Round(time.Millisecond), c.MaxLag)
	}
	return ""
}
