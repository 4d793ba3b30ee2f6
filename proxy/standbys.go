package proxy

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/standby"
	"pgsidecar/proxy/stats"
)

// Standby is a server that clients may read from, as whoever watches it knows it.
type Standby struct {
	Name  string // for people
	Place server.Place

	// Shows is a moment: all that was committed before is visible. Zero: nothing like that is known.
	Shows time.Time

	// Seen is when it was found out how far the standby has come, over a connection that had been logged in at Since.
	Since, Seen time.Time

	// Avoid sends nobody there: it is too far behind. Its connections stay.
	Avoid bool

	// Lost says that it does not answer any more: nobody may read from it, and what is under way there is cut.
	Lost bool
}

// standbys are the servers that clients may read from.
type standbys struct {
	set     *standby.Set // those of them that are open
	running sync.WaitGroup

	mu    sync.Mutex           // held while pools are told something, which takes no time
	all   []*reader            // one that is not open stays while it has connections, so that these count when it comes back
	gone  map[string]reading   // what those have carried that are no more, by name
	start func(t *pool.Target) // has a target do what time brings; nil before Serve
}

// reader is one standby, with the connections to it. It dials them.
type reader struct {
	*standby.Standby

	proxy   *Proxy
	place   server.Place
	open    bool         // clients may read from it; under the lock of standbys
	traffic []stats.Pool // one a loop
}

// reading is what only ever grows.
type reading struct {
	transactions, opened uint64
	closed               map[string]uint64
}

// ReadFrom makes these the standbys that clients may read from. Idle connections to others are closed; who reads there goes on to
// the end of its transaction. It may be called from any goroutine.
func (p *Proxy) ReadFrom(list []Standby) {
	s := &p.standbys
	s.mu.Lock()
	defer s.mu.Unlock()
	listed := make(map[*reader]bool, len(list))
	for _, one := range list {
		r := s.find(one.Name, one.Place)
		if one.Lost {
			p.cutOff(r)
			continue
		}
		if r == nil {
			r = p.newReader(one)
			s.all = append(s.all, r)
		}
		listed[r] = true
		r.Tell(viewOf(&one))
		if !r.open {
			r.open = true
			r.Target.Resume(0)
		}
	}
	s.all = slices.DeleteFunc(s.all, func(r *reader) bool {
		if listed[r] {
			return false
		}
		r.shut()
		return s.bury(r)
	})
	s.publish()
	for _, w := range p.workers {
		w.LookForStandbys()
	}
}

// shut closes idle connections, and has those who wait for one go elsewhere.
func (r *reader) shut() {
	if r.open {
		r.open = false
		r.Target.Hold("it is no standby that can be read from")
		r.Target.Recycle("nobody reads from it any more")
	}
}

// cutOff ends what is under way on a standby that has been lost, once.
func (p *Proxy) cutOff(r *reader) {
	if r == nil || !r.open {
		return
	}
	r.shut()
	for _, w := range p.workers {
		w.CutOff(r.Standby)
	}
}

func (s *standbys) find(name string, at server.Place) *reader {
	i := slices.IndexFunc(s.all, func(r *reader) bool { return r.Name == name && r.place == at })
	if i < 0 {
		return nil
	}
	return s.all[i]
}

// publish lets the sessions choose among them.
func (s *standbys) publish() {
	all := make([]*standby.Standby, 0, len(s.all))
	for _, r := range s.all {
		if r.open {
			all = append(all, r.Standby)
		}
	}
	if !slices.Equal(all, s.set.All()) {
		s.set.Replace(all)
	}
}

// bury ends a standby that is not used any more, if it has no connection, and keeps what it has counted.
func (s *standbys) bury(r *reader) bool {
	if connectionsOf(r.Target) > 0 {
		return false
	}
	r.Target.Close() // which has no dial to wait for
	if s.gone == nil {
		s.gone = make(map[string]reading)
	}
	sum := s.gone[r.Name]
	sum.add(r)
	s.gone[r.Name] = sum
	return true
}

