package session

import (
	"log/slog"
	"sync"
	"time"

	"pgsidecar/proxy/statement"
)

// pin is why a session keeps its server between transactions.
type pin struct {
	kind    string // a word of a small fixed set
	names   string // for people; may be empty
	since   time.Time
	lasting bool // an audit does not show it, so none can end it
	endless bool // not even DISCARD ALL ends it
}

// Kinds of pins that an audit does not find.
const (
	pinLargeStatement = "large statement"
	pinUnknown        = "unknown state"
	pinStartup        = "parameter of the connection's start"
	pinSequence       = "currval() or lastval()"
	pinEndless        = "LOAD, setseed() or a function with lasting effects"
)

// duration says what ends a pin.
type duration uint8

const (
	whileFound duration = iota // until an audit does not find it any more
	lasting                    // until DISCARD ALL
	endless                    // until the client leaves
)

// pin keeps the session's server for it.
func (s *Session) pin(kind, names string, d duration) {
	if s.pinned != nil && s.pinned.kind == kind && s.pinned.names == names {
		return
	}
	if s.pinned != nil && s.pinned.lasting && d == whileFound {
		return
	}
	s.unpin()
	s.pinned = &pin{kind: kind, names: names, since: time.Now(), lasting: d != whileFound, endless: d == endless}
	s.worker.shared.Pins.add(s, *s.pinned)
	s.worker.log().Info("session is pinned to its server", append(s.attrs(), slog.String("kind", kind), slog.String("names", names))...)
}

// isLarge tells whether it is statements too large to be kept that hold the session.
func (p *pin) isLarge() bool { return p != nil && p.kind == pinLargeStatement }

// holdsLarge tells whether the client has a statement that cannot be prepared again.
func (s *Session) holdsLarge() bool {
	large := s.unnamed != nil && !s.unnamed.Kept()
	if s.names != nil {
		s.names.All(func(_ string, st *statement.Statement) bool {
			large = large || !st.Kept()
			return !large
		})
	}
	return large
}

func (s *Session) unpin() {
	if s.pinned != nil {
		s.pinned = nil
		s.worker.shared.Pins.remove(s)
	}
}

// Pinned describes a session that keeps its server.
type Pinned struct {
	User, Database, Client string
	Kind, Names            string
	Since                  time.Time
}

// Pins knows the sessions that keep their servers. Any goroutine may use it.
type Pins struct {
	mu struct { // held for a map access
		sync.Mutex
		all map[*Session]Pinned
	}
}

func newPins() *Pins {
	p := new(Pins)
	p.mu.all = make(map[*Session]Pinned)
	return p
}

func (p *Pins) add(s *Session, one pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.all[s] = Pinned{
		User: s.who.User, Database: s.who.Database, Client: s.conn.Remote().String(),
		Kind: one.kind, Names: one.names, Since: one.since,
	}
}

func (p *Pins) remove(s *Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.all, s)
}

// All returns the pinned sessions in no particular order.
func (p *Pins) All() []Pinned {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Pinned, 0, len(p.mu.all))
	for _, one := range p.mu.all {
		all = append(all, one)
	}
	return all
}
