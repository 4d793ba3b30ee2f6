package session

import (
	"bytes"

	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// Where a transaction runs may depend on the text that it begins with. Such a client is read before a server is asked for; what it
// has sent is kept while it waits.

// acquireFor asks for a server for a transaction that begins with a message.
func (s *Session) acquireFor(p wire.Piece) *Server {
	r := s.reads
	if r == nil {
		return s.acquire()
	}
	again := r.again
	r.again = false
	if r.byText {
		r.reading = !again && (s.beginsReadOnly(p) || s.who.Route == Auto && s.seemsToRead(p))
	}
	if again && r.learn {
		s.worker.shared.refused.add(s.textOf(p))
	}
	return s.acquireRead(again)
}

// seemsToRead tells whether what a message runs is not known to write or to be refused by standbys.
func (s *Session) seemsToRead(p wire.Piece) bool {
	text := s.textOf(p)
	return text != "" && state.Reads([]byte(text)) && !s.isSet("default_transaction_isolation", "serializable") && !s.worker.shared.refused.has(text)
}

// beginsReadOnly tells whether the transaction that begins with a message cannot write, as its client has said, and can run on a
// standby.
func (s *Session) beginsReadOnly(p wire.Piece) bool {
	if !s.worker.config.ReadOnlyTransactions {
		return false
	}
	effects, text := s.firstText(p)
	const within = state.Begin | state.ReadOnlyBegin | state.Commit | state.Rollback
	if effects&^within != 0 || s.isSet("default_transaction_isolation", "serializable") || says(effects, text, "serializable") {
		return false // a standby refuses SERIALIZABLE
	}
	return effects.Has(state.ReadOnlyBegin) || s.isSet("default_transaction_read_only", "on") && !says(effects, text, "write")
}

// firstText returns the effects of what a message is about to run, and its text if it begins a transaction block. They are Unknown where
// it cannot be seen.
func (s *Session) firstText(p wire.Piece) (effects state.Effect, text string) {
	if text = s.textOf(p); text == "" {
		return state.Unknown, ""
	}
	return state.Effects([]byte(text)), text
}

// textOf returns the text that a message is about to run; "": it is not there, or cannot be seen.
func (s *Session) textOf(p wire.Piece) string {
	if !p.End {
		return ""
	}
	switch p.Type {
	case wire.Query:
		return string(queryText(p))
	case wire.Parse:
		if _, _, sql, ok := wire.ParseParse(wire.Body(p.Data)); ok {
			return string(sql)
		}
	case wire.Bind, wire.Describe:
		name, ok := statementName(p)
		st := s.unnamed
		if len(name) > 0 {
			st = nil
			if s.names != nil {
				st = s.names.Get(name)
			}
		}
		if ok && st != nil && st.Kept() {
			return st.Query()
		}
	}
	return ""
}

// isSet tells whether the client's setting of that name has a value.
func (s *Session) isSet(name, value string) bool {
	has, _ := s.settings.Get(name)
	return has == value
}

// says tells whether the text of a statement that begins a transaction has a word in it.
func says(effects state.Effect, text, word string) bool {
	return effects.Has(state.Begin) && bytes.Contains(bytes.ToLower([]byte(text)), []byte(word))
}
