// Package switchover makes a standby the primary on purpose. It promotes nobody by itself unless it is told to, and it judges nobody:
// that the new primary is one is for the router to see.
//
// The invariant: the standby has replayed all that the primary had acknowledged to anybody behind this proxy, before anybody is asked
// to promote it. Up to that moment everything can be undone, and is when something takes too long; after it nothing is.
package switchover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/router"
	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// Traffic is what waits while the primary is changed.
type Traffic interface {
	// Suspend lets no transaction begin until Continue.
	Suspend(why string)
	Continue()
	// Busy counts the transactions that are under way.
	Busy(ctx context.Context) (int, error)
}

// Cluster is whatever decides who leads, a Patroni for example.
type Cluster interface {
	// Switchover asks for another leader, and returns when there is one, or when that has failed; an error that is
	// discover.ErrRefused says that nothing was done. Both servers come with all names under which they are known.
	Switchover(ctx context.Context, from, to []discover.Target) error
}

// Config is what a switchover works with.
type Config struct {
	Router  *router.Router
	Traffic Traffic
	// Connect returns how a target is connected to, as the role that does what has to be done there.
	Connect func(discover.Target) (*pgconn.Config, error)
}

// Plan is what is asked for. The zero values of the durations mean the defaults named with them.
type Plan struct {
	To      string  // the name of the standby that takes over; "": the one that has replayed most
	Promote bool    // fence the primary and call pg_promote(); else Cluster promotes, or the operator when told to
	Cluster Cluster // decides who leads; nil: nobody does

	Finish  time.Duration // how long transactions that are under way may take to end; 5 s
	CatchUp time.Duration // how long the standby may take to replay what is missing; 5 s
	Wait    time.Duration // how long the promotion may take, the operator's part included; 10 s
}

// Step is how far a switchover has come: a word of a small fixed set.
type Step string

// The steps in their order. Fenced is one of Plan.Promote only, Ready one where the operator promotes.
const (
	Chosen   Step = "chosen"    // who takes over is known, follows, and everything that is needed is permitted
	Held     Step = "held"      // no transaction begins any more
	Finished Step = "finished"  // and none is under way
	Fenced   Step = "fenced"    // nor does anybody else write
	CaughtUp Step = "caught_up" // the standby has everything
	Ready    Step = "ready"     // it is the operator's turn
	Asked    Step = "asked"     // the promotion has been asked for
	Switched Step = "switched"  // the new primary has been seen to be one, and transactions go on
)

// Event is a step that has been taken.
type Event struct {
	Step Step
	Text string        // a sentence for people
	Took time.Duration // since the step before
}

// Outcome is how a switchover went.
type Outcome struct {
	From, To string
	LSN      probe.LSN     // up to where the primary had written when nobody wrote any more
	Held     time.Duration // for those who waited, from the first to the last of them
	Fenced   bool          // the old primary has its writes switched off
}

// ErrBusy says that another switchover is under way.
var ErrBusy = errors.New("another switchover is under way")

// Switchover changes the primary, one change at a time. Its methods may be called from any goroutine.
type Switchover struct {
	config Config
	busy   sync.Mutex // held for the whole of a Run, and only tried
}

// New returns a switchover that does nothing yet.
func New(config Config) *Switchover { return &Switchover{config: config} }

// run is one switchover under way.
type run struct {
	*Switchover

	plan     Plan
	tell     func(Event)
	from, to router.Target
	primary  *session
	standby  *session
	lap      time.Time
	asking   sync.WaitGroup // the request to the cluster
	outcome  Outcome
}

// Run changes the primary, and calls tell after each step. It ends early when ctx does, unless the promotion has been asked for.
// Every error says what has become of the transactions and of the servers.
func (s *Switchover) Run(ctx context.Context, plan Plan, tell func(Event)) (Outcome, error) {
	if !s.busy.TryLock() {
		return Outcome{}, ErrBusy
	}
	defer s.busy.Unlock()
	plan.Finish = defaulted(plan.Finish, 5*time.Second)
	plan.CatchUp = defaulted(plan.CatchUp, 5*time.Second)
	plan.Wait = defaulted(plan.Wait, 10*time.Second)
	r := &run{Switchover: s, plan: plan, tell: tell, lap: time.Now()}
	defer r.asking.Wait()
	defer r.disconnect(ctx)
	if err := r.choose(ctx); err != nil {
		return Outcome{}, fmt.Errorf("%w: nothing was changed, and nobody was held", err)
	}
	err := r.change(ctx)
	return r.outcome, err
}

func defaulted(d, standard time.Duration) time.Duration {
	if d <= 0 {
		return standard
	}
	return d
}

