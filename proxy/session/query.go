package session

import (
	"bytes"
	"strings"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// query forwards a simple Query.
func (s *Session) query(e *edit, at int, p wire.Piece) next {
	l := s.link
	s.worker.Stats.StatementsSimple.Inc()
	if p.End && queryText(p) == nil { // the server refuses it before it looks at the text
		l.Replies.Push(server.Entry{Kind: server.Query})
		l.NextSegment()
		return taken
	}
	entry := server.Entry{Kind: server.Query, Unnamed: true, Client: s.unnamed, Server: l.Unnamed}
	effects, unseen := state.Unknown, state.Effect(0) // longer than what is looked at
	if p.End {
		effects = state.Effects(queryText(p))
		unseen = s.unseen(queryText(p), effects)
	} else {
		l.changesHidden()
	}
	if s.endsBlock(effects) && s.noteEnd(effects) {
		s.identify(e, at)
		entry.Server = l.Unnamed
	}
	if p.End && effects.Has(pinning) && s.refuses(effects, string(queryText(p))) {
		e.cut(at, at+len(p.Data))
		e.out = wire.AppendQuery(e.out, refusalSQL(effects, queryText(p)))
		effects = 0
	}
	if effects&state.Deallocate != 0 {
		if st, name := s.deallocated(queryText(p)); st != nil {
			st = s.decoy(e, at)
			e.cut(at, at+len(p.Data))
			e.out = wire.AppendQuery(e.out, deallocate(st))
			entry.Statement, entry.Alias = st, name
		}
	}
	if effects.Has(state.SequenceRead) {
		s.forgetOthersSequences(e, at)
	}
	if effects.Has(state.Set) && p.End {
		s.noteCustom(queryText(p))
	}
	if effects.Has(state.Unlisten|state.UnlistenAll) && p.End {
		s.followUnlisten(queryText(p))
	}
	s.does(effects | unseen)
	if (effects | unseen).Has(leaving) {
		noteCause(&l.causes, effects|unseen, bytes.TrimRight(wire.Body(p.Data), "\x00"))
	}
	if p.End && s.resets(effects) {
		s.followResets(effects, queryText(p))
	}
	if !p.End || (effects.Has(state.SettingEffects) && state.ChangesReading(queryText(p))) {
		s.reread()
	}
	s.set(forgetting, effects.Has(forgets))
	// A simple query drops the unnamed statement (PostgreSQL documentation, "Extended Query").
	s.unnamed, entry.Op = nil, l.ChangeUnnamed(nil)
	l.Replies.Push(entry)
	l.NextSegment()
	return taken
}

// forgets are the effects of commands by which a session forgets statements, or settings in favour of those that it has come
// with. What a client sends behind one is not looked at before it is known whether it has succeeded.
const forgets = state.Deallocate | state.DeallocateAll | state.DiscardAll | state.Reset | state.ResetUser | state.ResetAll

// deallocated returns the client's statement that the text of a DEALLOCATE names, and its name; nil if it is none of the
// protocol's, or if the text says more.
func (s *Session) deallocated(sql []byte) (*statement.Statement, string) {
	actions := state.Parse(sql)
	if s.names == nil || len(actions) != 1 || state.Classify(sql).Count != 1 || !actions[0].Effect.Has(state.Deallocate) {
		return nil, ""
	}
	return s.names.Find([]byte(actions[0].Name))
}

// deallocate is the text that removes a statement from a server. It is a real DEALLOCATE, so that what it does in a failed
// transaction, and what it answers, is the server's.
func deallocate(st *statement.Statement) string { return `DEALLOCATE "` + st.Name + `"` }

// deallocation is a DEALLOCATE in a portal.
type deallocation struct {
	decoy *statement.Statement // what it removes from the server
	name  string               // the client's name that it is about
}

// bindDeallocation returns the statement to bind instead of one that is a DEALLOCATE of one of the client's own: it names a
// decoy. It is nil for all others. Only now it is known which one the name means.
func (s *Session) bindDeallocation(e *edit, at int, portal []byte, st *statement.Statement) *statement.Statement {
	delete(s.deallocations, string(portal))
	if st == nil || !st.Effects.Has(state.Deallocate) {
		return nil
	}
	text := st.Query()
	target, name := s.deallocated([]byte(text))
	if target == nil {
		return nil
	}
	decoy := s.decoy(e, at)
	other := deallocate(decoy)
	instead := s.worker.table.Intern("", []byte(other+st.Definition[len(text):]), len(other))
	s.ensure(e, at, instead)
	if s.deallocations == nil {
		s.deallocations = make(map[string]deallocation)
	}
	s.deallocations[string(portal)] = deallocation{decoy: decoy, name: name}
	return instead
}

// execution is the entry of an Execute.
func (s *Session) execution(p wire.Piece) server.Entry {
	entry := server.Entry{Kind: server.Execute}
	if len(s.deallocations) > 0 {
		portal, _, _ := wire.String(wire.Body(p.Data))
		one := s.deallocations[string(portal)]
		entry.Statement, entry.Alias = one.decoy, one.name
	}
	return entry
}

// commandComplete heeds the tags of commands that change what clients and servers hold.
func (s *Session) commandComplete(p wire.Piece, done server.Entry, completes bool) {
	if !s.virtual() || !p.End {
		return
	}
	tag, _, _ := wire.String(wire.Body(p.Data))
	if len(tag) == 0 {
		return
	}
	switch tag[0] {
	case 'A', 'C', 'D', 'R':
	default:
		return
	}
	l := s.link
	switch string(tag) {
	case "COMMIT":
		s.set(committed, true)
	case "ROLLBACK":
		s.set(undone, true)
		if s.effects.Has(state.DDL) { // what was prepared meanwhile has seen tables that never were
			s.worker.shared.catalog.Add(1)
		}
	case "DEALLOCATE ALL":
		s.forgetStatements()
	case "DISCARD ALL":
		s.forgetStatements()
		l.Settings, l.tainted = nil, false
		l.answer, l.audited = nil, false // an audit of what was before
		s.settings = s.startup
		s.set(retelling, s.startup != nil)
		s.unlistenEverything()
		s.effects = 0
		if s.pinned != nil && !s.pinned.endless {
			s.unpin()
		}
	case "DEALLOCATE":
		if !completes && l.Replies.Head() != nil {
			done = *l.Replies.Head()
		}
		s.forgetDeallocated(done)
	default:
		if bytes.HasPrefix(tag, []byte("ALTER")) || bytes.HasPrefix(tag, []byte("CREATE")) || bytes.HasPrefix(tag, []byte("DROP")) {
			s.worker.shared.catalog.Add(1)
		}
	}
}

// forgetStatements follows the server, which has dropped all of its statements on behalf of the client.
func (s *Session) forgetStatements() {
	w, l := s.worker, s.link
	w.gauges.Held.Add(-int64(l.Held.Len()))
	l.Held.Clear()
	if s.names != nil {
		w.gauges.Names.Add(-int64(s.names.Len()))
		s.names.Clear()
	}
}

// forgetDeallocated follows the server, which has executed a DEALLOCATE that names one of our statements.
func (s *Session) forgetDeallocated(done server.Entry) {
	if done.Statement == nil {
		return
	}
	before := s.link.Held.Len()
	s.link.Held.Remove(done.Statement)
	s.countHeld(before)
	if s.names != nil {
		s.forgetName(done.Alias)
	}
}

// byServerName finds the client's statement that has a name on servers.
func (s *Session) byServerName(name string) (st *statement.Statement, client string) {
	if s.names == nil {
		return nil, ""
	}
	s.names.All(func(key string, one *statement.Statement) bool {
		if one.Name == name {
			st, client = one, key
		}
		return st == nil
	})
	return st, client
}

// ownName returns the message of an error that names a statement by our name for it, with the client's instead; "" if it
// does not.
func (s *Session) ownName(failed server.Entry, body []byte) string {
	message := string(wire.ErrorField(body, 'M'))
	quoted := `"` + statement.Prefix
	before, rest, ok := strings.Cut(message, quoted)
	if !ok || !s.virtual() {
		return ""
	}
	serial, after, ok := strings.Cut(rest, `"`)
	if !ok {
		return ""
	}
	name := failed.Alias
	if name == "" {
		_, name = s.byServerName(statement.Prefix + serial)
	}
	return before + `"` + name + `"` + after
}
