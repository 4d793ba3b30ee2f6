package discover

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// ErrEmpty says that a source was asked and named no server.
var ErrEmpty = errors.New("no server was named")

// leastPause lies between two attempts of a source, however often Refresh is called.
const leastPause = 200 * time.Millisecond

// rounds asks again and again, and keeps what was last good.
type rounds struct {
	every   time.Duration
	refresh chan struct{} // holds a token if Refresh was called since the last attempt
}

func newRounds(every, standard time.Duration) rounds {
	if every <= 0 {
		every = standard
	}
	return rounds{every: every, refresh: make(chan struct{}, 1)}
}

// Refresh says that something may have changed: the source is asked again soon. Any goroutine may call it, as often as it likes.
func (r *rounds) Refresh() {
	select {
	case r.refresh <- struct{}{}:
	default: // There will be an attempt.
	}
}

// run publishes what ask finds until ctx ends. ask gets the last good targets, and is bounded in time by itself.
func (r *rounds) run(ctx context.Context, publish func(Snapshot), ask func(ctx context.Context, known []Target) (Snapshot, error)) {
	var known []Target
	for {
		s, err := ask(ctx, known)
		if ctx.Err() != nil {
			return
		}
		if err == nil && len(s.Targets) == 0 {
			err = ErrEmpty
		}
		if err != nil {
			s = Snapshot{Targets: known, Err: err}
		}
		known, s.At = s.Targets, time.Now()
		publish(s)
		if !r.pause(ctx) {
			return
		}
	}
}

// pause waits for the next attempt's time and tells whether there is one. Many proxies that were started at once do not stay
// in step.
func (r *rounds) pause(ctx context.Context) bool {
	timer := time.NewTimer(leastPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	rest := max(0, r.every-leastPause)
	//nolint:gosec // It keeps no secret.
	timer.Reset(rest - rest/10 + rand.N(rest/5+1))
	select {
	case <-timer.C:
		return true
	case <-r.refresh:
		return true
	case <-ctx.Done():
		return false
	}
}
