package session

import (
	"errors"
	"slices"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// maxReads bounds how often one connection is read before the loop looks at the others.
const maxReads = 4

// deliver brings what the server has sent to the client. The server is not read while the client does not take what there
// is already.
func (s *Session) deliver(l *Server) {
	for range maxReads {
		if s.conn.Blocked() {
			return
		}
		buf, err := l.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			return
		}
		if err != nil {
			s.serverLost(l, err)
			return
		}
		s.replies(l, buf)
		if s.link != l || !l.Unread() {
			return
		}
	}
	s.worker.Loop.Later((*delivered)(l))
}

// replies takes what was read from the server, writes to the client what is for it, and then looks whether the server is
// still needed.
func (s *Session) replies(l *Server, buf []byte) {
	w := s.worker
	w.Stats.BytesFromServers.Add(uint64(len(buf)))
	if s.who.Mode == Replication {
		s.tell(buf)
		return
	}
	e := edit{in: buf, out: w.toClient[:0]}
	at := 0
	var fault error
	for at < len(buf) {
		p, err := l.Scan.Next(buf[at:])
		if err != nil {
			fault = err
			break
		}
		if len(p.Data) == 0 {
			break
		}
		end := at + len(p.Data)
		if !p.Start {
			if l.cut {
				s.inspect(p)
				e.cut(at, end)
			}
			if p.End {
				s.makeUp(&e, end)
			}
		} else if fault = s.reply(&e, at, p); fault != nil {
			break
		}
		s.set(partial, !p.End && !l.cut)
		at = end
	}
	if errors.Is(fault, errAgain) {
		w.toClient = keepBuffer(e.out) // of an answer that will be given anew
		s.runAgain(l)
		return
	}
	l.Keep(buf[at:])
	out := e.result(at)
	w.toClient = keepBuffer(e.out)
	s.noteWrite(l)
	if len(out) > 0 {
		l.attempt.spend()
		s.reruns = 0
	}
	s.tell(s.withhold(out))
	switch {
	case errors.Is(fault, errRefused):
		s.ownRequestFailed()
	case fault != nil:
		s.outOfStep(l, fault)
	case s.phase == ended:
	case l.failure != nil && l.Replies.Settled():
		s.ownRequestFailed()
	case s.phase == opening && l.Replies.Settled():
		s.introduce()
	default:
		s.settle()
	}
}

var (
	// errStray is a reply that nothing was asked for.
	errStray = errors.New("reply without a request")
	// errRefused says that the server has refused the client's settings. What it answers to the client is no answer then.
	errRefused = errors.New("settings refused")
)

// reply decides what becomes of the message that begins at position at.
func (s *Session) reply(e *edit, at int, p wire.Piece) error {
	l := s.link
	end := at + len(p.Data)
	l.cut = false
	s.makeUp(e, at) // what comes belongs to a request behind those that were not sent
	if p.Type == wire.ErrorResponse {
		if s.neverBegan(p) {
			return errAgain
		}
		s.errorResponse(e, at, p)
		if l.failure != nil && l.refused == purposeReplay {
			return errRefused
		}
		return nil
	}
	verdict, done, completes := l.Replies.Reply(p.Type)
	switch verdict {
	case server.Stray:
		return errStray
	case server.Drop:
		if head := l.Replies.Head(); p.Type == wire.ParameterStatus && head != nil && head.Purpose == purposeRestore {
			break // what RESET has made the server report is not what the client has
		}
		s.inspect(p)
		e.cut(at, end)
		l.cut = true
	case server.Deliver:
		l.attempt.heed(p.Type, done, completes)
	}
	switch p.Type {
	case wire.ReadyForQuery:
		l.Status = p.Data[len(p.Data)-1]
		if verdict == server.Deliver {
			l.commit = commitment{}
		}
		l.since = s.worker.Loop.Nanos()
		switch {
		case l.Status != wire.Idle:
		case l.Replies.Empty():
			l.began = 0
		default:
			l.began = l.since // the next transaction was sent in the same pipeline
		}
		s.set(unwanted, s.is(unwanted) && !l.Replies.Empty())
		if l.Status != wire.Idle && s.who.Mode == Statement {
			return errTransactionBlock
		}
	case wire.ParameterStatus:
		s.parameterStatus(p)
	case wire.CommandComplete:
		if verdict == server.Deliver {
			s.commandComplete(p, done, completes)
		}
	case wire.NotificationResponse:
		switch {
		case !s.virtual():
		case !s.mayListen():
			e.cut(at, end) // of a LISTEN that was not this client's
			l.cut = true
		case p.End:
			s.heardOwn(p.Data)
		}
	}
	if completes {
		s.completed(done)
	}
	if p.End {
		s.makeUp(e, end)
	}
	return nil
}