// step tells that a step has been taken.
func (r *run) step(s Step, format string, arguments ...any) {
	now := time.Now()
	r.tell(Event{Step: s, Text: fmt.Sprintf(format, arguments...), Took: now.Sub(r.lap)})
	r.lap = now
}

// choose finds out who takes over, and whether that can work, before anybody is held.
func (r *run) choose(ctx context.Context) error {
	if r.plan.Promote && r.plan.Cluster != nil {
		return errors.New("promote: who leads is decided by the cluster, which would undo it")
	}
	if err := r.parties(); err != nil {
		return err
	}
	if err := r.connect(ctx); err != nil {
		return err
	}
	if r.plan.Promote {
		if err := r.primary.mayFence(ctx, r.from.Name); err != nil {
			return err
		}
		if err := r.standby.mayPromote(ctx, r.to.Name); err != nil {
			return err
		}
	}
	if _, err := r.catchUp(ctx); err != nil {
		return err
	}
	r.outcome.From, r.outcome.To = r.from.Name, r.to.Name
	r.step(Chosen, "%s takes over from %s", r.to.Name, r.from.Name)
	return nil
}

// parties takes the primary and the standby from the topology.
func (r *run) parties() error {
	t := r.config.Router.Topology()
	from := t.Accepted()
	if from == nil {
		return errors.New("there is no primary to switch over from: " + t.Why)
	}
	r.from = *from
	best, called := -1, false
	for i := range t.Targets {
		one := &t.Targets[i]
		named := one.Name == r.plan.To
		called = called || named
		switch {
		case named && one.Name == from.Name:
			return fmt.Errorf("%s is the primary already", one.Name)
		case named && !fit(t, one):
			return fmt.Errorf("%s cannot take over: it is no standby of this cluster that is in service (%s)", one.Name, one.Refusal)
		case r.plan.To != "" && !named, !fit(t, one), r.plan.To == "" && one.SameAs != "":
		case best < 0 || one.Seen.LSN > t.Targets[best].Seen.LSN:
			best = i
		}
	}
	switch {
	case best >= 0:
		r.to = t.Targets[best]
		return nil
	case r.plan.To != "" && !called:
		return fmt.Errorf("no server is called %q", r.plan.To)
	}
	return errors.New("there is no standby that could take over")
}

// fit tells whether a target is a standby of the same cluster that is well.
func fit(t *router.Topology, one *router.Target) bool {
	return one.Role() == "standby" && !one.Drained && (t.SystemID == 0 || one.Seen.SystemID == t.SystemID)
}

// change does what has been prepared.
func (r *run) change(ctx context.Context) error {
	r.config.Traffic.Suspend("the primary is being switched over to " + r.to.Name)
	held := time.Now()
	defer func() {
		r.config.Traffic.Continue()
		r.outcome.Held = time.Since(held)
	}()
	r.step(Held, "no transaction begins any more")
	if err := r.drain(ctx); err != nil {
		r.unfence(ctx)
		r.config.Router.Suspect()
		return fmt.Errorf("%w: nothing was changed, and transactions go on at %s", err, r.from.Name)
	}
	upTo := probe.LSN(0)
	if r.outcome.Fenced {
		upTo = r.outcome.LSN
	}
	defer r.config.Router.Appoint(r.to.Name, upTo)()
	if asked, err := r.promote(ctx); err != nil {
		if !asked {
			r.unfence(ctx)
			return fmt.Errorf("%w: nothing was changed, and transactions go on at %s", err, r.from.Name)
		}
		return fmt.Errorf("%w; whether %s is promoted is not known, transactions go on wherever the primary is, and nothing was undone",
			err, r.to.Name)
	}
	r.step(Switched, "%s is the primary after %.3f s", r.to.Name, time.Since(held).Seconds())
	return nil
}

// drain brings everything to the point from which only the promotion is missing.
func (r *run) drain(ctx context.Context) error {
	if err := r.finish(ctx); err != nil {
		return err
	}
	r.step(Finished, "no transaction is under way")
	if r.plan.Promote {
		r.outcome.Fenced = true // Even if only half of it works: it is undone as a whole.
		if err := r.primary.fence(ctx, r.plan.Finish); err != nil {
			return fmt.Errorf("fence %s: %w", r.from.Name, err)
		}
		r.step(Fenced, "%s takes no writes (default_transaction_read_only)", r.from.Name)
	}
	var err error
	if r.outcome.LSN, err = r.catchUp(ctx); err != nil {
		return err
	}
	r.step(CaughtUp, "%s has all that %s has written, up to %s", r.to.Name, r.from.Name, r.outcome.LSN)
	return nil
}

