package session

import (
	"errors"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// resume goes on with what was kept while the session waited, and then with what the client has sent meanwhile.
func (s *Session) resume() {
	if s.phase != active || s.waiting() || s.is(stalled|resolving) || s.suspended() {
		return
	}
	if b := s.conn.TakeKept(); b != nil && !s.requests(b) {
		return
	}
	s.pump()
}

// pump reads the client and forwards what it asks for, as long as there is somewhere to forward it to.
//
// A client that will have to wait for a server is left unread, so that it costs nothing while it waits; the exception is
// one that has closed its side, which has to be read to see what it said last.
func (s *Session) pump() {
	for range maxReads {
		if !s.readable() {
			return
		}
		buf, err := s.conn.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			s.idleLink()
			return
		}
		if err != nil {
			s.leave(impolite)
			return
		}
		s.worker.Stats.BytesFromClients.Add(uint64(len(buf)))
		if !s.requests(buf) {
			return
		}
		if !s.conn.Unread() {
			s.idleLink()
			return
		}
	}
	s.worker.Loop.Later((*continued)(s))
}

// readable tells whether the client may be read now, and joins the pool's queue if that is what is missing.
func (s *Session) readable() bool {
	switch {
	case s.phase != active || s.waiting() || s.is(stalled|resolving):
		return false
	case s.link != nil:
		return !s.link.Blocked() && !s.link.beingCancelled() && !s.suspended()
	case s.conn.Blocked():
		return false
	case s.refusal != nil || s.is(hungUp) || s.conn.Kept() > 0 || !s.conn.Unread():
		return true
	case s.reads != nil && s.reads.byText, s.reads == nil && s.who.Pool.Ready(s.worker.Loop.Index()):
		return true
	}
	l := s.acquire()
	if l == nil {
		return false
	}
	s.linkTo(l)
	return true
}

// idleLink lets a server go that turned out not to be needed, or that answers nothing to what was forwarded: copy data
// behind a copy that has failed.
func (s *Session) idleLink() {
	switch {
	case s.link == nil || s.phase != active || s.waiting() || !s.virtual():
	case s.is(touched):
		s.settle()
	default:
		s.unlink().release()
		if s.worker.draining {
			s.drain(&s.worker.Stats.DrainedIdle)
		}
	}
}

// next is what requests does after a message.
type next uint8

const (
	taken next = iota // the message has been dealt with
	later             // it stays unread: a server is missing, or what the server has to answer first
	more              // it stays unread: more of it has to be seen
	over              // the session has ended
)

// requests deals with what was read from the client, and writes to the server what is for it. It reports whether to go on
// reading.
func (s *Session) requests(buf []byte) bool {
	w := s.worker
	if s.who.Mode == Replication {
		s.send(buf)
		return s.link != nil
	}
	if s.link == nil {
		s.since = w.Loop.Nanos()
	}
	e := edit{in: buf, out: w.toServer[:0]}
	w.local = w.local[:0]
	at, step := 0, taken
	from := len(buf) // where what is sent to the server on the client's behalf begins
	if s.is(touched) {
		from = 0
	}
	tried := -1 // where what an attempt asks for begins
	var fault error
	for at < len(buf) && step == taken {
		p, err := s.scan.Next(buf[at:])
		if err != nil {
			fault = err
			break
		}
		if len(p.Data) == 0 {
			break
		}
		if step = s.request(&e, at, p); step == taken {
			if s.is(touched) {
				from = min(from, at)
				if tried < 0 && s.trying() {
					tried = at
				}
			}
			at += len(p.Data)
		}
	}
	if step == later || step == more {
		s.scan.Unread()
	}
	out := e.result(at)
	w.toServer = keepBuffer(e.out)
	local := w.local
	w.local = keepBuffer(w.local)
	s.conn.Keep(buf[at:])
	s.tell(local)
	if tried >= 0 && s.trying() {
		s.asks(buf[tried:at])
	}
	if s.link != nil {
		if s.virtual() {
			s.link.attempt.keep(buf[min(from, at):at])
		}
		if len(out) > 0 {
			s.send(out)
		}
	}
	switch {
	case s.phase == ended || s.phase == closing:
		return false
	case step == over:
		s.leave(polite)
		return false
	case fault != nil:
		s.protocolFault(fault)
		return false
	}
	return step != later && !s.waiting()
}