// mayListen tells whether notifications from the linked server are the client's: it is known to listen, or it may have begun
// to and the audit that will tell has not been answered, or looked at. Notifications do not wait for that.
func (s *Session) mayListen() bool {
	if s.pinned != nil || s.link.audited || s.effects.Has(state.Listen) || state.Suspicious(s.effects) {
		return true
	}
	head := s.link.Replies.Head()
	return head != nil && head.Purpose == purposeAudit
}

// makeUp answers, behind position at, the requests at the head of the queue that the server was not asked.
func (s *Session) makeUp(e *edit, at int) {
	for {
		entry, ok := s.link.Replies.MadeUp()
		if !ok {
			return
		}
		e.upTo(at)
		e.out = s.appendMadeUp(e.out, entry)
	}
}

func (s *Session) appendMadeUp(dst []byte, entry server.Entry) []byte {
	if entry.Name != "" {
		s.unconfirmed--
		s.link.attempt.heed(0, entry, true)
	}
	if entry.Kind == server.Parse {
		return wire.AppendEmpty(dst, wire.ParseComplete)
	}
	return wire.AppendEmpty(dst, wire.CloseComplete)
}

// completed notes what the server has confirmed.
func (s *Session) completed(done server.Entry) {
	l := s.link
	if done.Name != "" {
		s.unconfirmed--
	}
	switch {
	case done.Unnamed:
		l.UnnamedAnswered(done.Op)
	case done.Op != 0:
		before := l.Held.Len()
		l.Held.Done(done.Statement, done.Op)
		s.countHeld(before)
	}
	if done.Purpose != 0 {
		s.cancelPostponed()
	}
	if done.Purpose == purposeOrphan {
		s.set(orphaned, false) // the status is the server's from now on
	}
	switch {
	case done.Purpose == purposeAudit:
		l.audited = l.failure == nil
	case done.Purpose == purposeIdentity:
		l.commit.known = l.failure == nil
	case done.Purpose == purposeUnlisten && l.failure == nil:
		s.moved()
	}
}

// errorResponse passes an error on, and undoes what was expected of the requests that the server skips because of it.
func (s *Session) errorResponse(e *edit, at int, p wire.Piece) {
	l := s.link
	if s.parting(p) {
		e.cut(at, at+len(p.Data))
		return
	}
	l.attempt.spend()
	body := wire.Body(p.Data)
	if !p.End {
		body = nil // longer than anything PostgreSQL says; its fields are not looked at
	}
	end := at + len(p.Data)
	code := wire.ErrorField(body, 'C')
	dropped, failed, stray := l.Replies.Fail()
	severity := wire.ErrorField(body, 'V')
	l.dying = stray || string(severity) == "FATAL" || string(severity) == "PANIC"
	if !stray && failed.Purpose == purposeOrphan && !l.dying {
		e.cut(at, end) // as it should: the block has failed
		l.cut = true
		return
	}
	if !stray && failed.Fate == server.Swallow && failed.Kind == server.Query && !l.dying {
		l.failure, l.refused = append([]byte(nil), body...), failed.Purpose
		e.cut(at, end)
		l.cut = true
		return
	}
	s.set(undone, true)
	if !s.refusedBy(p) {
		s.worker.shared.Errors.Add(code, fromServer)
	}
	if string(code) == readOnlyTransaction && l.standby == nil {
		s.worker.shared.Suspect()
	}
	if string(code) == "0A000" && string(wire.ErrorField(body, 'R')) == "RevalidateCachedQuery" {
		s.spoil(failed)
	}
	if name := s.ownName(failed, body); name != "" {
		e.cut(at, end)
		e.upTo(end)
		e.out = wire.AppendErrorWith(e.out, body, 'M', name)
	}
	for i, entry := range slices.Backward(dropped) {
		s.undo(entry, i == 0 && string(code) != duplicateStatement)
	}
	if slices.ContainsFunc(dropped, func(entry server.Entry) bool { return entry.Unnamed }) {
		s.redoUnnamed()
	}
	if p.End {
		s.makeUp(e, end)
	}
}

