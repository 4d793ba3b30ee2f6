package session

import (
	"slices"
	"sync"
	"sync/atomic"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// What runs on a standby outside of a block may turn out not to be possible there: the standby refuses it as a write, or cancels it
// because what it reads is being removed (a recovery conflict). Then it is run on the primary, and the client notices nothing: its
// messages are kept, and the answer is withheld, until it is known what becomes of them. They are put back as if they had
// not been read. Nothing that a standby does has an effect but on itself, so running it again is always right; texts that affect the
// server they run on do not get there.

// trial is what a session tries on a standby: its first query, or what it sends up to its first Sync. It is over when that has
// been answered, or when the answer is too long to be withheld.
type trial struct {
	on      bool
	whole   bool // all of it has been sent; what the client sends then is left unread until it is over
	refused bool // it is to be run on the primary

	asked   []byte // the client's messages, as it has sent them
	answer  []byte // for the client, withheld
	unnamed *statement.Statement
	parsed  []string     // names that the client has given meanwhile
	closed  []closedName // names that it has taken back
	learn   bool         // it was refused for what it is, and would be again
}

type closedName struct {
	name string
	st   *statement.Statement
}

// maxTrial bounds what is kept of the messages, and of the answer, in bytes.
const maxTrial = 16 << 10

// tries begins a trial with the linked server, if it may end there.
func (s *Session) tries() {
	r := s.reads
	if r == nil {
		return
	}
	a := &r.trial
	*a = trial{asked: a.asked[:0], answer: a.answer[:0]}
	a.on = s.link.standby != nil && s.who.Route != StandbyOnly && s.virtual() && s.phase == active
	a.unnamed = s.unnamed
}

// trying tells whether a trial is under way.
func (s *Session) trying() bool { return s.reads != nil && s.reads.trial.on }

// asks keeps messages that are about to be sent.
func (s *Session) asks(messages []byte) {
	a := &s.reads.trial
	if len(a.asked)+len(messages) > maxTrial {
		s.stopTrying() // too long to be sent again
		return
	}
	a.asked = append(a.asked, messages...)
}

// stopTrying has the client told whatever comes of it.
func (s *Session) stopTrying() { s.tell(s.reads.trial.over()) }

// tryNext takes note of a message that is next to be sent. It reports false if that has to wait until the trial is over.
func (s *Session) tryNext(p wire.Piece) bool {
	a := &s.reads.trial
	if a.whole {
		return false
	}
	if !s.is(touched) {
		if effects, _ := s.firstText(p); effects.Has(state.Begin) {
			s.stopTrying() // a block has more to come
			return true
		}
	}
	switch p.Type {
	case wire.Query, wire.Sync, wire.FunctionCall:
		a.whole = p.End
	case wire.Flush: // the client waits for the answers so far
		s.stopTrying()
	case wire.Parse:
		if name, ok := statementName(p); ok && len(name) > 0 && (s.names == nil || s.names.Get(name) == nil) {
			a.parsed = append(a.parsed, string(name))
		}
	case wire.Close:
		if name, ok := statementName(p); ok && len(name) > 0 && s.names != nil {
			if st := s.names.Get(name); st != nil {
				a.closed = append(a.closed, closedName{string(name), st})
			}
		}
	}
	return true
}

// withhold keeps an answer from the client, as long as the trial may fail. It returns what is to be told now.
func (s *Session) withhold(out []byte) []byte {
	if s.reads == nil {
		return out
	}
	a := &s.reads.trial
	switch {
	case a.on && len(a.answer)+len(out) <= maxTrial:
		a.answer = append(a.answer, out...)
		return nil
	case len(a.answer) == 0:
		a.on = false
		return out
	}
	return append(a.over(), out...)
}

// over ends a trial, and returns the answer so far.
func (a *trial) over() []byte {
	answer := a.answer
	a.on, a.answer = false, nil
	return answer
}

// refusedBy heeds an ErrorResponse of the linked server: it may say that the trial belongs on the primary. It reports whether it does.
func (s *Session) refusedBy(p wire.Piece) bool {
	if !s.trying() || !p.End || s.link.Replies.Empty() || s.link.Replies.Head().Fate == server.Swallow {
		return false
	}
	a, body := &s.reads.trial, wire.Body(p.Data)
	switch code := string(wire.ErrorField(body, 'C')); code {
	case "40001", "40P01": // a standby has no other serialization failures and deadlocks than those with its recovery
		a.refused = true
		s.worker.Stats.ReadsConflict.Inc()
	case readOnlyTransaction, "0A000", "55000":
		if s.who.Route == Auto && string(wire.ErrorField(body, 'R')) != "RevalidateCachedQuery" {
			a.refused, a.learn = true, true
			s.worker.Stats.ReadsRefused.Inc()
		}
	}
	return a.refused
}

// endTrial ends a trial when its server has answered everything. It reports whether the client's messages have been put back, to
// be run on the primary.
func (s *Session) endTrial() bool {
	if !s.trying() {
		return false
	}
	if !s.reads.trial.refused {
		s.stopTrying()
		return false
	}
	s.putBack().giveBack()
	return true
}

// tryNoMore ends a trial that has become a block, or a copy to which the client has to contribute.
func (s *Session) tryNoMore() {
	if l := s.link; s.trying() && (l.Replies.Starving() || l.Replies.Settled() && l.Status != wire.Idle) {
		s.stopTrying()
	}
}

// lostTrial does so when the server has been lost. It reports false if the messages cannot be put back.
func (s *Session) lostTrial(l *Server) bool {
	if !s.trying() {
		return false
	}
	if s.phase != active || s.pinned != nil || s.is(hungUp) || s.scan.Left() > 0 || l.audited {
		s.stopTrying()
		return false
	}
	s.worker.shared.Suspect()
	s.worker.log().Info("standby lost: what it was asked for runs on the primary", append(s.attrs(), attrPID(l))...)
	var owed []server.Entry
	l.Replies.Owed(func(e *server.Entry) { owed = append(owed, *e) })
	for _, entry := range slices.Backward(owed) {
		s.undo(entry, false)
	}
	s.worker.Stats.ReadsLost.Inc()
	s.reads.lost()
	s.putBack().gone()
	return true
}

// putBack makes the session what it was before the trial. It returns the server.
func (s *Session) putBack() *Server {
	a := &s.reads.trial
	for _, name := range a.parsed {
		if s.names != nil && s.names.Get([]byte(name)) != nil {
			s.forgetName(name)
		}
	}
	for _, one := range a.closed {
		s.nameStatement(one.name, one.st)
	}
	s.unnamed = a.unnamed
	messages := slices.Concat(a.asked, s.conn.TakeKept())
	s.reads.again, s.reads.learn = true, a.learn
	a.over()
	s.effects, s.rereads = 0, 0
	s.set(undone|committed|forgetting|stalled|partial|unwanted|touched|wrote, false) // no transaction has come of it
	l := s.unlink()
	s.conn.Keep(messages)
	s.worker.Loop.Later((*continued)(s))
	return l
}

// refusedTexts are fingerprints of texts that seemed to read only and were refused by a standby: they go to the primary from then on. Any
// goroutine may use it; the zero value is empty.
type refusedTexts struct {
	some atomic.Bool // there are any

	mu   sync.Mutex // held for a map access
	seen map[uint64]struct{}
}

// maxRefused bounds them. When there are more, all are found out anew.
const maxRefused = 10_000

func (r *refusedTexts) add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == nil || len(r.seen) >= maxRefused {
		r.seen = make(map[uint64]struct{})
	}
	r.seen[state.Fingerprint([]byte(text))] = struct{}{}
	r.some.Store(true)
}

func (r *refusedTexts) has(text string) bool {
	if !r.some.Load() {
		return false
	}
	fingerprint := state.Fingerprint([]byte(text))
	r.mu.Lock()
	defer r.mu.Unlock()
	_, has := r.seen[fingerprint]
	return has
}
