package session

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/wire"
)

// Hub is the one connection on which all clients of a database and user listen, so that a client that waits for
// notifications holds no server. It takes one place under the pool's bound while anybody listens.
//
// It belongs to the loop of its worker; sessions of other loops post to it, and it posts to them.
type Hub struct {
	worker *Worker
	pool   *pool.Pool
	login  *server.Login
	waiter pool.Waiter
	timer  loop.Timer

	conn     *Server // nil while there is none
	channels map[string]map[*Session]struct{}
	barriers map[string]func() // to be called when a notification of that payload passes on barrierChannel
	asked    []hubQuery        // whose answers are outstanding, oldest first
	missed   bool              // the connection was lost since the channels were listened to
}

// hubQuery is a query that the hub has sent.
type hubQuery struct{ done func() }

// barrier is a channel that only hubs use. What a hub has notified there comes back to it after everything that was
// committed before.
const barrierChannel = "pgsidecar_barrier"

// retryListen is the pause after a failed attempt to connect.
const retryListen = time.Second

// Hubs holds the hubs of a proxy, by database and user. Any goroutine may use it.
type Hubs struct {
	mu struct { // held for a map access
		sync.Mutex
		all map[[2]string]*Hub
	}
}

// of returns the hub for a session's pool. The first one that asks has it on its loop.
func (h *Hubs) of(s *Session) *Hub {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := s.who.Pool
	key := [2]string{p.Database(), p.User()}
	if hub := h.mu.all[key]; hub != nil {
		return hub
	}
	if h.mu.all == nil {
		h.mu.all = make(map[[2]string]*Hub)
	}
	hub := &Hub{
		worker: s.worker, pool: p, channels: make(map[string]map[*Session]struct{}),
		login: &server.Login{User: p.User(), Database: p.Database()},
	}
	hub.waiter.Init((*hubGrant)(hub), s.worker.Loop.Index())
	h.mu.all[key] = hub
	return hub
}

type (
	hubGrant Hub
	hubRetry Hub
)

// Granted implements pool.Grantee.
func (g *hubGrant) Granted() { g.worker.Loop.Post(g) }

func (g *hubGrant) Run() { (*Hub)(g).connected() }
func (r *hubRetry) Run() { (*Hub)(r).connect() }

// call runs f on the hub's loop.
type call func()

func (c call) Run() { c() }

func (h *Hub) do(f func()) { h.worker.Loop.Post(call(f)) }

// tell runs f on a session's loop.
func (s *Session) do(f func()) { s.worker.Loop.Post(call(f)) }

// listen makes a session hear of channels; done is called on its loop once that is certain.
func (h *Hub) listen(s *Session, names []string, done func()) {
	h.do(func() {
		var fresh []string
		for _, name := range names {
			if h.channels[name] == nil {
				h.channels[name] = make(map[*Session]struct{})
				fresh = append(fresh, name)
			}
			h.channels[name][s] = struct{}{}
		}
		switch {
		case h.conn == nil:
			h.connect() // listens to all of it
		case len(fresh) > 0:
			h.ask(listenSQL(fresh), nil)
		}
		h.whenListening(func() { s.do(done) })
	})
}

// barrier calls passed, on a session's loop, when a notification with that payload comes on barrierChannel: between those that
// the session hears of which were committed before it, and those after it. With notify, the hub sends it.
func (h *Hub) barrier(s *Session, payload string, notify bool, passed func()) {
	h.do(func() {
		if h.barriers == nil {
			h.barriers = make(map[string]func())
		}
		h.barriers[payload] = func() { h.reach(s, passed) }
		if notify && h.conn != nil {
			h.ask("NOTIFY "+barrierChannel+", '"+payload+"'", nil)
		}
	})
}

// forgetBarrier ends the wait for one that may never come.
func (h *Hub) forgetBarrier(payload string) {
	h.do(func() { delete(h.barriers, payload) })
}

// reach calls f on a session's loop, in the order of the notifications for it.
func (h *Hub) reach(s *Session, f func()) {
	if s.worker == h.worker {
		f()
	} else {
		s.do(f)
	}
}

// whenListening calls done when everything that has been asked so far has been answered.
func (h *Hub) whenListening(done func()) {
	if h.conn == nil {
		h.asked = append(h.asked, hubQuery{done: done}) // asked for again by connected
		return
	}
	h.ask("", done)
}

// unlisten ends a session's interest in channels.
func (h *Hub) unlisten(s *Session, names []string) {
	h.do(func() {
		var idle []string
		for _, name := range names {
			delete(h.channels[name], s)
			if h.channels[name] != nil && len(h.channels[name]) == 0 {
				delete(h.channels, name)
				idle = append(idle, name)
			}
		}
		switch {
		case len(h.channels) == 0:
			h.rest()
		case h.conn != nil && len(idle) > 0:
			h.ask("UN"+strings.ReplaceAll(listenSQL(idle), ";", ";UN"), nil)
		}
	})
}

// fence calls done after all notifications that were committed before now have been passed on: the hub notifies itself,
// and a server sends its notifications in the order of the commits, those of its own before it answers the next query.
func (h *Hub) fence(done func()) {
	h.do(func() {
		if h.conn == nil {
			done()
			return
		}
		h.ask("NOTIFY "+barrierChannel, nil)
		h.ask("", done)
	})
}

func listenSQL(names []string) string {
	var b strings.Builder
	for i, name := range names {
		if i > 0 {
			b.WriteByte(';')
		}
		b.WriteString(`LISTEN "` + strings.ReplaceAll(name, `"`, `""`) + `"`)
	}
	return b.String()
}

