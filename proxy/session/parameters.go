package session

import (
	"maps"
	"slices"

	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// parameterStatus takes a ParameterStatus of the linked server. A value that is new although the client has set nothing
// comes from outside (a reload of the server, a promotion), so that what other clients are welcomed with is outdated.
func (s *Session) parameterStatus(p wire.Piece) {
	if !p.End {
		return
	}
	l := s.link
	name, value, ok := wire.ParseStatus(wire.Body(p.Data))
	if !ok || !l.Report(name, value) {
		return
	}
	head := l.Replies.Head()
	replaying := head != nil && (head.Purpose == purposeOpen || head.Purpose == purposeReplay)
	if s.virtual() && s.pinned == nil && !replaying && !s.effects.Has(state.Set|state.SetLocal|state.Reset|state.ResetAll|state.ResetUser|state.DiscardAll) {
		s.worker.shared.Welcomes.changed(l.pool)
	}
}

// appendParameters appends a ParameterStatus message for each parameter, in the order of their names.
func appendParameters(dst []byte, parameters map[string]string) []byte {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		dst = wire.AppendParameterStatus(dst, name, parameters[name])
	}
	return dst
}
