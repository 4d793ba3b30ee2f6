package session

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"pgsidecar/proxy/state"
)

// What a client does to its session is found out from the server, not guessed from the text: the text only says that there
// may be something to find. After such a transaction the server is asked what its session holds (state.AuditSQL). Settings
// become the client's own, to be set on whatever server it meets next; anything else pins the session until a later audit
// finds it gone.

const (
	// audited are the effects that an audit shows.
	audited = state.Set | state.Reset | state.ResetUser | state.ResetAll | state.Temp | state.Listen |
		state.AdvisoryLock | state.HoldCursor | state.Prepare

	// releasing are effects that may end a pin.
	releasing = state.Drop | state.DiscardTemp | state.Unlisten | state.UnlistenAll | state.AdvisoryUnlock |
		state.AdvisoryUnlockAll | state.CloseCursor | state.CloseAll | state.Deallocate | state.DeallocateAll
)

// judge decides, between two transactions, whether the session may leave its server, and pins it if not. It reports false
// when the server has to be asked first.
func (s *Session) judge() bool {
	l := s.link
	if s.is(retelling) {
		s.retell()
	}
	if l.audited {
		s.adopt()
		if s.link == nil {
			return true // given away
		}
	} else if l.settleHidden() && s.pinned == nil && s.is(touched) {
		s.effects |= state.Unseen
	}
	s.settleUnlisten()
	s.set(undone|committed, false)
	s.noteSequences()
	if s.pinned.isLarge() && !s.holdsLarge() {
		s.effects |= state.Deallocate
	}
	switch e := s.effects; {
	case e == 0:
		s.rereads = 0
		return !s.moveListening()
	case e.Has(forEver):
		s.pinFor(e&forEver, endless)
	case e.Has(state.SequenceRead):
		s.pinFor(state.SequenceRead, lasting)
	}
	if s.effects.Has(audited|state.Unseen) || state.Suspicious(s.effects) || s.createsTemp() || (s.pinned != nil && s.effects.Has(releasing)) {
		if s.unnamed != nil && !s.unnamed.Kept() {
			return true // the question would drop it; the session is pinned as long as it is there
		}
		s.audit()
		return false
	}
	s.effects, s.rereads = 0, 0
	return !s.moveListening()
}

// createsTemp tells whether what was created is temporary without being said to be: search_path may begin with pg_temp.
func (s *Session) createsTemp() bool {
	if !s.effects.Has(state.DDL) {
		return false
	}
	path, _ := s.settings.Get("search_path")
	return strings.Contains(path, "pg_temp")
}

// audit asks the server what its session holds. The client is not read before that is known: what it has RESET is the
// server's own value until the client's startup value has been set again.
func (s *Session) audit() {
	l := s.link
	l.answer, l.audited = l.answer[:0], false
	l.tainted = l.tainted || state.Suspicious(s.effects) || s.effects.Has(state.Unseen) // a custom setting made inside a function may not be known by name
	s.effects = 0
	s.set(stalled, true)
	s.askNow(purposeAudit, state.AuditSQL(s.who.Pool.User(), s.worker.shared.Custom.names()))
}

// adopt takes over what an audit has found.
func (s *Session) adopt() {
	l, interner := s.link, s.worker.shared.Settings
	found, ok := state.DecodeAudit(l.answer)
	l.answer, l.audited = nil, false
	if !ok {
		s.pin(state.Unknown, pinUnknown, pinUnknown, lasting)
		return
	}
	l.Settings = interner.Intern(found.SettingsOf(s.settings, l.custom))
	l.custom = nil
	s.settings = l.Settings
	for _, one := range s.startup.List() { // what the client has RESET goes back to what it has come with
		if _, has := l.Settings.Get(one.Name); !has {
			s.settings = interner.With(s.settings, one.Name, one.Value)
		}
	}
	if s.settings != l.Settings && s.phase == active {
		s.retell()
	}
	if s.pinned.isLarge() && !s.holdsLarge() {
		s.unpin()
	}
	why, reason := found.Pins()
	if len(found.Channels) > 0 && why == state.Listen && s.donate(found.Channels) {
		return
	}
	if len(found.Channels) > 0 {
		s.subscribe(found.Channels)
	} else if s.listening != nil {
		s.listening.onServer = nil
		if len(s.listening.channels) == 0 {
			s.listening = nil
		}
	}
	if why != 0 {
		kind, _ := state.Pins(why)
		s.pin(why, kind, reason, whileFound)
	} else if s.pinned != nil && !s.pinned.lasting {
		s.unpin()
	}
}

// CustomSettings are the names of settings with a prefix (app.user_id) that clients have been seen to use. PostgreSQL does
// not list them, so they have to be asked for by name. Any goroutine may use it; the zero value is empty.
type CustomSettings struct {
	mu    sync.Mutex // held for a comparison and a copy
	known atomic.Pointer[[]string]
}

// maxCustom bounds the names, as clients choose them.
const maxCustom = 200

func (c *CustomSettings) names() []string {
	if known := c.known.Load(); known != nil {
		return *known
	}
	return nil
}

// learn takes note of the custom ones among settings.
func (c *CustomSettings) learn(settings *state.Settings) {
	for _, one := range settings.List() {
		c.add(one.Name)
	}
}

// noteCustom takes note of the custom settings that a text sets: for all, because they have to be asked for by name, and
// for the linked server, because one that is found empty may have been there before.
func (s *Session) noteCustom(sql []byte) {
	for _, action := range state.Parse(sql) {
		if action.Effect.Has(state.Set|state.SetLocal) && isCustom(action.Name) {
			s.worker.shared.Custom.add(action.Name)
			s.link.custom = append(s.link.custom, action.Name)
		}
	}
}

func isCustom(name string) bool { return strings.Contains(name, ".") }

func (c *CustomSettings) add(name string) {
	if !isCustom(name) || slices.Contains(c.names(), name) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.Clone(c.names())
	if slices.Contains(known, name) || len(known) >= maxCustom {
		return
	}
	known = append(known, name)
	c.known.Store(&known)
}
