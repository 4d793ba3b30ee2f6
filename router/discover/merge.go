package discover

import (
	"context"
	"errors"
	"sync"
)

// merged is several sources as one.
type merged struct{ sources []Source }

// Merge makes one source of several. A server that more than one of them names, by its address, is one target, with the name that the first of
// them gives it and the first role that anyone knows. Of several authorities the first is heard.
func Merge(sources ...Source) Source { return &merged{sources: sources} }

// news is a snapshot of one source.
type news struct {
	source int
	Snapshot
}

// Run implements Source. Nothing is published before every source has said something, even if that was an error: a list that lacks
// one source's servers would look as if those had gone.
func (m *merged) Run(ctx context.Context, publish func(Snapshot)) {
	arrived := make(chan news)
	var running sync.WaitGroup
	defer running.Wait()
	for i, source := range m.sources {
		running.Go(func() {
			source.Run(ctx, func(s Snapshot) {
				select {
				case arrived <- news{i, s}:
				case <-ctx.Done():
				}
			})
		})
	}
	latest := make([]*Snapshot, len(m.sources))
	silent := len(m.sources)
	for {
		select {
		case n := <-arrived:
			if latest[n.source] == nil {
				silent--
			}
			latest[n.source] = &n.Snapshot
			if silent == 0 {
				publish(combine(latest))
			}
		case <-ctx.Done():
			return
		}
	}
}

// Refresh asks those sources again that can be asked.
func (m *merged) Refresh() {
	for _, source := range m.sources {
		if s, ok := source.(interface{ Refresh() }); ok {
			s.Refresh()
		}
	}
}

func combine(snapshots []*Snapshot) (all Snapshot) {
	index := map[string]int{} // of targets, by address
	var errs []error
	for _, s := range snapshots {
		if s.Err != nil {
			errs = append(errs, s.Err)
		}
		if s.At.After(all.At) {
			all.At = s.At
		}
		leads := s.Authority && !all.Authority
		all.Authority = all.Authority || s.Authority
		for _, t := range s.Targets {
			i, ok := index[t.Addr()]
			if !ok {
				i = len(all.Targets)
				index[t.Addr()] = i
				all.Targets = append(all.Targets, t)
			}
			known := &all.Targets[i]
			if known.Role == Unknown {
				known.Role = t.Role
			}
			known.Timeline = max(known.Timeline, t.Timeline)
			if leads && t.Name == s.Leader {
				all.Leader = known.Name
			}
		}
	}
	all.Err = errors.Join(errs...)
	return all
}