// send writes to the linked server.
func (s *Session) send(out []byte) {
	l := s.link
	s.worker.Stats.BytesToServers.Add(uint64(len(out)))
	l.since = s.worker.Loop.Nanos()
	if l.began == 0 {
		l.began = l.since
	}
	err := l.Write(out)
	l.attempt.carried(len(out), l.since, err)
	if err != nil {
		// What the server had to say before it closed the connection may still be there to be read.
		s.worker.Loop.Later((*delivered)(l))
	}
}

// request deals with the message that begins at position at.
func (s *Session) request(e *edit, at int, p wire.Piece) next {
	end := at + len(p.Data)
	if !p.Start {
		if s.is(dropping) {
			e.cut(at, end)
		}
		return taken
	}
	s.set(dropping, false)
	l := s.link
	switch {
	case p.Type == wire.Terminate:
		e.cut(at, end)
		return over
	case s.refusal != nil:
		s.refuseRequest(p)
		s.drop(e, at, p)
		return taken
	case l != nil && l.Replies.Doubtful() && !forCopy(p.Type):
		s.resolve(e, at)
		return later
	case l != nil && l.Replies.Skipping() && p.Type != wire.Sync:
		s.drop(e, at, p) // as the server would
		return taken
	case !s.is(touched|orphaned) && s.answer(p):
		s.drop(e, at, p)
		return taken
	case l == nil:
		if l = s.acquireFor(p); l == nil {
			return later
		}
		s.linkTo(l)
	}
	if s.trying() && !s.tryNext(p) {
		s.set(stalled, true)
		return later
	}
	if s.virtual() && s.mustStall(p) {
		s.stall(e, at)
		return later
	}
	if s.virtual() && (!s.is(touched) || (l.Settings != s.settings && s.between())) {
		s.replay(e, at, purposeReplay)
	}
	if s.is(orphaned) && !s.is(touched) {
		s.orphan(e, at)
	}
	return s.forward(e, at, p)
}

// forCopy tells whether a message is ignored outside of COPY, or ends what the server ignores.
func forCopy(t byte) bool {
	switch t {
	case wire.CopyData, wire.CopyDone, wire.CopyFail, wire.Flush, wire.Sync:
		return true
	}
	return false
}

// drop leaves a message out, the part of it that has not arrived yet too.
func (s *Session) drop(e *edit, at int, p wire.Piece) {
	e.cut(at, at+len(p.Data))
	s.set(dropping, !p.End)
}

// answer gives the answers that need no server, to a client that has sent nothing else since its last transaction. It
// reports whether it did.
func (s *Session) answer(p wire.Piece) bool {
	w := s.worker
	switch p.Type {
	case wire.Sync:
		if !bare(p) {
			return false
		}
		w.local = wire.AppendReadyForQuery(w.local, wire.Idle)
		return true
	case wire.Flush:
		return bare(p)
	case wire.CopyData, wire.CopyDone, wire.CopyFail:
		return true // the server ignores copy messages outside of COPY: what follows a copy that has failed
	case wire.Query:
		if text := queryText(p); text == nil || !p.End || !state.Ping(text) {
			return false
		}
		s.unnamed = nil
		w.local = wire.AppendEmpty(w.local, wire.EmptyQueryResponse)
		w.local = wire.AppendReadyForQuery(w.local, wire.Idle)
		return true
	case wire.Close:
		if !p.End {
			return false
		}
		kind, name, ok := wire.ParseTarget(wire.Body(p.Data))
		if !ok || (kind != 'S' && kind != 'P') {
			return false
		}
		if kind == 'S' {
			s.closeName(name)
		}
		w.local = wire.AppendEmpty(w.local, wire.CloseComplete)
		return true
	}
	return false
}

// bare tells whether a message has no body, as it should be with Sync and Flush.
func bare(p wire.Piece) bool { return len(wire.Body(p.Data)) == 0 && p.End }

