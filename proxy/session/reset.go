package session

import (
	"slices"
	"strings"

	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// RESET goes back to what the server's connection has begun with, and should go back to what the client has come with. After
// the transaction an audit finds that out (adopt). Within a block the client's value is set right behind the RESET. What the
// client sends meanwhile waits (forgets).

// reset is a setting that the client has reset.
type reset struct {
	name  string
	local bool // until the end of the transaction
}

// resetting are the effects of texts that reset settings.
const resetting = state.Reset | state.ResetUser | state.ResetAll

// resets tells whether a text with these effects has to be followed.
func (s *Session) resets(effects state.Effect) bool {
	return s.startup != nil && (effects.Has(resetting) || (effects != 0 && len(s.link.resets) > 0))
}

// followResets takes note of what a text with these effects resets, and of what it sets again.
func (s *Session) followResets(effects state.Effect, sql []byte) {
	l := s.link
	if state.Suspicious(effects) || effects.Has(state.RollbackTo) {
		l.resets = nil // it is not known what comes of them
		return
	}
	for _, action := range state.Parse(sql) {
		local := action.Effect.Has(state.SetLocal)
		switch {
		case action.Effect.Has(state.ResetAll):
			for _, one := range s.startup.List() {
				if one.Name != "role" && one.Name != "session_authorization" {
					s.noteReset(one.Name, local)
				}
			}
		case action.Effect.Has(resetting):
			if _, came := s.startup.Get(action.Name); came {
				s.noteReset(action.Name, local)
			}
		case action.Effect.Has(state.Set | state.SetLocal):
			l.resets = slices.DeleteFunc(l.resets, func(one reset) bool {
				return action.Name == "" || strings.EqualFold(one.name, action.Name)
			})
		}
	}
}

func (s *Session) noteReset(name string, local bool) {
	if one := (reset{name, local}); !slices.Contains(s.link.resets, one) {
		s.link.resets = append(s.link.resets, one)
	}
}

// restore sets, in a transaction block, what the client has reset to what it has come with. It reports whether it has asked
// for that. It is for when the server owes nothing.
func (s *Session) restore() bool {
	l := s.link
	if len(l.resets) == 0 || !l.Replies.Empty() {
		return false
	}
	resets := l.resets
	l.resets = nil
	if l.Status != wire.InTransaction || s.scan.Left() > 0 {
		return false
	}
	var sql []byte
	for _, one := range resets {
		value, _ := s.startup.Get(one.name)
		sql = append(sql, state.AssignSQL(state.Setting{Name: one.name, Value: value}, one.local)...)
	}
	s.askNow(purposeRestore, sql)
	return true
}

// retell tells the client of the settings that it has come with and that are in force again, where the server has reported
// others: those that its own connection has begun with.
func (s *Session) retell() {
	s.set(retelling, false)
	for name, reported := range s.link.Parameters() {
		if own, came := s.startup.Get(name); came && own != reported && !s.is(partial) {
			s.tell(wire.AppendParameterStatus(nil, name, own))
		}
	}
}