// connect asks the pool for a connection of the hub's own.
func (h *Hub) connect() {
	if h.conn == nil && !h.waiter.Waiting() && len(h.channels) > 0 {
		h.pool.AcquirePrivate(&h.waiter, h.login)
	}
}

// adopt makes a server that listens already, on behalf of s, the hub's connection.
func (h *Hub) adopt(l *Server, s *Session, channels []string) {
	h.conn, l.hub = l, h
	for _, name := range channels {
		if h.channels[name] == nil {
			h.channels[name] = make(map[*Session]struct{})
		}
		h.channels[name][s] = struct{}{}
	}
	h.begin(resetAll)
}

// connected goes on with what the pool has decided.
func (h *Hub) connected() {
	c, err := h.waiter.Take()
	if c == nil && err == nil {
		return
	}
	if err == nil {
		h.conn = c.(*Server)
		h.conn.hub = h
		err = h.conn.settleOn(h.worker)
	}
	if err != nil {
		h.conn = nil
		h.worker.log().Warn("no connection to listen on", slog.String("user", h.pool.User()), slog.String("database", h.pool.Database()), attrError(err))
		h.worker.Loop.Arm(&h.timer, retryListen, (*hubRetry)(h))
		return
	}
	if len(h.channels) == 0 {
		h.rest()
		return
	}
	h.begin("")
}

// begin listens to all channels on a new connection, and asks again what has not been answered on the old one.
func (h *Hub) begin(first string) {
	waiting := h.asked
	h.asked = nil
	names := make([]string, 0, len(h.channels)+1)
	for name := range h.channels {
		names = append(names, name)
	}
	h.ask(first+listenSQL(append(names, barrierChannel)), nil)
	for _, one := range waiting {
		if one.done != nil {
			h.ask("", one.done)
		}
	}
	if h.missed {
		h.missed = false
		h.ask("", h.warn)
	}
}

// warn tells all listeners that there was a time when nobody listened.
func (h *Hub) warn() {
	told := make(map[*Session]struct{})
	for _, listeners := range h.channels {
		for s := range listeners {
			told[s] = struct{}{}
		}
	}
	notice := wire.AppendNotice(nil, wire.Error{
		Severity: "WARNING", Code: "01000",
		Message: "notifications may have been missed: the connection to the database server was lost",
	})
	for s := range told {
		s.do(func() { s.note(notice) })
	}
}

// rest gives the connection back when nobody listens.
func (h *Hub) rest() {
	h.worker.Loop.Disarm(&h.timer)
	if h.waiter.Waiting() {
		if c := h.pool.Cancel(&h.waiter); c != nil {
			h.conn = c.(*Server)
			if h.conn.settleOn(h.worker) != nil {
				h.conn = nil
			}
		}
	}
	if l := h.conn; l != nil {
		h.conn, l.hub, h.asked = nil, nil, nil
		l.Replies.Reset()
		l.retire("nobody listens")
	}
}

// ask sends a query whose answer is swallowed, and calls done when it has come.
func (h *Hub) ask(sql string, done func()) {
	l := h.conn
	h.asked = append(h.asked, hubQuery{done: done})
	l.Replies.Push(server.Entry{Kind: server.Query, Fate: server.Swallow})
	if l.Write(wire.AppendQuery(nil, sql)) != nil {
		h.worker.Loop.Later((*delivered)(l))
	}
}

// readable reads answers and notifications.
func (h *Hub) readable() {
	for l := h.conn; l != nil && h.conn == l; {
		buf, err := l.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			return
		}
		if err != nil || !h.take(buf) {
			h.lost()
			return
		}
	}
}

// lost begins again with another connection.
func (h *Hub) lost() {
	l := h.conn
	h.conn, l.hub, h.missed = nil, nil, true
	h.worker.shared.Suspect()
	l.gone()
	h.connect()
}

// take deals with messages. It reports false when the connection must not be used any more.
func (h *Hub) take(buf []byte) bool {
	l := h.conn
	for len(buf) > 0 {
		p, err := l.Scan.Next(buf)
		if err != nil {
			return false
		}
		if len(p.Data) == 0 {
			break
		}
		buf = buf[len(p.Data):]
		switch {
		case !p.Start:
			continue
		case p.Type == wire.NotificationResponse && p.End:
			h.pass(p.Data)
			continue
		case p.Type == wire.ErrorResponse:
			if _, _, stray := l.Replies.Fail(); stray {
				return false
			}
			h.worker.log().Error("cannot listen", attrMessage(p))
			continue
		}
		verdict, _, completes := l.Replies.Reply(p.Type)
		if verdict == server.Stray {
			return false
		}
		if completes && len(h.asked) > 0 {
			done := h.asked[0].done
			h.asked = h.asked[1:]
			if done != nil {
				done()
			}
		}
	}
	l.Keep(buf)
	return true
}

// pass hands a notification to those who listen to its channel.
func (h *Hub) pass(message []byte) {
	channel := notificationChannel(message)
	if channel == barrierChannel {
		payload, _, _ := wire.String(wire.Body(message)[4+len(channel)+1:])
		if passed := h.barriers[string(payload)]; passed != nil {
			delete(h.barriers, string(payload))
			passed()
		}
	}
	listeners := h.channels[channel]
	if len(listeners) == 0 {
		return
	}
	note := append([]byte(nil), message...)
	for s := range listeners {
		h.reach(s, func() { s.heard(channel, note) })
	}
}

// notificationChannel returns the channel in a NotificationResponse message, which begins with the process id.
func notificationChannel(message []byte) string {
	body := wire.Body(message)
	if len(body) < 4 {
		return ""
	}
	name, _, _ := wire.String(body[4:])
	return string(name)
}
