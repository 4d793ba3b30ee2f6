// Package router decides which server is the primary, from what probes have seen and what sources say, and publishes that as an
// immutable Topology. It moves no traffic: whoever does reads the Topology, or is told of each new one.
//
// The invariant: no server becomes the primary unless its own answer, judged by what was seen before, says that it is one, and
// that it has what the last primary was seen to have, or that what is missing has been told.
package router

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// Prober watches one server; *probe.Prober is one.
type Prober interface {
	Run(ctx context.Context)
	Suspect()
	Latest() *probe.Observation
}

// Config says what is watched and how it is judged.
type Config struct {
	// Sources tell where servers are. A server that several of them name is one target, named as the first one names it.
	Sources []discover.Source

	// NewProber makes the prober of a target, which calls changed after each observation.
	NewProber func(target discover.Target, changed func()) Prober

	// Version tells configurations apart whose probers differ. A reload with the same one keeps those that it can.
	Version string

	// Writable refuses a primary whose writes are switched off (target_session_attrs=read-write).
	Writable bool

	// MaxLost is how many bytes of WAL a switch may lose, as far as is known, without an authority that confirms it; 0: any.
	MaxLost uint64

	// MaxLag and MaxLagBytes are how far a standby may be behind for clients to be sent there; 0: any distance.
	MaxLag      time.Duration
	MaxLagBytes uint64

	// Lenient is for a single server that nobody has called a primary: whatever is there is used, and nothing that a probe
	// meets keeps clients from it, until it has been seen as a primary and is one no more.
	Lenient bool

	// Changed is called with each topology in which a client could see a difference: another generation, or none where there
	// was a primary, or the other way round. Run's goroutine calls it, and waits for it. It is fixed for the router's life.
	Changed func(*Topology)

	// Watched is called with each topology, whether or not anything is new but positions; nil: nobody is. Run's goroutine calls it,
	// and waits for it. It is fixed for the router's life.
	Watched func(*Topology)
}

// Router watches targets from Run to the end of its context. Run's goroutine judges; the other methods may be called from any.
type Router struct {
	log      *slog.Logger
	topology atomic.Pointer[Topology]
	probers  atomic.Pointer[[]Prober]
	news     atomic.Pointer[chan struct{}] // closed at the next publication

	appointed atomic.Pointer[appointment] // nil: none
	drained   drained

	look   chan struct{} // holds a token when there is something new to judge
	lists  chan list
	reload chan Config

	config  Config
	epoch   int // counts configurations, so that a late list of an earlier one is known
	sources []discover.Snapshot
	targets []*target
	running sync.WaitGroup // probers and sources

	retell    bool // the next publication is told, whatever it says: the configuration is another one
	known     known
	positions positions // of the primary
	lostAt    time.Time // since when there has been no primary, if there was one before
	alarmed   string    // the alarm that has been logged
	switches  []Switch
	switched  uint64
}

// target is a server that is being probed. Run's goroutine has it.
type target struct {
	discover.Target
	prober   Prober
	stop     context.CancelFunc
	begun    time.Time
	seen     *probe.Observation
	timeouts int

	standby      *probe.Observation // the last good one, while clients may read from it
	standbySince time.Time          // since when they may
	reading      *Reading
}

// list is a snapshot of one source.
type list struct {
	epoch, source int
	snapshot      discover.Snapshot
}

// keptSwitches is how many switches are remembered for people.
const keptSwitches = 16

// New returns a router that does nothing yet.
func New(config Config, log *slog.Logger) *Router {
	r := &Router{
		log: log, config: config,
		look: make(chan struct{}, 1), lists: make(chan list), reload: make(chan Config),
	}
	if r.config.Changed == nil {
		r.config.Changed = func(*Topology) {}
	}
	if r.config.Watched == nil {
		r.config.Watched = func(*Topology) {}
	}
	r.probers.Store(new([]Prober))
	news := make(chan struct{})
	r.news.Store(&news)
	r.topology.Store(&Topology{Primary: -1, Why: "no server is known yet"})
	return r
}

// Topology returns the latest one. It is never nil.
func (r *Router) Topology() *Topology { return r.topology.Load() }

// Suspect says that traffic has met something that a change of the primary would explain: all targets are probed at once, and
// often until they are well. It costs next to nothing, and calling it often costs no more.
func (r *Router) Suspect() {
	for _, p := range *r.probers.Load() {
		p.Suspect()
	}
}

