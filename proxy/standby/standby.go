// Package standby knows the servers that clients may read from, and which of them shows what a client has to see. It knows no
// protocol, and it does not find out how far a standby has come: whoever watches the servers tells it (Standby.Tell).
//
// What a client has to see is a moment: everything that was committed before it. A commit is not after the moment at which the
// proxy has read its answer. The primary's position, asked for after that moment, is not before the commit, and a standby that has
// replayed up to there shows it. So a standby is known by the latest moment at which the primary was asked for a position that the
// standby has replayed (View.Shows), and moments are all that is compared.
//
// The invariant: what holds for a standby holds for a connection to it only if it is certain that the server has not been started
// anew between the two, as a standby that starts begins earlier than where it was. See Standby.Shows.
//
// Moments are those of loop.Nanos. 0 is none.
package standby

import (
	"math/rand/v2"
	"sync/atomic"

	"pgsidecar/proxy/pool"
)

// Standby is one server that clients may read from. Any goroutine may call its methods.
type Standby struct {
	Name   string
	Target *pool.Target // the connections to it

	view  atomic.Pointer[View]
	using atomic.Int64
}

// View is what is known of a standby.
type View struct {
	// Shows is the moment before which everything that was committed is visible; 0: it is not known.
	Shows int64

	// Seen is when the standby said how far it has come, over a connection that was logged in at Since: in between it has not
	// been started anew.
	Since, Seen int64

	// Avoid keeps transactions from it: it is too far behind. Connections and what is under way stay.
	Avoid bool
}

// New returns a standby of which nothing is known.
func New(name string) *Standby {
	b := &Standby{Name: name}
	b.view.Store(new(View))
	return b
}

// Tell replaces what is known of it.
func (b *Standby) Tell(v View) { b.view.Store(&v) }

// View returns what is known of it.
func (b *Standby) View() View { return *b.view.Load() }

// Use counts the sessions that are linked to it: 1 for one more, -1 for one less.
func (b *Standby) Use(change int64) { b.using.Add(change) }

// Using returns how many sessions are linked to it.
func (b *Standby) Using() int64 { return b.using.Load() }

// Needs is what a client has to see. The zero value: it does not matter.
type Needs struct {
	Wrote int64    // when its last commit had been answered
	Read  int64    // when its last read had been answered
	On    *Standby // where that was; nil: on the primary
}

// Connection is the life of a connection to a standby: when it began to be dialled, and when it had been logged in.
type Connection struct{ Dialled, Ready int64 }

// Shows tells whether all that a client has to see is certain to be visible over a connection.
//
// The connection shows what the view says if it was dialled and logged in while the connection existed over which the view was
// got: that one would have ended with the server. And it shows what another connection to the same standby has shown, if both
// existed at the same time, or each while the view's did, for the same reason.
func (b *Standby) Shows(n Needs, c Connection) bool {
	v := b.view.Load()
	believed := v.Since < c.Dialled && c.Ready < v.Seen
	moment := n.Wrote
	if same := c.Ready <= n.Read || believed && v.Since < n.Read && n.Read < v.Seen; b != n.On || !same {
		moment = max(moment, n.Read)
	}
	return moment == 0 || believed && v.Shows > moment
}

// Outdated tells whether a connection will never be believed: it was there before the one over which the standby is seen now.
func (b *Standby) Outdated(c Connection) bool { return c.Dialled <= b.view.Load().Since }

// promises tells whether a connection that exists is likely to show it.
func (b *Standby) promises(n Needs, v *View) bool {
	moment := n.Wrote
	if b != n.On {
		moment = max(moment, n.Read)
	}
	return moment == 0 || v.Shows > moment
}

// Set is the standbys that there are. The zero value is empty. Any goroutine may use it.
type Set struct{ all atomic.Pointer[[]*Standby] }

// Replace makes these the standbys that there are. Nobody changes the list any more.
func (s *Set) Replace(all []*Standby) { s.all.Store(&all) }

// All returns the standbys. Nobody changes the list.
func (s *Set) All() []*Standby {
	if all := s.all.Load(); all != nil {
		return *all
	}
	return nil
}

// Fit is how many standbys may be chosen, and why others may not.
type Fit struct {
	Standbys int // that may be
	Behind   int // that do not show yet what has to be seen
}

// Choose returns the standby to read from: of two that are picked by chance among those that will do, the one that is less in
// use. It is nil if there is none.
func (s *Set) Choose(n Needs) (*Standby, Fit) {
	var fit Fit
	var picked [2]*Standby // two of those seen so far, each with the same chance
	for _, b := range s.All() {
		v := b.view.Load()
		switch {
		case v.Avoid:
			continue
		case !b.promises(n, v):
			fit.Behind++
			continue
		}
		fit.Standbys++
		if at := fit.Standbys - 1; at < len(picked) {
			picked[at] = b
		} else if at = rand.IntN(fit.Standbys); at < len(picked) { //nolint:gosec // Spreads the load; nothing secret.
			picked[at] = b
		}
	}
	a, b := picked[0], picked[1]
	if b == nil {
		return a, fit
	}
	if x, y := a.Using(), b.Using(); y < x || x == y && rand.IntN(2) == 0 { //nolint:gosec // The same.
		return b, fit
	}
	return a, fit
}
