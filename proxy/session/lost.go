package session

import (
	"errors"
	"slices"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// A client outlives its server if all that it had there was a transaction: that has been rolled back, whatever the client
// believes, unless its commit was under way. It is told so once, in the place of the answers that it is owed. If it was in a
// transaction block it goes on in a failed one, as after any other error, until it ends it; that block is a real one on the
// server that it meets next, so that the server itself answers what comes in it.

// serverLost deals with the end of the connection to the linked server.
func (s *Session) serverLost(l *Server, err error) {
	switch {
	case s.is(resolving):
		s.inquireElsewhere(l)
		return
	case s.neverReached(err):
		s.runAgain(l)
		return
	case s.lostTrial(l):
		return
	}
	s.worker.shared.Suspect()
	answer := errServerLost()
	switch {
	case l.words != nil:
		answer = *l.words
	case errors.Is(err, errElsewhere):
		answer = errSwitched()
	}
	if l.commit.asked {
		answer = errOutcomeUnknown()
	}
	told := l.dying && l.words == nil // the client has the server's own last words, and expects the end
	if !told && s.outlives(l) {
		s.worker.log().Warn("server closed the connection", append(s.attrs(), attrPID(l), attrError(err))...)
		s.outlive(l, answer)
		return
	}
	s.unpin()
	s.unlink()
	l.gone()
	if s.phase == ended {
		return
	}
	if told || s.who.Mode == Replication {
		s.finish(impolite) // the server's own last words have been passed on
		return
	}
	s.worker.log().Warn("server closed the connection: client closed", append(s.attrs(), attrPID(l), attrError(err))...)
	s.fatal(answer)
}

// outlives tells whether the session holds nothing on the linked server but a transaction.
func (s *Session) outlives(l *Server) bool {
	if s.phase != active || !s.virtual() || s.pinned != nil || s.is(partial|hungUp) || l.audited || l.Replies.Starving() {
		return false
	}
	if s.effects.Has(audited|forEver|state.SequenceRead) || state.Suspicious(s.effects) {
		return false // it may have changed its session, which is gone
	}
	return l.owesNothingElse()
}

// owesNothingElse tells whether all that the server owes are answers to the client, and to what is put in front of any transaction.
func (l *Server) owesNothingElse() bool {
	nothing := true
	l.Replies.Owed(func(e *server.Entry) {
		switch e.Purpose {
		case 0, purposeReplay, purposeForget, purposeOrphan, purposeIdentity:
		default:
			nothing = false
		}
	})
	return nothing
}

// parting tells whether an ErrorResponse is a server's last word before it shuts down, as the one that serves next makes good, and keeps it.
// Of other reasons to end a session (its own timeouts) the client is told by the server.
func (s *Session) parting(p wire.Piece) bool {
	l := s.link
	if !p.End {
		return false
	}
	body := wire.Body(p.Data)
	if severity := string(wire.ErrorField(body, 'V')); severity != "FATAL" && severity != "PANIC" {
		return false
	}
	switch code := string(wire.ErrorField(body, 'C')); code {
	case "57P01", "57P02", "57P03": // admin_shutdown, crash_shutdown, cannot_connect_now
		if s.is(resolving) {
			l.dying = true
			return true
		}
		if !s.outlives(l) {
			return false
		}
		l.dying = true
		l.words = &wire.Error{
			Code: code, Message: string(wire.ErrorField(body, 'M')), Detail: string(wire.ErrorField(body, 'D')),
			Hint: "The transaction has been rolled back; whether a COMMIT that was under way took effect is not known.",
		}
		return true
	}
	return false
}

// outlive parts the session from its server, which is lost, and answers what that owes.
func (s *Session) outlive(l *Server, answer wire.Error) {
	answer.Severity = "ERROR"
	owed := l.owed()
	last := l.lastWords(owed)
	switch {
	case last != nil && l.commit.undone:
		s.rolledBack(l, last)
		return
	case last != nil && s.pursue(l, last):
		return
	}
	open := l.Replies.Open()
	if l.Status != wire.Idle && last == nil {
		s.set(orphaned, true)
	}
	waits := l.Replies.Skipping()
	out, told := s.answerOwed(owed, answer, waits)
	if told || open || s.is(orphaned) && len(owed) == 0 {
		s.refusal = &answer
		s.set(refused, told)
	}
	s.set(dropping, s.scan.Left() > 0)
	s.bereave(l, owed)
	s.tell(out)
	s.worker.Loop.Later((*continued)(s))
}

// owed returns what the server owes, from the oldest to the latest.
func (l *Server) owed() (all []server.Entry) {
	l.Replies.Owed(func(e *server.Entry) { all = append(all, *e) })
	return all
}

// bereave parts the session from its server, which is lost, and undoes what was noted of requests that it has not answered.
func (s *Session) bereave(l *Server, owed []server.Entry) {
	for _, entry := range slices.Backward(owed) {
		s.undo(entry, false)
	}
	s.set(undone, true)
	s.settleUnlisten()
	s.unlink()
	s.reads.lost()
	s.effects, s.rereads = 0, 0
	s.set(undone|committed|stalled|forgetting|unwanted, false)
	l.gone()
}

// answerOwed makes the answers to requests that no server will answer. told is whether the last of them has got its error but not
// its end, which the client's Sync asks for; also before, if waits.
func (s *Session) answerOwed(owed []server.Entry, answer wire.Error, waits bool) (out []byte, told bool) {
	told = waits
	for _, entry := range owed {
		if entry.Fate == server.Swallow {
			continue
		}
		if !told {
			s.worker.shared.Errors.Add([]byte(answer.Code), fromProxy)
			out = wire.AppendError(out, answer)
			told = true
		}
		switch entry.Kind {
		case server.Query, server.Function, server.Sync:
			out = wire.AppendReadyForQuery(out, s.ready())
			told = false
		default:
		}
	}
	return out, told
}

// ready is the transaction status of a client without a server.
func (s *Session) ready() byte {
	if s.is(orphaned) {
		return wire.Failed
	}
	return wire.Idle
}

// orphan begins a failed block on the linked server, in place of the one that was lost.
func (s *Session) orphan(e *edit, at int) {
	s.ask(e, at, purposeOrphan, []byte(`BEGIN;ROLLBACK TO SAVEPOINT "of a transaction that was lost with its server"`))
}

// Cut parts all servers from their sessions and closes them that were dialled before a generation: they lead elsewhere. It may be
// called from any goroutine.
func (w *Worker) Cut(generation uint64) {
	w.Loop.Post(&cut{worker: w, why: errElsewhere, hits: func(l *Server) bool { return l.Generation < generation }})
}

type cut struct {
	worker *Worker
	hits   func(*Server) bool
	why    error
}

func (c *cut) Run() {
	c.worker.servers.each(func(l *Server) {
		switch {
		case !c.hits(l):
		case l.session != nil:
			l.worker.log().Info("transaction cut", append(l.session.attrs(), attrPID(l), attrError(c.why))...)
			l.session.serverLost(l, c.why)
		case l.watched:
			l.unwatch()
			l.gone()
		case l.leaving: // It need not be waited for: its place is at another server.
			l.finish()
		}
	})
}

// Cut does for the connections that listen what Worker.Cut does for those of sessions.
func (h *Hubs) Cut(generation uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hub := range h.mu.all {
		hub.do(func() {
			if l := hub.conn; l != nil && l.Generation < generation {
				hub.lost()
			}
		})
	}
}
