package session

import (
	"maps"
	"slices"

	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// LISTEN is executed by the server that the session is linked to, so that it has the rules of transactions. When an audit
// finds channels there, they are moved to the hub: the hub listens to them first, then the server is told UNLISTEN, and in
// between a notification may come twice, once from each. What both have sent is delivered once.

// listening is what a session listens to. nil: nothing.
type listening struct {
	hub      *Hub
	channels map[string]struct{}

	moving   bool     // the linked server listens as well
	ready    bool     // the hub is known to listen to all channels
	onServer []string // to which channels the linked server listens, by the last audit: to those of before it does not any more

	// While moving, and until the hub has passed on what was committed before the end of that, own counts the
	// notifications that only the server has sent yet, and held are those that only the hub has.
	own  map[string]int
	held []string

	notes [][]byte // to be delivered after the transaction
	// On the way to another process and from one, exactly one of the two delivers what is notified (see Departure).
	skipping bool // the predecessor does, here
	withheld bool // the successor does, there, unless the session stays

	unlistens []string // channels that are no longer wanted if the transaction commits
}

const (
	purposeUnlisten = 101
	purposeDeliver  = 102
	unlistenAll     = "UNLISTEN *"

	// maxNotes bounds the notifications that wait for the end of a transaction.
	maxNotes = 10_000
)

// donate makes the linked server the hub's, if the hub has none: it listens already. So the first listener needs no second
// connection, and listeners cannot take all connections before there is one to move them to.
func (s *Session) donate(channels []string) bool {
	hub := s.worker.shared.Hubs.of(s)
	if hub.worker != s.worker || hub.conn != nil || hub.waiter.Waiting() || s.pinned != nil || s.effects != 0 || s.link.cancels > 0 {
		return false
	}
	if s.listening == nil {
		s.listening = &listening{hub: hub, channels: make(map[string]struct{})}
	}
	for _, channel := range channels {
		s.listening.channels[channel] = struct{}{}
	}
	s.listening.moving, s.listening.ready = false, true
	s.listening.own, s.listening.held = nil, nil
	hub.adopt(s.unlink(), s, channels)
	return true
}

// subscribe moves the channels that the linked server listens to to the hub.
func (s *Session) subscribe(channels []string) {
	if s.listening == nil {
		s.listening = &listening{hub: s.worker.shared.Hubs.of(s), channels: make(map[string]struct{})}
	}
	n := s.listening
	for _, channel := range channels {
		n.channels[channel] = struct{}{}
	}
	n.moving, n.ready, n.onServer = true, false, channels
	if n.own == nil {
		n.own = make(map[string]int)
	}
	n.hub.listen(s, channels, s.subscribed)
}

// subscribed is called when the hub listens.
func (s *Session) subscribed() {
	if s.phase != active || s.listening == nil {
		return
	}
	s.listening.ready = true
	if s.link != nil && s.between() {
		s.settle()
	}
}

// moveListening ends the linked server's listening once the hub's has begun. It reports whether it has asked for that.
func (s *Session) moveListening() bool {
	if n := s.listening; n == nil || !n.moving || !n.ready || s.pinned == nil || s.pinned.kind != pinListen {
		return false
	}
	// The server delivers what it has been signalled only between two commands, and UNLISTEN would lose it: the empty
	// query is such an end of a command, behind everything that the hub may have passed on before it knew this session.
	e := edit{out: s.worker.toServer[:0]}
	s.ask(&e, 0, purposeDeliver, nil)
	s.ask(&e, 0, purposeUnlisten, []byte(unlistenAll))
	s.worker.toServer = keepBuffer(e.out)
	s.send(e.out)
	return true
}

// moved is called when the server does not listen any more.
func (s *Session) moved() {
	n := s.listening
	if n == nil {
		return
	}
	n.moving, n.onServer = false, nil
	if s.pinned != nil && s.pinned.kind == pinListen {
		s.unpin()
	}
	for _, note := range n.held {
		s.note([]byte(note))
	}
	n.held = nil
	n.hub.fence(func() {
		s.do(func() {
			if s.listening == n && !n.moving {
				n.own = nil
			}
		})
	})
}

// heardOwn takes note of a notification that the linked server delivers, so that the hub's copy is not delivered as well.
func (s *Session) heardOwn(message []byte) {
	if s.listening == nil { // its audit is still to come
		s.listening = &listening{hub: s.worker.shared.Hubs.of(s), channels: make(map[string]struct{}), moving: true}
	}
	n := s.listening
	if n.own == nil {
		n.own = make(map[string]int)
	}
	if i := slices.Index(n.held, string(message)); i >= 0 {
		n.held = slices.Delete(n.held, i, i+1)
		return
	}
	n.own[string(message)]++
}

// heard takes a notification from the hub.
func (s *Session) heard(channel string, message []byte) {
	n := s.listening
	if n == nil || n.skipping || (s.phase != active && s.phase != moving) {
		return
	}
	if _, wanted := n.channels[channel]; !wanted {
		return
	}
	switch {
	case s.phase == moving && (n.withheld || !s.conn.Attached()):
		n.notes = append(n.notes, message)
	case s.phase == moving:
		s.tell(message)
	case n.own[string(message)] > 0:
		n.own[string(message)]--
	case n.moving && slices.Contains(n.onServer, channel): // its own copy comes, or has come
		n.held = append(n.held, string(message))
	default:
		s.note(message)
	}
}

// note delivers a notification, or keeps it until the client's transaction has ended.
func (s *Session) note(message []byte) {
	n := s.listening
	if n == nil || s.phase != active {
		return
	}
	if !s.is(partial) && (s.link == nil || (s.between() && len(n.notes) == 0)) {
		s.tell(message)
		return
	}
	if len(n.notes) >= maxNotes {
		s.fatal(wire.Error{Code: "53400", Message: "too many notifications are waiting for the end of a transaction"})
		return
	}
	n.notes = append(n.notes, message)
}

// tellNotes delivers what was kept.
func (s *Session) tellNotes() {
	if n := s.listening; n != nil && len(n.notes) > 0 {
		for _, message := range n.notes {
			s.tell(message)
		}
		n.notes = nil
	}
}

// followUnlisten takes note of the UNLISTENs in a text; they count when its transaction commits.
func (s *Session) followUnlisten(sql []byte) {
	n := s.listening
	if n == nil {
		return
	}
	for _, action := range state.Parse(sql) {
		switch {
		case action.Effect.Has(state.UnlistenAll):
			n.unlistens = slices.AppendSeq(n.unlistens, maps.Keys(n.channels))
		case action.Effect.Has(state.Unlisten):
			n.unlistens = append(n.unlistens, action.Name)
		}
	}
}

// settleUnlisten ends, after a transaction, the interest in channels that it has given up, unless it was rolled back.
func (s *Session) settleUnlisten() {
	n := s.listening
	if n == nil || len(n.unlistens) == 0 {
		return
	}
	channels := n.unlistens
	n.unlistens = nil
	if s.is(committed) || !s.is(undone) {
		s.unlisten(channels)
	}
}

// unlisten ends the session's interest in channels.
func (s *Session) unlisten(channels []string) {
	n := s.listening
	if n == nil {
		return
	}
	for _, channel := range channels {
		delete(n.channels, channel)
	}
	n.hub.unlisten(s, channels)
	if len(n.channels) == 0 && !n.moving {
		s.listening = nil
	}
}

// unlistenEverything is for a session that ends or discards all.
func (s *Session) unlistenEverything() {
	if n := s.listening; n != nil {
		n.hub.unlisten(s, slices.Collect(maps.Keys(n.channels)))
		s.listening = nil
	}
}