// readOnlyTransaction is what a write meets on a server that is not the primary any more, and in a READ ONLY transaction.
const readOnlyTransaction = "25006"

// duplicateStatement is how the server refuses a name that it has: then it holds one of our names against expectation.
const duplicateStatement = "42P05"

// undo takes back what was noted when a request was sent that the server has refused (failed) or skipped.
func (s *Session) undo(entry server.Entry, failed bool) {
	l := s.link
	switch {
	case entry.Unnamed && failed && entry.Kind == server.Parse:
		// The server has dropped its unnamed statement before it looked at the new one.
		l.Unnamed = nil
		if entry.Fate == server.Forward {
			s.unnamed = nil
		}
		l.UnnamedAnswered(entry.Op)
	case entry.Unnamed:
		s.unnamed, l.Unnamed = entry.Client, entry.Server
		l.UnnamedAnswered(entry.Op)
	case entry.Op != 0:
		before := l.Held.Len()
		if failed {
			l.Held.Refused(entry.Statement, entry.Op)
		} else {
			l.Held.Skipped(entry.Statement, entry.Op)
		}
		s.countHeld(before)
	}
	if entry.Name == "" {
		return
	}
	s.unconfirmed--
	if entry.Kind == server.Parse {
		s.forgetName(entry.Name)
	} else {
		s.nameStatement(entry.Name, entry.Statement)
	}
}

// redoUnnamed follows the changes of the unnamed statement that are still to come, after earlier ones have been undone.
func (s *Session) redoUnnamed() {
	l := s.link
	l.Replies.Owed(func(e *server.Entry) {
		if !e.Unnamed {
			return
		}
		e.Client, e.Server = s.unnamed, l.Unnamed
		l.Unnamed = nil
		if e.Kind == server.Parse {
			l.Unnamed = e.Statement
		}
		if e.Fate == server.Forward {
			s.unnamed = l.Unnamed
		}
	})
}

// outOfStep ends a session because the server's stream makes no sense (or because of what it makes plain that the client
// has done). Nothing of the connection can be trusted any more.
func (s *Session) outOfStep(l *Server, err error) {
	answer := errOutOfStep()
	if errors.Is(err, errTransactionBlock) {
		answer = errBlockInStatementMode()
	} else {
		s.worker.log().Error("server connection is out of step: closed", append(s.attrs(), attrPID(l), attrError(err))...)
	}
	s.unlink()
	if answer == errBlockInStatementMode() {
		l.retire("transaction block in pool mode statement")
	} else {
		l.gone()
	}
	s.fatal(answer)
}

// spoil makes a statement whose plan the server refuses to go on with be prepared anew, everywhere. Tables have changed, so
// what others have prepared may be outdated, too.
func (s *Session) spoil(failed server.Entry) {
	s.worker.shared.catalog.Add(1)
	if failed.Statement != nil {
		failed.Statement.Spoil()
	}
}

// named returns the client's names, making room for them at the first one.
func (s *Session) named() *statement.Names {
	if s.names == nil {
		s.names = new(statement.Names)
	}
	return s.names
}