// Reload puts another configuration in force, but for Changed and Watched. What has been learned about the cluster stays. It returns when
// Run has taken it, or when ctx ends.
func (r *Router) Reload(ctx context.Context, config Config) error {
	select {
	case r.reload <- config:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run watches until ctx ends. It is called once.
func (r *Router) Run(ctx context.Context) {
	defer r.running.Wait()
	stop := r.consult(ctx)
	defer func() { stop() }()
	defer r.forget(func(*target) bool { return true })
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.look:
		case l := <-r.lists:
			if l.epoch != r.epoch {
				continue
			}
			r.sources[l.source] = l.snapshot
			r.retarget(ctx)
		case config := <-r.reload:
			stop()
			config.Changed, config.Watched = r.config.Changed, r.config.Watched
			other := config.Version != r.config.Version
			r.config, r.retell = config, true
			r.forget(func(*target) bool { return other })
			stop = r.consult(ctx)
			continue // The sources tell what there is to judge.
		}
		r.rule(ctx, time.Now())
	}
}

// consult starts the sources of the configuration, each in a goroutine that ends with the function that it returns.
func (r *Router) consult(ctx context.Context) context.CancelFunc {
	ctx, stop := context.WithCancel(ctx)
	r.epoch++
	r.sources = make([]discover.Snapshot, len(r.config.Sources))
	epoch := r.epoch
	for i, source := range r.config.Sources {
		r.running.Go(func() {
			source.Run(ctx, func(s discover.Snapshot) {
				select {
				case r.lists <- list{epoch: epoch, source: i, snapshot: s}:
				case <-ctx.Done():
				}
			})
		})
	}
	return stop
}

// retarget probes what the sources name now, and nothing else. A source that has not been heard yet makes nothing forgotten.
func (r *Router) retarget(ctx context.Context) {
	named, complete := r.named()
	if complete {
		r.forget(func(t *target) bool {
			return !slices.ContainsFunc(named, func(d discover.Target) bool { return same(t.Target, d) })
		})
	}
	for _, d := range named {
		if i := slices.IndexFunc(r.targets, func(t *target) bool { return same(t.Target, d) }); i >= 0 {
			r.targets[i].Role, r.targets[i].Timeline = d.Role, d.Timeline
			continue
		}
		t := &target{Target: d}
		r.targets = append(r.targets, t)
		r.watch(ctx, t)
	}
	r.share()
}

// named returns the targets of all sources, and whether all of them have been heard.
func (r *Router) named() (all []discover.Target, complete bool) {
	complete = true
	for _, s := range r.sources {
		complete = complete && !s.At.IsZero() && (s.Err == nil || len(s.Targets) > 0)
		for _, d := range s.Targets {
			if !slices.ContainsFunc(all, func(x discover.Target) bool { return x.Addr() == d.Addr() }) {
				all = append(all, d)
			}
		}
	}
	return all, complete
}

// same tells whether both are the same server for a prober. It keeps the name that it was first known by.
func same(a, b discover.Target) bool { return a.Addr() == b.Addr() && a.ServerName == b.ServerName }

// watch starts a target's prober.
func (r *Router) watch(ctx context.Context, t *target) {
	ctx, t.stop = context.WithCancel(ctx)
	t.begun = time.Now()
	t.prober = r.config.NewProber(t.Target, r.Look)
	p := t.prober
	r.running.Go(func() { p.Run(ctx) })
}

// Look has the topology judged anew.
func (r *Router) Look() {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// forget ends the probers of the targets that are no more.
func (r *Router) forget(gone func(*target) bool) {
	r.targets = slices.DeleteFunc(r.targets, func(t *target) bool {
		if gone(t) {
			t.stop()
			return true
		}
		return false
	})
	r.share()
}

// share lets other goroutines reach the probers.
func (r *Router) share() {
	probers := make([]Prober, len(r.targets))
	for i, t := range r.targets {
		probers[i] = t.prober
	}
	r.probers.Store(&probers)
}

// authority returns what the operator has decided, or else what the first source that decides who leads says, in the names of the
// targets here.
func (r *Router) authority() authority {
	if a := r.appointed.Load(); a != nil {
		return authority{heard: true, leader: a.name}
	}
	for _, s := range r.sources {
		if !s.Authority {
			continue
		}
		a := authority{heard: true, leader: s.Leader}
		for _, d := range s.Targets {
			if d.Name != s.Leader {
				continue
			}
			for _, t := range r.targets {
				if t.Addr() == d.Addr() {
					a.leader = t.Name
				}
			}
		}
		return a
	}
	return authority{}
}
