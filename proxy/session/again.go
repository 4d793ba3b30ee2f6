package session

import (
	"errors"
	"io"
	"slices"
	"time"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// A client whose server ends before it has done anything notices nothing: what it has asked for is asked for again, of another
// server. That is done only where it is certain that nothing of it has taken effect; docs/pitfalls.md has the proofs and their
// reasons. The client's own messages are kept for that, as far as nothing has been answered and they are short, and put back
// as if they had not been read.

// attempt is what a session has asked its linked server for. It belongs to the server; linkTo begins it anew.
type attempt struct {
	asked    []byte // the client's messages, as it has sent them
	writes   int    // how many writes have carried what was made of them, and
	written  int    // how many bytes the latest of them had
	at       int64  // loop.Nanos of the first one
	unsent   bool   // the first one has failed: the server has got nothing
	executed bool   // an Execute has been answered

	named []server.Entry // requests about named statements that have been answered
	spent bool           // it cannot be made again: the client has got a part of the answer, or too much was asked for
}

const (
	// maxAsked bounds what is kept of a request, in bytes. Each server connection has room for one.
	maxAsked = 16 << 10

	// maxAgain bounds how often one request is made again, should every server end.
	maxAgain = 3

	// crossing is how long a statement may have run that the server has ended by a FATAL and that is run again. A person
	// who terminates a statement has seen it run for longer, and does not want it to begin anew.
	crossing = time.Second

	// undoable are the effects of statements that are undone as a whole when their transaction is aborted.
	undoable = state.Write | state.SetLocal | state.Sequence | state.Notify | state.Begin | state.ReadOnlyBegin |
		state.Savepoint | state.ReleaseSavepoint
)

// errAgain says that the server has ended, and that what it was asked for is asked for again.
var errAgain = errors.New("server has ended before it did anything")

func (a *attempt) begin() { *a = attempt{asked: a.asked[:0], named: a.named[:0]} }

// keep takes messages of the client that are about to be written.
func (a *attempt) keep(messages []byte) {
	if a.spent {
		return
	}
	if len(a.asked)+len(messages) > maxAsked {
		a.spend()
		return
	}
	a.asked = append(a.asked, messages...)
}

func (a *attempt) spend() {
	if !a.spent {
		clear(a.named)
		a.spent, a.asked, a.named = true, a.asked[:0], a.named[:0]
	}
}

// carried notes a write.
func (a *attempt) carried(n int, now int64, err error) {
	if a.writes == 0 {
		a.at, a.unsent = now, err != nil
	}
	a.writes++
	a.written = n
}

// heed notes a reply to a request of the client's that is delivered to it: a transaction that may be over, or a statement that has run.
func (a *attempt) heed(t byte, done server.Entry, completes bool) {
	switch {
	case t == wire.ReadyForQuery, t == wire.CommandComplete && !completes:
		a.spend()
	case completes && done.Name != "" && !a.spent:
		a.named = append(a.named, done)
	case completes && done.Kind == server.Execute:
		a.executed = true
	}
}

// repeatable tells whether the request could be made again, if it has had no effect: it is the beginning of a transaction, all
// of it is kept, the client has got nothing of the answer, and needs nothing that the server had.
func (s *Session) repeatable() bool {
	l := s.link
	a := &l.attempt
	if a.spent || len(a.asked) == 0 || s.reruns >= maxAgain || s.phase != active || !s.virtual() || s.pinned != nil {
		return false
	}
	if l.Status != wire.Idle || s.is(partial|hungUp|unwanted) || s.scan.Left() > 0 || l.audited || l.Replies.Starving() {
		return false
	}
	return l.owesNothingElse()
}

// neverReached tells whether the connection to the linked server has ended, with err, such that nothing of what was
// asked for has reached it.
func (s *Session) neverReached(err error) bool {
	l := s.link
	if l == nil || !s.repeatable() {
		return false
	}
	ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	return l.unsent() || (ended && l.unreceived())
}

// unsent tells whether the request has not been written, and will not be: the write has failed, or waits for the end of the turn.
func (l *Server) unsent() bool {
	return l.attempt.unsent || (l.attempt.writes == 1 && (l.Bounced() || l.Unsend()))
}

// unreceived tells whether nothing of the request had come to the server when it sent what has been read last.
func (l *Server) unreceived() bool { return l.attempt.writes == 1 && l.Unreceived(l.attempt.written) }

// neverBegan tells whether an ErrorResponse of the linked server says that it ends, and that nothing of what was asked for has
// taken effect.
func (s *Session) neverBegan(p wire.Piece) bool {
	if !p.End || !s.repeatable() {
		return false
	}
	l := s.link
	body := wire.Body(p.Data)
	if string(wire.ErrorField(body, 'V')) != "FATAL" || string(wire.ErrorField(body, 'C')) != "57P01" {
		return false
	}
	if l.unsent() || l.unreceived() {
		return true
	}
	// The routine tells that PostgreSQL itself has checked for interrupts, and not that somebody on the way gives up.
	if string(wire.ErrorField(body, 'R')) != "ProcessInterrupts" || exceeds(crossing, time.Duration(l.worker.Loop.Nanos()-l.attempt.at)) {
		return false
	}
	return !l.begun() || s.effects&^undoable == 0
}

// begun tells whether the linked server may have begun to execute something of the client's. Replies come in the order of the
// requests, and are sent before a FATAL.
func (l *Server) begun() bool {
	if l.attempt.executed {
		return true
	}
	head := l.Replies.Head()
	if head == nil || head.Fate != server.Forward {
		return false
	}
	return head.Kind == server.Query || head.Kind == server.Function || head.Kind == server.Execute
}

// runAgain parts the session from its server, which has ended, and makes its request again.
func (s *Session) runAgain(l *Server) {
	w := s.worker
	w.log().Info("server has ended before it did anything: its client's request is made again", append(s.attrs(), attrPID(l))...)
	w.shared.Suspect()
	w.Stats.Reruns.Inc()
	s.reruns++
	messages := slices.Concat(l.attempt.asked, s.conn.TakeKept())
	s.set(touched, false)            // no transaction has come of it
	for i := range l.attempt.named { // as if they had not been answered; what the server holds does not matter any more
		l.attempt.named[i].Op = 0
		s.unconfirmed++
	}
	s.bereave(l, slices.Concat(l.attempt.named, l.owed()))
	s.conn.Keep(messages)
	w.Loop.Later((*continued)(s))
}
