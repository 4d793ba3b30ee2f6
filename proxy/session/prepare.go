package session

import (
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// A client's prepared statements are its own, whatever servers it meets. A named one is prepared on servers under a name
// that all clients with the same definition share; the unnamed one is prepared again when the server's is not this
// client's. Where the server would refuse (unknown or duplicate names), it is made to refuse, so that the client gets the
// server's own error and the server skips to the Sync by itself.

// mustStall tells whether a message can only be dealt with when the server owes nothing, because what it means depends on
// whether an earlier request succeeds.
func (s *Session) mustStall(p wire.Piece) bool {
	l := s.link
	if l.Replies.Empty() {
		s.set(forgetting, false)
		return false
	}
	if l.Replies.Starving() {
		return false // it answers nothing before it has got this
	}
	depends := false
	switch p.Type {
	case wire.Parse, wire.Bind, wire.Describe, wire.Close:
		depends = s.is(forgetting) || s.dependsOnName(p)
	case wire.Query, wire.FunctionCall:
		depends = s.is(forgetting)
	}
	depends = depends || (s.unconfirmed > 0 && s.deallocates(p))
	if depends {
		s.flush()
	}
	return depends && !l.Replies.Empty()
}

// dependsOnName tells whether a message concerns a statement that a request of an earlier segment changes. Within a segment
// either both take effect or neither.
func (s *Session) dependsOnName(p wire.Piece) bool {
	l := s.link
	changed := l.UnnamedSegment != 0 && l.UnnamedSegment != l.Segment
	if !changed && s.unconfirmed == 0 {
		return false
	}
	name, ok := statementName(p)
	switch {
	case !ok:
		return false
	case len(name) == 0:
		return changed && (p.Type == wire.Bind || p.Type == wire.Describe)
	}
	earlier, found := false, false
	l.Replies.Pending(func(e *server.Entry) bool {
		if e.Kind == server.Sync || e.Kind == server.Query || e.Kind == server.Function {
			earlier = true
		}
		found = earlier && e.Name != "" && e.Name == string(name)
		return !found
	})
	return found
}

// deallocates tells whether a Query or Bind is a DEALLOCATE, which means a statement by the client's name for it.
func (s *Session) deallocates(p wire.Piece) bool {
	switch p.Type {
	case wire.Query:
		return p.End && state.Effects(queryText(p)).Has(state.Deallocate)
	case wire.Bind:
		name, _ := statementName(p)
		st := s.unnamed
		if len(name) > 0 {
			st = s.named().Get(name)
		}
		return st != nil && st.Effects.Has(state.Deallocate)
	}
	return false
}

// statementName returns the name of the statement that a message concerns. ok is false if it concerns none, or if the name
// has not arrived.
func statementName(p wire.Piece) (name []byte, ok bool) {
	switch body := wire.Body(p.Data); p.Type {
	case wire.Parse:
		name, _, ok = wire.String(body)
	case wire.Bind:
		_, name, _, ok = wire.ParseBind(body)
	default:
		var kind byte
		kind, name, ok = wire.ParseTarget(body)
		ok = ok && kind == 'S'
	}
	return name, ok
}

// stall leaves a client unread until the server owes nothing. The server is made to answer what it may hold back until the
// next Sync.
func (s *Session) stall(e *edit, at int) {
	s.set(stalled, true)
	e.upTo(at)
	e.out = wire.AppendEmpty(e.out, wire.Flush)
}

// parse forwards a Parse message.
func (s *Session) parse(e *edit, at int, p wire.Piece) next {
	if !p.End {
		return s.parseLarge(e, at, p)
	}
	name, definition, query, ok := wire.ParseParse(wire.Body(p.Data))
	if !ok {
		s.link.Replies.Push(server.Entry{Kind: server.Parse}) // the server says what is wrong with it
		return taken
	}
	st := s.worker.table.Intern(s.reading(), definition, len(query))
	s.forgetSequences(e, at, st)
	if len(name) == 0 {
		s.parseUnnamed(st)
		return taken
	}
	s.parseNamed(e, at, p, name, st)
	return taken
}

// parseUnnamed notes that the unnamed statement becomes st, both the client's and the server's.
func (s *Session) parseUnnamed(st *statement.Statement) {
	l := s.link
	entry := server.Entry{Kind: server.Parse, Statement: st, Unnamed: true, Client: s.unnamed, Server: l.Unnamed}
	s.unnamed, entry.Op = st, l.ChangeUnnamed(st)
	l.Replies.Push(entry)
}

func (s *Session) parseNamed(e *edit, at int, p wire.Piece, name []byte, st *statement.Statement) {
	l := s.link
	if s.named().Get(name) != nil {
		s.parseDuplicate(e, at, p)
		return
	}
	entry := server.Entry{Kind: server.Parse, Statement: st, Name: string(name)}
	s.nameStatement(entry.Name, st)
	s.unconfirmed++
	end := at + len(p.Data)
	catalog := s.worker.shared.catalog.Load()
	switch standing := l.Held.Standing(st, l.Segment); {
	case standing == statement.Ready && s.certain() && l.Held.Fresh(st, catalog):
		entry.Fate = server.MakeUp
		l.Replies.Push(entry)
		e.cut(at, end)
		return
	case standing != statement.Missing:
		s.injectClose(e, at, st)
	}
	s.makeRoom(e, at)
	e.cut(at, end)
	e.out = wire.AppendParse(e.out, st.Name, st.Definition)
	entry.Op = s.prepares(st)
	l.Replies.Push(entry)
}

// certain tells whether a Parse of a statement that the server holds would succeed: in a failed transaction, or when that
// is not known yet, it would not.
func (s *Session) certain() bool {
	l := s.link
	if l.Status == wire.Failed {
		return false
	}
	open := true
	l.Replies.Pending(func(e *server.Entry) bool {
		open = e.Kind != server.Sync && e.Kind != server.Query && e.Kind != server.Function
		return open
	})
	return open
}

// parseDuplicate makes the server refuse a name that the client has given already.
func (s *Session) parseDuplicate(e *edit, at int, p wire.Piece) {
	known := s.decoy(e, at)
	e.cut(at, at+len(p.Data))
	name, definition, _ := wire.String(wire.Body(p.Data))
	e.out = wire.AppendParse(e.out, known.Name, definition)
	s.link.Replies.Push(server.Entry{Kind: server.Parse, Alias: string(name)})
}

// decoy returns a statement that the server has, to stand for one of the client's that may not be there: that one might not
// be prepared, because the transaction has failed or a table is gone. A ROLLBACK always can.
func (s *Session) decoy(e *edit, at int) *statement.Statement {
	const rollback = "ROLLBACK"
	st := s.worker.table.Intern("", []byte(rollback+"\x00\x00\x00"), len(rollback))
	s.ensure(e, at, st)
	return st
}

// longestName bounds what is held in memory of a message whose names have not arrived. PostgreSQL takes longer ones but
// heeds their first 63 bytes.
const longestName = longestClientWhole

// parseLarge streams a Parse message that is too large to be held. Its statement cannot be prepared a second time, so the
// session keeps its server while the statement lives.
func (s *Session) parseLarge(e *edit, at int, p wire.Piece) next {
	name, rest, ok := wire.String(wire.Body(p.Data))
	if !ok && len(p.Data) < longestName {
		s.scan.Unread()
		return more
	}
	st := s.worker.table.Anonymous()
	s.link.changesHidden()
	noteCause(&s.link.causes, state.Unknown, rest)
	s.pin(state.Unknown, pinLargeStatement, pinLargeStatement, lasting)
	s.does(st.Effects)
	if len(name) == 0 {
		s.parseUnnamed(st)
		return taken
	}
	if s.named().Get(name) != nil {
		known := s.decoy(e, at)
		e.cut(at, at+len(p.Data)-len(rest))
		e.out = wire.AppendParseHead(e.out, known.Name, p.Size-5-len(name)-1)
		s.link.Replies.Push(server.Entry{Kind: server.Parse, Alias: string(name)})
		return taken
	}
	entry := server.Entry{Kind: server.Parse, Statement: st, Name: string(name)}
	s.nameStatement(entry.Name, st)
	s.unconfirmed++
	e.cut(at, at+len(p.Data)-len(rest))
	e.out = wire.AppendParseHead(e.out, st.Name, p.Size-5-len(name)-1)
	entry.Op = s.prepares(st)
	s.link.Replies.Push(entry)
	return taken
}

// bind forwards a Bind message under the name that its statement has on servers.
func (s *Session) bind(e *edit, at int, p wire.Piece) next {
	l := s.link
	portal, name, rest, ok := wire.ParseBind(wire.Body(p.Data))
	if !ok && !p.End && len(p.Data) < longestName {
		s.scan.Unread()
		return more
	}
	if !ok { // the server says what is wrong with it
		l.Replies.Push(server.Entry{Kind: server.Bind})
		return taken
	}
	st, alias := s.prepareFor(e, at, name)
	if st != nil && st.Effects.Has(pinning) && s.refuses(st.Effects, st.Query()) {
		return s.bindRefusal(e, at, p, portal, st.Effects, st.Query())
	}
	if st != nil {
		effects := st.Effects | s.unseenOf(st)
		s.does(effects)
		if effects.Has(leaving) {
			noteCause(&l.causes, effects, st.Query())
		}
	}
	if st != nil && s.resets(st.Effects) {
		s.followResets(st.Effects, []byte(st.Query()))
	}
	if st != nil && st.Effects.Has(state.Set) {
		s.noteCustom([]byte(st.Query()))
	}
	if st != nil && st.Rereads {
		s.reread()
	}
	if st != nil && s.endsBlock(st.Effects) && s.noteEnd(st.Effects) {
		s.identifyExtended(e, at)
	}
	target := s.nameOnServer(name, st)
	if instead := s.bindDeallocation(e, at, portal, st); instead != nil {
		target = instead.Name
	}
	if target != string(name) {
		e.cut(at, at+len(p.Data)-len(rest))
		e.out = wire.AppendBindHead(e.out, portal, target, p.Size-5-len(portal)-1-len(name)-1)
	}
	l.Replies.Push(server.Entry{Kind: server.Bind, Statement: st, Alias: alias})
	return taken
}

// describe forwards a Describe message.
func (s *Session) describe(e *edit, at int, p wire.Piece) next {
	l := s.link
	kind, name, ok := wire.ParseTarget(wire.Body(p.Data))
	if !ok || kind != 'S' {
		l.Replies.Push(server.Entry{Kind: describeKind(p)})
		return taken
	}
	st, alias := s.prepareFor(e, at, name)
	if target := s.nameOnServer(name, st); target != string(name) {
		e.cut(at, at+len(p.Data))
		e.out = wire.AppendTarget(e.out, wire.Describe, 'S', target)
	}
	l.Replies.Push(server.Entry{Kind: server.DescribeStatement, Statement: st, Alias: alias})
	return taken
}

// close forgets a name; the statement stays on the server for others. A portal, or the unnamed statement, is closed there.
func (s *Session) close(e *edit, at int, p wire.Piece) next {
	l := s.link
	kind, name, ok := wire.ParseTarget(wire.Body(p.Data))
	switch {
	case !ok || kind != 'S':
		l.Replies.Push(server.Entry{Kind: server.Close})
	case len(name) == 0:
		entry := server.Entry{Kind: server.Close, Unnamed: true, Client: s.unnamed, Server: l.Unnamed}
		s.unnamed, entry.Op = nil, l.ChangeUnnamed(nil)
		l.Replies.Push(entry)
	default:
		s.closeNamed(e, at, p, name)
	}
	return taken
}

// closeNamed closes a named statement: one of the client's here, any other on the server, where it may have been prepared by
// SQL.
func (s *Session) closeNamed(e *edit, at int, p wire.Piece, name []byte) {
	var st *statement.Statement
	if s.names != nil {
		st = s.names.Get(name)
	}
	e.cut(at, at+len(p.Data))
	if st == nil {
		e.out = wire.AppendTarget(e.out, wire.Close, 'S', s.nameOnServer(name, nil))
		s.link.Replies.Push(server.Entry{Kind: server.Close})
		s.effects |= state.Deallocate
		return
	}
	entry := server.Entry{Kind: server.Close, Fate: server.MakeUp, Statement: st, Name: string(name)}
	s.unconfirmed++
	s.forgetName(entry.Name)
	s.link.Replies.Push(entry)
}

// closeName forgets a statement of the client, outside of any transaction.
func (s *Session) closeName(name []byte) {
	if len(name) == 0 {
		s.unnamed = nil
		return
	}
	if s.names != nil && s.names.Get(name) != nil {
		s.forgetName(string(name))
	}
}

// prepareFor sees to it that the statement that the client calls name is prepared on the server, and returns it, and the name
// as a string; nil if the client has none of that name.
func (s *Session) prepareFor(e *edit, at int, name []byte) (st *statement.Statement, alias string) {
	switch {
	case len(name) == 0:
		s.forgetSequences(e, at, s.unnamed)
		s.restoreUnnamed(e, at)
		return s.unnamed, ""
	case s.names == nil:
		return nil, ""
	}
	if st, alias = s.names.Find(name); st == nil {
		return nil, ""
	}
	if now := s.asReadNow(st); now != st && s.link.Held.Standing(st, s.link.Segment) != statement.Ready {
		st = now
		s.nameStatement(alias, st)
	}
	s.forgetSequences(e, at, st)
	s.ensure(e, at, st)
	return st, alias
}

// nameOnServer returns what a statement is called on the server. A name that the client has not given is passed on as it
// is, so that the server's error names it; unless it looks like one of ours, which may exist.
func (s *Session) nameOnServer(name []byte, st *statement.Statement) string {
	switch {
	case len(name) == 0:
		return ""
	case st != nil:
		return st.Name
	case len(name) >= len(statement.Prefix) && string(name[:len(statement.Prefix)]) == statement.Prefix:
		return "_" + string(name)
	}
	return string(name)
}

// ensure makes the server hold a statement before what stands at position at.
func (s *Session) ensure(e *edit, at int, st *statement.Statement) {
	l := s.link
	standing := l.Held.Standing(st, l.Segment)
	if standing == statement.Ready || !st.Kept() {
		return
	}
	if standing != statement.Missing {
		s.injectClose(e, at, st)
	}
	s.makeRoom(e, at)
	s.worker.Stats.ReparsesNamed.Inc()
	e.upTo(at)
	e.out = wire.AppendParse(e.out, st.Name, st.Definition)
	l.Replies.Push(server.Entry{Kind: server.Parse, Fate: server.Swallow, Statement: st, Op: s.prepares(st)})
}

// makeRoom closes the statements that were used longest ago on a server that holds as many as it may.
func (s *Session) makeRoom(e *edit, at int) {
	for {
		surplus := s.link.Held.Surplus(s.link.Segment, s.worker.config.PreparedPerServer)
		if surplus == nil {
			return
		}
		s.injectClose(e, at, surplus)
	}
}

func (s *Session) injectClose(e *edit, at int, st *statement.Statement) {
	e.upTo(at)
	e.out = wire.AppendTarget(e.out, wire.Close, 'S', st.Name)
	before := s.link.Held.Len()
	op := s.link.NextOp()
	s.link.Held.Close(st, op, s.link.Segment)
	s.countHeld(before)
	s.link.Replies.Push(server.Entry{Kind: server.Close, Fate: server.Swallow, Statement: st, Op: op})
}

// restoreUnnamed makes the server's unnamed statement the client's before what stands at position at. When the client has
// none, the server must not have another client's either.
func (s *Session) restoreUnnamed(e *edit, at int) {
	l := s.link
	if l.Unnamed == s.unnamed {
		return
	}
	if s.unnamed != nil {
		if s.unnamed = s.asReadNow(s.unnamed); l.Unnamed == s.unnamed {
			return
		}
	}
	entry := server.Entry{Fate: server.Swallow, Unnamed: true, Client: s.unnamed, Server: l.Unnamed}
	e.upTo(at)
	if s.unnamed == nil || !s.unnamed.Kept() {
		entry.Kind = server.Close
		e.out = wire.AppendTarget(e.out, wire.Close, 'S', "")
		entry.Op = l.ChangeUnnamed(nil)
	} else {
		entry.Kind, entry.Statement = server.Parse, s.unnamed
		s.worker.Stats.ReparsesUnnamed.Inc()
		e.out = wire.AppendParse(e.out, "", s.unnamed.Definition)
		entry.Op = l.ChangeUnnamed(s.unnamed)
	}
	l.Replies.Push(entry)
}

// Bookkeeping of names and of what servers hold, with its gauges.

func (s *Session) nameStatement(name string, st *statement.Statement) {
	names := s.named()
	before := names.Len()
	names.Put(name, st, s.worker.config.PreparedPerClient)
	s.worker.gauges.Names.Add(int64(names.Len() - before))
}

func (s *Session) forgetName(name string) {
	before := s.names.Len()
	s.names.Delete(name)
	s.worker.gauges.Names.Add(int64(s.names.Len() - before))
}

// prepares notes that a Parse of the statement is being sent, and returns the number of that change.
func (s *Session) prepares(st *statement.Statement) uint32 {
	l := s.link
	before, op := l.Held.Len(), l.NextOp()
	l.Held.Prepare(st, op, l.Segment, s.worker.shared.catalog.Load())
	s.countHeld(before)
	return op
}

// countHeld keeps the gauge after a change of what the linked server holds, which was before statements.
func (s *Session) countHeld(before int) {
	if now := s.link.Held.Len(); now != before {
		s.worker.gauges.Held.Add(int64(now - before))
	}
}
