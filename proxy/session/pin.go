package session

import "pgsidecar/proxy/state"

// pin is why a session keeps its server between transactions.
type pin struct {
	kind   string // a word of a small fixed set
	reason string // for people
}

const pinLargeStatement = "large statement"

// pin keeps the session's server for it. Until a later release can give the state back to another server, a pin lasts
// until the client leaves or discards all.
func (s *Session) pin(kind, reason string) {
	if s.pinned != nil {
		return
	}
	s.pinned = &pin{kind: kind, reason: reason}
	s.worker.log().Info("session is pinned to its server", append(s.attrs(), "kind", kind, "reason", reason)...)
}

// judge pins the session if its transaction has changed the server's session in a way that another client must not meet.
func (s *Session) judge() {
	l := s.link
	if reason, ok := state.Pins(s.effects); ok {
		s.pin(reason, reason)
	}
	if len(l.answer) == 0 {
		return
	}
	findings := state.DecodeCheck(l.answer)
	l.answer = l.answer[:0]
	if reason := findings.Reason(); reason != "" {
		s.pin("found", reason)
	}
}
