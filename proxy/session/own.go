package session

import (
	"log/slog"
	"slices"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// The session's own requests are simple Queries between the client's, whose replies are swallowed.

const (
	purposeOpen    uint8 = iota + 1 // the settings of a client that is logging in
	purposeReplay                   // the settings of a client at the begin of its transaction
	purposeAudit                    // what a transaction has left in the server's session
	purposeForget                   // what others have left that no audit shows
	purposeRestore                  // settings that the client has come with, behind a RESET in a block
	purposeOrphan                   // a failed block in place of one that was lost with its server
)

// ask sends a query of the session's own, ahead of what stands at position at.
func (s *Session) ask(e *edit, at int, purpose uint8, sql []byte) {
	l := s.link
	e.upTo(at)
	e.out = wire.AppendQuery(e.out, sql)
	l.Replies.Push(server.Entry{
		Kind: server.Query, Fate: server.Swallow, Purpose: purpose,
		Unnamed: true, Client: s.unnamed, Server: l.Unnamed,
	})
	l.Unnamed, l.UnnamedSegment = nil, 0 // the client's own stays: it is prepared again when it is needed
	l.NextSegment()
}

// askNow sends a query of the session's own when nothing else is being written.
func (s *Session) askNow(purpose uint8, sql []byte) {
	e := edit{out: s.worker.toServer[:0]}
	s.ask(&e, 0, purpose, sql)
	s.worker.toServer = keepBuffer(e.out)
	s.send(e.out)
}

// resetAll brings a server back to the settings that its connection began with.
const resetAll = "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;"

// replay gives the server the client's settings if it has others. It reports whether there was something to send.
//
// What the client asks for is on its way in the same write, and must not be done under other settings, those of an earlier
// client perhaps. If the server refuses one (a role that was dropped), the block is left open, failed, and refuses that too.
func (s *Session) replay(e *edit, at int, purpose uint8) bool {
	l := s.link
	if l.Settings == s.settings && !l.tainted {
		return false
	}
	var sql []byte
	if l.tainted {
		sql = append([]byte(resetAll), state.Diff(nil, s.settings)...)
	} else {
		sql = state.Diff(l.Settings, s.settings)
	}
	l.Settings, l.tainted = s.settings, false
	if sql == nil {
		return false
	}
	s.worker.Stats.StateReplays.Inc()
	s.ask(e, at, purpose, slices.Concat([]byte("BEGIN;"), sql, []byte("COMMIT")))
	return true
}

// probe finds out whether the Syncs of a copy that has failed are still to be answered. It closes a portal that does not
// exist, which is answered and changes nothing, whatever the server's state.
func (s *Session) probe() {
	out := appendProbe(s.worker.toServer[:0])
	s.worker.toServer = keepBuffer(out)
	s.link.Replies.Push(server.Entry{Kind: server.Close, Fate: server.Swallow})
	s.send(out)
}

func appendProbe(dst []byte) []byte {
	dst = wire.AppendTarget(dst, wire.Close, 'P', statement.Prefix)
	return wire.AppendEmpty(dst, wire.Flush)
}

// resolve leaves the client unread until it is known whether the server skips what it sends (see server.Replies.Resolve).
func (s *Session) resolve(e *edit, at int) {
	e.upTo(at)
	e.out = appendProbe(wire.AppendEmpty(e.out, wire.Sync))
	s.link.Replies.Resolve()
	s.link.NextSegment()
	s.set(stalled, true)
}

// inspect looks at what the server answers to a request of our own. The rest of a message is that of a row: nothing else
// is longer than what the server sends at once.
func (s *Session) inspect(p wire.Piece) {
	l := s.link
	head := l.Replies.Head()
	if (p.Type != wire.DataRow && p.Start) || head == nil {
		return
	}
	switch head.Purpose {
	case purposeAudit, purposeOutcome:
		l.answer = append(l.answer, p.Data...)
	case purposeIdentity:
		l.commit.identity = append(l.commit.identity, p.Data...)
	}
}

// ownRequestFailed deals with the server's refusal of a request of the session's own.
func (s *Session) ownRequestFailed() {
	l := s.link
	body := l.failure
	l.failure = nil
	answer := wire.Error{
		Code:    string(wire.ErrorField(body, 'C')),
		Message: string(wire.ErrorField(body, 'M')),
		Detail:  string(wire.ErrorField(body, 'D')),
		Hint:    string(wire.ErrorField(body, 'H')),
	}
	attrs := append(s.attrs(), attrPID(l), slog.String("sqlstate", answer.Code), slog.String("message", answer.Message))
	if l.refused == purposeOutcome {
		l.answer = nil
		s.learn()
		return
	}
	if l.refused == purposeAudit && s.phase == opening {
		s.introduce() // in the client's own spelling
		return
	}
	if l.refused == purposeAudit {
		s.worker.log().Warn("server refused to tell what its session holds: the client keeps it", attrs...)
		l.answer = nil
		s.pin(state.Unknown, pinUnknown, pinUnknown+": "+answer.Message, lasting)
		s.settle()
		return
	}
	s.unlink().retire("settings refused")
	if s.phase == opening && answer.Code == startOnly {
		s.openOwn(answer.Message)
		return
	}
	s.worker.log().Warn("server refused the client's settings", attrs...)
	s.fatal(answer)
}