// lookEvery is how often something is looked at that tells nobody when it changes.
const lookEvery = 2 * time.Millisecond

// finish waits for the transactions under way to end.
func (r *run) finish(ctx context.Context) error {
	left := -1
	err := until(ctx, r.plan.Finish, func(ctx context.Context) (bool, error) {
		n, err := r.config.Traffic.Busy(ctx)
		if err == nil {
			left = n
		}
		return n == 0 && err == nil, err
	})
	if errors.Is(err, errTooLong) && left < 0 {
		return fmt.Errorf("the transactions under way could not be counted within %v", r.plan.Finish)
	}
	if errors.Is(err, errTooLong) {
		return fmt.Errorf("%d transactions did not end within %v", left, r.plan.Finish)
	}
	return err
}

// catchUp waits until the standby has replayed all that the primary has written by now, and returns up to where that is.
func (r *run) catchUp(ctx context.Context) (probe.LSN, error) {
	upTo, err := r.primary.seal(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask %s how far it has written: %w", r.from.Name, err)
	}
	var at probe.LSN
	err = until(ctx, r.plan.CatchUp, func(ctx context.Context) (bool, error) {
		var err error
		at, err = r.standby.replayed(ctx)
		return at >= upTo, err
	})
	if errors.Is(err, errTooLong) {
		return 0, fmt.Errorf("%s has replayed up to %s, and not up to %s as %s has written, after %v",
			r.to.Name, at, upTo, r.from.Name, r.plan.CatchUp)
	}
	if err != nil {
		return 0, fmt.Errorf("ask %s how far it has replayed: %w", r.to.Name, err)
	}
	return upTo, nil
}

// promote has the standby promoted, and waits until it is the primary. It tells whether the promotion has been asked for.
func (r *run) promote(ctx context.Context) (asked bool, err error) {
	if r.plan.Promote || r.plan.Cluster != nil {
		ctx = context.WithoutCancel(ctx) // It cannot be undone from here on.
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answer := make(chan error, 1)
	switch {
	case r.plan.Promote:
		err = r.standby.promote(ctx)
		_, refused := errors.AsType[*pgconn.PgError](err)
		asked = !refused
	case r.plan.Cluster != nil:
		asked = true
		r.asking.Go(func() { r.request(ctx, answer) })
	}
	if err != nil {
		return asked, fmt.Errorf("ask for the promotion: %w", err)
	}
	r.primary.close(ctx) // Who stops the old primary need not wait for us.
	if asked {
		r.step(Asked, "the promotion of %s has been asked for", r.to.Name)
	} else {
		r.step(Ready, "stop %s, then promote %s, within %v", r.from.Name, r.to.Name, r.plan.Wait)
	}
	err = until(ctx, r.plan.Wait, func(context.Context) (bool, error) {
		select {
		case err := <-answer: // nil: it will be seen soon.
			if err != nil {
				return false, err
			}
		default:
		}
		r.config.Router.Suspect()
		p := r.config.Router.Topology().Accepted()
		return p != nil && p.Name != r.from.Name, nil
	})
	if errors.Is(err, errTooLong) {
		return true, fmt.Errorf("%s was not seen to be the primary within %v: %s", r.to.Name, r.plan.Wait, r.config.Router.Topology().Why)
	}
	return !errors.Is(err, discover.ErrRefused), err
}

// request is the goroutine that asks the cluster, whose answer may come long after the new primary is there.
func (r *run) request(ctx context.Context, answer chan<- error) {
	ctx, cancel := context.WithTimeout(ctx, r.plan.Wait)
	defer cancel()
	t := r.config.Router.Topology()
	answer <- r.plan.Cluster.Switchover(ctx, namesOf(t, &r.from), namesOf(t, &r.to))
}

// namesOf returns a server under all its names.
func namesOf(t *router.Topology, server *router.Target) []discover.Target {
	all := []discover.Target{server.Target}
	for i := range t.Targets {
		if one := &t.Targets[i]; one.SameAs == server.Name || one.Name == server.SameAs {
			all = append(all, one.Target)
		}
	}
	return all
}

// errTooLong says that something was not seen in time.
var errTooLong = errors.New("it takes too long")

// until looks again and again until something is so.
func until(ctx context.Context, limit time.Duration, is func(ctx context.Context) (bool, error)) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		done, err := is(limited)
		switch {
		case done:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("given up: %w", ctx.Err())
		case limited.Err() != nil:
			return errTooLong
		case err != nil:
			return err
		}
		select {
		case <-tick.C:
		case <-limited.Done():
		}
	}
}