// queryText returns the text of a whole Query message, without its terminator; nil if there is not just one string.
func queryText(p wire.Piece) []byte {
	text, rest, ok := wire.String(wire.Body(p.Data))
	if !ok || len(rest) > 0 {
		return nil
	}
	return text
}

// forward sends a message to the linked server, after noting what it will answer.
func (s *Session) forward(e *edit, at int, p wire.Piece) next {
	s.set(touched, true)
	l := s.link
	if s.virtual() {
		switch p.Type {
		case wire.Parse:
			return s.parse(e, at, p)
		case wire.Bind:
			return s.bind(e, at, p)
		case wire.Describe:
			return s.describe(e, at, p)
		case wire.Close:
			return s.close(e, at, p)
		case wire.Query:
			return s.query(e, at, p)
		}
	}
	switch p.Type {
	case wire.Query:
		s.explain(p)
		s.worker.Stats.StatementsSimple.Inc()
		l.Replies.Push(server.Entry{Kind: server.Query})
		l.NextSegment()
	case wire.FunctionCall:
		s.does(state.Function)
		l.Replies.Push(server.Entry{Kind: server.Function})
		l.NextSegment()
	case wire.Sync:
		l.Replies.Push(server.Entry{Kind: server.Sync})
		l.NextSegment()
	case wire.Parse:
		s.explain(p)
		l.Replies.Push(server.Entry{Kind: server.Parse})
	case wire.Bind:
		l.Replies.Push(server.Entry{Kind: server.Bind})
	case wire.Describe:
		l.Replies.Push(server.Entry{Kind: describeKind(p)})
	case wire.Close:
		l.Replies.Push(server.Entry{Kind: server.Close})
	case wire.Execute:
		s.worker.Stats.StatementsExtended.Inc()
		s.set(forgetting, s.is(forgetting) || (s.virtual() && s.effects.Has(forgets)))
		l.Replies.Push(s.execution(p))
	case wire.CopyDone, wire.CopyFail:
		l.Replies.CopyEnds()
	case wire.Flush:
		if !bare(p) { // the server refuses it as any other request of the extended protocol
			l.Replies.Push(server.Entry{Kind: server.Close})
		}
		s.flush()
	}
	return taken
}

// flush answers what the server was not asked and nothing else is owed before.
func (s *Session) flush() {
	for !s.is(partial) {
		entry, ok := s.link.Replies.MadeUp()
		if !ok {
			return
		}
		s.worker.local = s.appendMadeUp(s.worker.local, entry)
		s.link.attempt.spend()
	}
}

func describeKind(p wire.Piece) server.Kind {
	if kind, _, ok := wire.ParseTarget(wire.Body(p.Data)); ok && kind == 'P' {
		return server.DescribePortal
	}
	return server.DescribeStatement
}

// refuse answers the client's next request with an error: up to the next Sync, or one Query.
func (s *Session) refuse(answer wire.Error) {
	if s.phase != active {
		return
	}
	if s.is(resolving) {
		s.conclude("unknown")
		return
	}
	s.refusal = &answer
	s.set(refused, false)
	s.resume()
}

func (s *Session) refuseRequest(p wire.Piece) {
	w := s.worker
	tell := func() {
		if !s.is(refused) {
			e := *s.refusal
			e.Severity = "ERROR"
			w.shared.Errors.Add([]byte(e.Code), fromProxy)
			w.local = wire.AppendError(w.local, e)
			s.set(refused, true)
		}
	}
	switch p.Type {
	case wire.Query, wire.FunctionCall:
		if s.is(refused) {
			return // skipped up to the Sync, as the server does
		}
		tell()
		w.local = wire.AppendReadyForQuery(w.local, s.ready())
		s.refusal = nil
	case wire.Sync:
		w.local = wire.AppendReadyForQuery(w.local, s.ready())
		s.refusal = nil
	case wire.Flush, wire.CopyData, wire.CopyDone, wire.CopyFail:
	default:
		tell()
	}
}

// protocolFault ends a session whose client does not keep to the protocol.
func (s *Session) protocolFault(err error) {
	s.worker.log().Warn("client does not keep to the protocol: closed", append(s.attrs(), attrError(err))...)
	s.fatal(wire.Error{Code: "08P01", Message: err.Error()})
}
