package pool

import "time"

// reason is why a connection was closed.
type reason uint8

const (
	reasonLost       reason = iota // its owner said so: broken, or not clean when its client left
	reasonIdle                     // idle_timeout
	reasonLifetime                 // max_lifetime
	reasonEvicted                  // made room for a waiter of another pool, or for a private one
	reasonRecycled                 // Recycle
	reasonLimit                    // above a limit that has been lowered
	reasonPrivate                  // the session that had it for itself has ended
	reasonAbandoned                // the only one who could have used it has given up
	reasonPoolClosed               // Close
	reasons
)

func (r reason) String() string {
	return [reasons]string{
		"lost", "idle_timeout", "max_lifetime", "evicted", "recycled", "limit", "private", "abandoned", "pool_closed",
	}[r]
}

// totals only ever grow.
type totals struct {
	opened     uint64
	dialErrors uint64
	acquires   uint64
	waits      uint64
	closed     [reasons]uint64
}

func (t *totals) add(u *totals) {
	t.opened += u.opened
	t.dialErrors += u.dialErrors
	t.acquires += u.acquires
	t.waits += u.waits
	for i := range t.closed {
		t.closed[i] += u.closed[i]
	}
}

// Stats is a snapshot of a pool, or of all pools of a target.
type Stats struct {
	Database, User string // empty for a target

	Idle    int // attached to a loop, unused
	Lent    int // with a session, or on the way to one or to a loop
	Private int // of Lent, those of one session only
	Granted int // of Lent, those that their session has not taken yet
	Dialing int // attempts in flight
	Closing int // out of use, not gone yet

	Waiting    int           // sessions without a connection; those on whose behalf a private dial is in flight are not counted
	OldestWait time.Duration // of those; 0 when there are none

	MaxConnections, MaxPerDatabase, MaxPerUser int // the limits in force, for a target those in general; the latter two are 0 when there is none

	Opened     uint64            // dials that succeeded
	DialErrors uint64            // dials that failed or were cancelled
	Acquires   uint64            // connections asked for
	Waits      uint64            // of those, not served at once
	Closed     map[string]uint64 // connections that went out of use, by reason
}

// Stats takes a snapshot of all pools together. The totals include pools that have been retired.
func (t *Target) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum, now := t.gone, t.now()
	var s Stats
	for _, p := range t.list {
		p.observe(&s, now)
		sum.add(&p.totals)
	}
	t.complete(&s, &sum)
	return s
}

// Stats takes a snapshot of the pool.
func (p *Pool) Stats() Stats {
	t := p.target
	t.mu.Lock()
	defer t.mu.Unlock()
	s := Stats{Database: p.database, User: p.user}
	p.observe(&s, t.now())
	t.complete(&s, &p.totals)
	s.MaxPerDatabase, s.MaxPerUser = p.bounds[1].max, p.bounds[2].max
	return s
}

// Target is whose pool it is.
func (p *Pool) Target() *Target { return p.target }

// Database is the database of the pool's connections.
func (p *Pool) Database() string { return p.database }

// User is the user that the pool's connections are logged in as.
func (p *Pool) User() string { return p.user }

// observe adds what the pool holds now.
func (p *Pool) observe(s *Stats, now int64) {
	lent := p.count[slotMoving] + p.count[slotAdopting] + p.count[slotGranted] + p.count[slotLent]
	s.Idle += p.count[slotIdle]
	s.Lent += lent
	s.Granted += p.count[slotMoving] + p.count[slotGranted]
	s.Private += lent + p.count[slotIdle] - p.live
	s.Dialing += p.dialing[shared] + p.dialing[private]
	s.Closing += p.count[slotClosing]
	s.Waiting += p.waiters()
	for kind := range demands {
		if w := p.waiting[kind].front(); w != nil {
			s.OldestWait = max(s.OldestWait, time.Duration(now-w.since))
		}
	}
}

// complete adds limits and totals.
func (t *Target) complete(s *Stats, sum *totals) {
	s.MaxConnections, s.MaxPerDatabase, s.MaxPerUser = t.config.MaxConnections, t.config.MaxPerDatabase, t.config.MaxPerUser
	s.Opened, s.DialErrors, s.Acquires, s.Waits = sum.opened, sum.dialErrors, sum.acquires, sum.waits
	s.Closed = make(map[string]uint64, reasons)
	for why, n := range sum.closed {
		s.Closed[reason(why).String()] = n
	}
}
