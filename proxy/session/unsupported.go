package session

import (
	"encoding/binary"
	"log/slog"
	"time"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/stats"
	"pgsidecar/proxy/wire"
)

// Unsupported is what becomes of a statement whose effect only its own server can keep.
type Unsupported uint8

// What may become of it. What no text shows, because a function does it, is found after the transaction, and pins whatever
// is asked for; the client is warned then if it would have been refused.
const (
	PinUnsupported    Unsupported = iota // the session keeps the server
	WarnUnsupported                      // so it does, and the client gets a WARNING
	RefuseUnsupported                    // the statement is refused (0A000) and not run
)

// pinning are the effects that pin a session, if what a text says comes to pass. Those of settings and of LISTEN do not.
const pinning = state.Temp | state.AdvisoryLock | state.HoldCursor | state.Prepare | state.SequenceRead | forEver

// refuses tells whether a text with these effects is not to be run. In a dry run it is only reported.
func (s *Session) refuses(effects state.Effect, text string) bool {
	if !effects.Has(pinning) || s.who.Unsupported != RefuseUnsupported {
		return false
	}
	if s.worker.config.Explain {
		s.report(effects, text, stats.WouldBeRefused)
		return false
	}
	s.report(effects, text, stats.Refused)
	return true
}

// explain reports what would pin the session if it were in mode Transaction. It is for sessions that have a server of their
// own, in a dry run.
func (s *Session) explain(p wire.Piece) {
	if !p.End || !s.worker.config.Explain || s.who.Mode != WholeSession {
		return
	}
	text := queryText(p)
	if p.Type == wire.Parse {
		if _, rest, ok := wire.String(wire.Body(p.Data)); ok {
			text, _, _ = wire.String(rest)
		}
	}
	if effects := state.Effects(text); effects.Has(pinning) {
		s.report(effects, string(text), stats.WouldPin)
	}
}

// report notes a statement that has been refused, or that something else would have become of.
func (s *Session) report(effects state.Effect, text string, verdict stats.Verdict) {
	effects &= pinning
	kind, _ := state.Pins(effects)
	one := s.pinnedClient(kind, reasonOf(effects, []byte(text)), []byte(text))
	if !s.worker.shared.Pins.report(one, verdict, state.Fingerprint([]byte(text))) {
		return
	}
	if verdict == stats.Refused {
		s.worker.log().Warn("statement refused by session.on_unsupported; said once for each statement", attrsOfPin(&one)...)
		return
	}
	s.worker.log().Info("dry run of session.explain: said once for each statement",
		append(attrsOfPin(&one), slog.String("verdict", verdict.String()))...)
}

// pinnedClient says who the client is, and what statement it is about.
func (s *Session) pinnedClient(kind, reason string, text []byte) stats.PinnedClient {
	application, _ := s.settings.Get("application_name")
	return stats.PinnedClient{
		Client: s.conn.Remote().String(), Application: application, Database: s.who.Database, User: s.who.User,
		Kind: kind, Reason: reason, Statement: state.Outline(text, maxOutline), Since: time.Now(),
	}
}

// reasonOf names the first of the effects, which has to be in the text, for people.
func reasonOf(effects state.Effect, text []byte) string {
	if reason := state.Reason(text, effects); reason != "" {
		return reason
	}
	kind, _ := state.Pins(effects)
	return kind
}

const unsupportedHint = "Do without it, or let the session keep its server connection for it: session.on_unsupported: pin (or databases.NAME.on_unsupported)."

// refusalSQL is what the server is asked instead of a text that is refused. It is the server that fails, so that the
// transaction and the rest of the pipeline fail with it, as they do when a server does not support something.
func refusalSQL(effects state.Effect, text []byte) []byte {
	return state.RaiseSQL("0A000", reasonOf(effects&pinning, text)+" is not supported: it would tie the session to its server connection",
		unsupportedHint)
}

// bindRefusal binds what fails in place of a statement that is refused.
func (s *Session) bindRefusal(e *edit, at int, p wire.Piece, portal []byte, effects state.Effect, text string) next {
	sql := refusalSQL(effects, []byte(text))
	instead := s.worker.table.Intern("", append(sql, 0, 0, 0), len(sql))
	s.ensure(e, at, instead)
	s.drop(e, at, p)
	e.out = wire.AppendBindHead(e.out, portal, instead.Name, 3*2)
	for range 3 { // formats, parameters, formats of results: none
		e.out = binary.BigEndian.AppendUint16(e.out, 0)
	}
	s.link.Replies.Push(server.Entry{Kind: server.Bind, Statement: instead})
	return taken
}

// warn tells the client that its session is pinned, if that is asked for.
func (s *Session) warn(reason string) {
	if s.who.Unsupported == PinUnsupported || s.worker.config.Explain || s.is(partial) || s.phase != active {
		return
	}
	s.tell(wire.AppendNotice(nil, wire.Error{
		Severity: "WARNING", Code: "01000",
		Message: "the session is tied to its server connection from now on: " + reason, Hint: unsupportedHint,
	}))
}
