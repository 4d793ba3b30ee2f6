package session

import (
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
)

// pin is why a session keeps its server between transactions.
type pin struct {
	kind    string // a word of a small fixed set
	reason  string // for people
	lasting bool   // an audit does not show it, so none can end it
	endless bool   // not even DISCARD ALL ends it
}

// Kinds of pins that are no effect of a text. The others have the names that state.Pins gives.
const (
	pinLargeStatement = "large statement"
	pinUnknown        = "unknown state"
	pinStartup        = "parameter of the connection's start"
	pinListen         = "LISTEN"
)

// forEver are effects that nothing but the end of a connection undoes, and that no audit shows.
const forEver = state.Seed | state.Load | state.Opaque

// duration says what ends a pin.
type duration uint8

const (
	whileFound duration = iota // until an audit does not find it any more
	lasting                    // until DISCARD ALL
	endless                    // until the client leaves
)

// pin keeps the session's server for it. why is the effect that has done it, 0 if it is none of a text.
func (s *Session) pin(why state.Effect, kind, reason string, d duration) {
	if s.pinned != nil && s.pinned.lasting && d == whileFound {
		return
	}
	pins := s.worker.shared.Pins
	if s.pinned != nil && s.pinned.kind == kind {
		if s.pinned.reason != reason {
			s.pinned.reason = reason
			pins.rename(s, reason)
		}
		return
	}
	s.pinned = &pin{kind: kind, reason: reason, lasting: d != whileFound, endless: d == endless}
	var text []byte
	if s.link != nil { // it is not at a login
		text = s.link.causes.of(why)
	}
	one := s.pinnedClient(kind, reason, text)
	if pins.add(s, one, state.Fingerprint(text)) {
		s.worker.log().Info("session is pinned to its server; said once for each statement", attrsOfPin(&one)...)
	}
	s.warn(reason)
}

// pinFor is pin for what a text says and no audit shows.
func (s *Session) pinFor(why state.Effect, d duration) {
	kind, _ := state.Pins(why)
	s.pin(why, kind, reasonOf(why, s.link.causes.of(why)), d)
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
