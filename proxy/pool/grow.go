package pool

// bound counts the connections that share a limit: all of a target, of a database, or of a user.
type bound struct {
	max     int // 0: no limit; nothing: none is allowed
	open    int // slots taken, dials and closing connections included
	closing int // of those, on their way out
	claimed int // closing ones that the last serve has promised to somebody
	pools   int // that share it
}

// nothing is the limit of a bound under which no connection is allowed. Being less than 0, it is exceeded by none at all.
const nothing = -1

// full reports whether no dial may begin now.
func (b *bound) full() bool { return b.max != 0 && b.open >= b.max }

// lacks reports whether there will be no room either when everything that is closing has gone.
func (b *bound) lacks() bool { return b.max != 0 && b.open-b.closing+b.claimed >= b.max }

// growth is what the last serve has found out about a pool that waits.
type growth struct {
	claims     [demands]int  // waiters for which something is closing
	stuck      [demands]bool // no room and nothing to evict
	needy      bool          // stuck, and no release in this pool can help: the next one elsewhere has to make room
	needySince int64         // since when the waiter concerned has waited
}

// serve gives the room there is to those who wait, the oldest first: a dial, or a slot that is being given back, or
// one that an idle connection has to give up. It is called whenever room or demand has grown.
func (t *Target) serve(now int64) {
	t.needy, t.evictAt = false, never
	if t.waiting.n == 0 || t.held != nil {
		return
	}
	for p := range t.waiting.all() {
		p.growth = growth{}
		for _, b := range p.bounds {
			b.claimed = 0
		}
	}
	for {
		p, kind := t.oldestDemand(now)
		if p == nil {
			break
		}
		p.grow(kind, now)
	}
	t.alarm(t.evictAt)
}

// oldestDemand finds the pool that may grow and whose waiters have waited longest, and which of its two queues that is.
func (t *Target) oldestDemand(now int64) (oldest *Pool, kind demand) {
	since := int64(never)
	for p := range t.waiting.all() {
		if !p.mayDial(now) {
			continue
		}
		for k := range demands {
			if p.unmet(k) > 0 && !p.growth.stuck[k] && p.waiting[k].front().since < since {
				oldest, kind, since = p, k, p.waiting[k].front().since
			}
		}
	}
	return oldest, kind
}

// mayDial reports whether the pool's own rules let it begin one more attempt.
func (p *Pool) mayDial(now int64) bool {
	parallel := p.target.config.DialParallel
	if p.failure.err != nil {
		parallel = 1 // One attempt is enough to find out whether it works again.
	}
	if p.dialing[shared]+p.dialing[private]+p.growth.claims[shared]+p.growth.claims[private] >= parallel {
		return false
	}
	if now < p.failure.retryAt {
		p.target.alarm(p.failure.retryAt)
		return false
	}
	return true
}

// unmet is how many waiters have nothing on its way to them.
func (p *Pool) unmet(kind demand) int {
	n := p.waiting[kind].n - p.growth.claims[kind]
	if kind == shared {
		n -= p.dialing[shared] + p.count[slotAdopting]
	}
	return n
}

// grow finds room for the oldest unmet waiter of that kind.
func (p *Pool) grow(kind demand, now int64) {
	switch {
	case p.fits():
		p.dialFor(kind)
	case !p.lacks() || p.makeRoom(kind, now):
		p.growth.claims[kind]++
		for _, b := range p.bounds {
			b.claimed++
		}
	default:
		p.growth.stuck[kind] = true
		if p.hungry(kind) {
			p.plead(p.waiting[kind].front().since)
		}
	}
}

// plead asks those who release elsewhere to make room for a waiter that has waited since then.
func (p *Pool) plead(since int64) {
	g := &p.growth
	if !g.needy || since < g.needySince {
		g.needySince = since
	}
	g.needy, p.target.needy = true, true
}

// fits reports whether every bound has room for one more.
func (p *Pool) fits() bool {
	for _, b := range p.bounds {
		if b.full() {
			return false
		}
	}
	return true
}

// lacks reports whether some bound will have no room for it even when all that is closing has gone.
func (p *Pool) lacks() bool {
	for _, b := range p.bounds {
		if b.lacks() {
			return true
		}
	}
	return false
}

// over reports whether some bound holds more than its limit, which has been lowered.
func (p *Pool) over() bool {
	for _, b := range p.bounds {
		if b.max != 0 && b.open-b.closing > b.max {
			return true
		}
	}
	return false
}

// size is how many shared connections the pool has or is about to get.
func (p *Pool) size() int { return p.live + p.dialing[shared] + p.growth.claims[shared] }

// hungry reports whether waiters of that kind can get nothing from a release in their own pool.
func (p *Pool) hungry(kind demand) bool { return kind == private || p.size() == 0 }

// makeRoom evicts what idles in the way: for each bound that lacks room the connection under it that has been idle
// longest. It evicts nothing when that would not be enough.
func (p *Pool) makeRoom(kind demand, now int64) bool {
	var victims [len(p.bounds)]*Slot
	// The narrow bounds go first: whoever leaves one of them also leaves the target's.
	for i := len(p.bounds) - 1; i >= 0; i-- {
		b := p.bounds[i]
		if !b.lacks() || p.relieved(b, victims[i+1:]) {
			continue
		}
		if victims[i] = p.victim(b, kind, now); victims[i] == nil {
			return false
		}
	}
	for _, s := range victims {
		if s != nil {
			s.evict(reasonEvicted, reasonEvicted.String())
		}
	}
	return true
}

// relieved reports whether one of the victims already makes room under b.
func (p *Pool) relieved(b *bound, victims []*Slot) bool {
	for _, s := range victims {
		if s != nil && s.pool.under(b) {
			return true
		}
	}
	return false
}

// victim is the connection under b that has been idle longest, among those that p's waiters may have closed.
func (p *Pool) victim(b *bound, kind demand, now int64) *Slot {
	t := p.target
	if t.idle == 0 {
		return nil
	}
	var victim *Slot
	for _, q := range t.list {
		if !q.under(b) {
			continue
		}
		for i := range q.idle {
			s := q.idle[i].slots.back()
			if s == nil || victim != nil && victim.idleSince <= s.idleSince {
				continue
			}
			if mature := s.idleSince + int64(evictAfter); mature > now && !p.hungry(kind) && p.size() >= q.live {
				t.evictAt = min(t.evictAt, mature)
				continue
			}
			victim = s
		}
	}
	return victim
}

// under reports whether the pool's connections count against b.
func (p *Pool) under(b *bound) bool {
	return p.bounds[0] == b || p.bounds[1] == b || p.bounds[2] == b
}

// yields decides whether a connection that comes back is closed to make room for a waiter that cannot be helped
// otherwise and is older than next, who would get it. Without this, a pool that is never idle would keep others out.
func (t *Target) yields(s *Slot, next *Waiter) bool {
	since := int64(never)
	if next != nil {
		since = next.since
	}
	var oldest *Pool
	for p := range t.waiting.all() {
		if p.growth.needy && p.growth.needySince < since && p.roomWithout(s) {
			oldest, since = p, p.growth.needySince
		}
	}
	if oldest == nil {
		return false
	}
	oldest.growth.needy = false
	return true
}

// roomWithout reports whether p could grow once s has gone.
func (p *Pool) roomWithout(s *Slot) bool {
	for _, b := range p.bounds {
		room := b.max - (b.open - b.closing + b.claimed)
		if s.pool.under(b) {
			room++
		}
		if b.max != 0 && room <= 0 {
			return false
		}
	}
	return true
}
