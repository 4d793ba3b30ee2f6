package session

import (
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// A server remembers the values that its sequences have given, for whoever asks with currval() or lastval(). A session that
// has asked is pinned. What others have left must not be what the first one is told: the server's own error is better.

// usesSequence are the effects of a text that may have made the server remember a value: it is also done by the defaults of
// columns, and by functions.
const usesSequence = state.Sequence | state.Write

// noteSequences notes, after a transaction, whose values the linked server remembers.
func (s *Session) noteSequences() {
	switch l := s.link; {
	case s.effects.Has(usesSequence):
		l.user, s.sequences = s, l
	case state.Suspicious(s.effects) && l.user != s:
		l.user = nil // it may have used one, besides those of an earlier client
	}
}

// forgetSequences is forgetOthersSequences if the statement asks. A nil statement asks for nothing.
func (s *Session) forgetSequences(e *edit, at int, st *statement.Statement) {
	if st != nil && st.Effects.Has(state.SequenceRead) {
		s.forgetOthersSequences(e, at)
	}
}

// forgetOthersSequences makes the linked server forget the values of sequences if they are another client's, or older ones
// than this client has got elsewhere. It comes ahead of what stands at position at, if that is the begin of a transaction; in
// the midst of one they may be the client's own.
func (s *Session) forgetOthersSequences(e *edit, at int) {
	l := s.link
	if (l.user == s && s.sequences == l) || !s.beginning() {
		return
	}
	l.user, s.sequences = s, l
	s.ask(e, at, purposeForget, []byte("DISCARD SEQUENCES"))
}

// beginning tells whether nothing of the client's has been sent since its last transaction.
func (s *Session) beginning() bool {
	only := s.link.Status == wire.Idle
	s.link.Replies.Owed(func(e *server.Entry) {
		only = only && e.Kind == server.Query && e.Fate == server.Swallow
	})
	return only
}
