package discover

import (
	"context"
	"slices"
	"sync"
	"time"
)

// List is a source of targets that somebody has written down. A reload replaces them.
type List struct {
	mu      sync.Mutex
	targets []Target
	changed chan struct{} // holds a token if there is a list that Run has not published
}

// NewList returns a list of targets. Those without a name are called host:port. Nothing is published as long as it is empty.
func NewList(targets []Target) *List {
	l := &List{changed: make(chan struct{}, 1)}
	_ = l.Replace(targets) // With an empty list it waits for another one.
	return l
}

// Replace puts other targets in the place of all. An empty list is not taken: it changes nothing, and answers ErrEmpty.
func (l *List) Replace(targets []Target) error {
	if len(targets) == 0 {
		return ErrEmpty
	}
	l.mu.Lock()
	l.targets = named(targets)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
	return nil
}

// Run implements Source.
func (l *List) Run(ctx context.Context, publish func(Snapshot)) {
	for {
		select {
		case <-l.changed:
			l.mu.Lock()
			s := Snapshot{Targets: l.targets, At: time.Now()}
			l.mu.Unlock()
			publish(s)
		case <-ctx.Done():
			return
		}
	}
}

// named copies targets and names those that have no name.
func named(targets []Target) []Target {
	targets = slices.Clone(targets)
	for i := range targets {
		if targets[i].Name == "" {
			targets[i].Name = targets[i].Addr()
		}
	}
	return targets
}