// viewOf translates to the clock of the loops.
func viewOf(s *Standby) standby.View {
	v := standby.View{Since: loop.NanosAt(s.Since), Seen: loop.NanosAt(s.Seen), Avoid: s.Avoid}
	if !s.Shows.IsZero() {
		v.Shows = loop.NanosAt(s.Shows)
	}
	return v
}

func (p *Proxy) newReader(one Standby) *reader {
	r := &reader{Standby: standby.New(one.Name), proxy: p, place: one.Place, open: true, traffic: make([]stats.Pool, len(p.loops))}
	r.Target = pool.NewTarget(readConfig(p.poolConfig()), r)
	if p.standbys.start != nil {
		p.standbys.start(r.Target)
	}
	return r
}

// readConfig is what the pools of a standby are told: as many connections as to the primary. Who waits for one is told of the first
// dial that fails, as it can go elsewhere.
func readConfig(c pool.Config) pool.Config {
	c.Hold, c.MinConnections = -1, 0
	return c
}

// begin lets the targets do what time brings, until ctx ends.
func (s *standbys) begin(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start = func(t *pool.Target) { s.running.Go(func() { t.Run(ctx) }) }
	for _, r := range s.all {
		s.start(r.Target)
	}
}

// end closes all, as the last clients have gone.
func (s *standbys) end() {
	s.mu.Lock()
	all := slices.Clone(s.all)
	s.start = func(t *pool.Target) { t.Close() }
	s.mu.Unlock()
	for _, r := range all {
		r.Target.Close()
	}
}

// each calls f with the target of each standby.
func (s *standbys) each(f func(*pool.Target)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.all {
		f(r.Target)
	}
}

// Dial implements pool.Dialer.
func (r *reader) Dial(ctx context.Context, in *pool.Pool, private any) (pool.Conn, error) {
	began := loop.Nanos()
	conn := session.NewServer(in, r.traffic)
	conn.Generation = math.MaxUint64 // those of the primary's connections do not concern it
	transport, err := r.proxy.dial(ctx, in, private, &r.place, conn)
	if err != nil {
		return nil, err
	}
	conn.LeadsTo(r.Standby, standby.Connection{Dialled: began, Ready: loop.Nanos()})
	conn.Dialled(transport, r.proxy.workers)
	return conn, nil
}

// add adds what a standby has counted.
func (n *reading) add(r *reader) {
	for i := range r.traffic {
		n.transactions += r.traffic[i].Transactions.Load()
	}
	s := r.Target.Stats()
	n.opened += s.Opened
	if n.closed == nil {
		n.closed = make(map[string]uint64)
	}
	for why, count := range s.Closed {
		n.closed[why] += count
	}
}

// snapshot reads the counters, by name. What it counts besides is over all standbys.
func (s *standbys) snapshot() (all []stats.StandbySnapshot, total reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byName := make(map[string]*stats.StandbySnapshot)
	find := func(name string) *stats.StandbySnapshot {
		if byName[name] == nil {
			byName[name] = &stats.StandbySnapshot{Name: name}
		}
		return byName[name]
	}
	total.closed = make(map[string]uint64)
	for name, one := range s.gone {
		find(name).Transactions += one.transactions
		total.opened += one.opened
		for why, count := range one.closed {
			total.closed[why] += count
		}
	}
	for _, r := range s.all {
		before := total.transactions
		total.add(r)
		one, o := find(r.Name), r.Target.Stats()
		one.Transactions += total.transactions - before
		one.Open, one.Avoided = one.Open || r.open, r.View().Avoid
		one.Idle, one.Active, one.Dialing = one.Idle+o.Idle, one.Active+o.Lent, one.Dialing+o.Dialing
		one.Closing, one.Waiting = one.Closing+o.Closing, one.Waiting+o.Waiting
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, *byName[name])
	}
	return all, total
}
