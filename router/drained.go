package router

import (
	"fmt"
	"slices"
	"sync"
)

// drained are the targets that an operator has taken out of service, by name.
type drained struct {
	mu    sync.Mutex // held for slice accesses
	names []string
}

func (d *drained) has(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.names, name)
}

// set puts a name in or takes it out, and reports whether it was otherwise.
func (d *drained) set(name string, out bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.names, name)
	switch {
	case out == (i >= 0):
		return false
	case out:
		d.names = append(d.names, name)
	default:
		d.names = slices.Delete(d.names, i, i+1)
	}
	return true
}

// Drain takes a target out of service: it is not the primary until Restore, under none of its names, and nobody is to be sent there.
// Another that is promoted is accepted as ever. It lasts for the router's life, also when the target is not listed for a while.
// An error says that nobody is called so.
func (r *Router) Drain(name string) error { return r.setDrained(name, true) }

// Restore ends a Drain. An error says that nobody is called so, or that it is not drained.
func (r *Router) Restore(name string) error { return r.setDrained(name, false) }

func (r *Router) setDrained(name string, out bool) error {
	known := slices.ContainsFunc(r.Topology().Targets, func(t Target) bool { return t.Name == name })
	changed := (known || !out) && r.drained.set(name, out)
	switch {
	case !known && !changed:
		return fmt.Errorf("no server is called %q", name)
	case !out && !changed:
		return fmt.Errorf("%s is not drained", name)
	}
	r.Look()
	return nil
}
