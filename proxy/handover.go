package proxy

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/session"
)

// A proxy can hand its clients over to another process, its successor, while both serve: HandOver here, Succeed there. Each
// client moves between two of its transactions. Servers do not move. The successor begins without any and gets room under
// pool.max_connections as this proxy gives its own up, so that PostgreSQL never sees more than that of both together.

// Peer is the other process. Ask sends it a request, with a descriptor unless that is negative; answered is called once,
// from any goroutine. It does not block. An error says that it has not got the request, or will never act upon it.
type Peer interface {
	Ask(request []byte, descriptor int, answered func(answer []byte, err error))
}

// Request is what the other process asks. TakeDescriptor gives its descriptor to the caller, -1 if there is none; sent, if
// not nil, is told whether the other process gets the answer.
type Request interface {
	Body() []byte
	TakeDescriptor() int
	Answer(answer []byte, sent func(error))
}

// request is what is asked; exactly one field is set.
type request struct {
	Listen *clientRequest `json:"listen,omitempty"` // for a client that comes later, and is to miss nothing
	Client *clientRequest `json:"client,omitempty"`
	Forget *cancelKey     `json:"forget,omitempty"` // the client of a Listen: it stays
	Cancel *cancelKey     `json:"cancel,omitempty"`
	Held   *int           `json:"held,omitempty"` // connections that the predecessor still has, or may still make
}

// clientRequest offers a client, whose socket comes with it.
type clientRequest struct {
	Session json.RawMessage `json:"session"`
	// Password is what the client's user has proved itself with, if the proxy does not know it otherwise: servers for it are
	// logged in with it.
	Password []byte `json:"password,omitempty"`
	Barrier  string `json:"barrier,omitempty"` // of a Listen, see session.Departure
}

// cancelKey says which client is meant.
type cancelKey struct {
	PID    uint32 `json:"pid"`
	Secret []byte `json:"secret"`
}

// answer is true for a client that was taken, and for a cancel request whose client was found.
type answer struct {
	Yes bool `json:"yes"`
}

// longestRequest bounds a request in bytes. A client that is more than that stays.
const longestRequest = 8 << 20

// counterpart is the other process, while there is one.
type counterpart struct{ peer Peer }

// yieldEvery is how often a proxy that hands over looks what it can give up.
const yieldEvery = 10 * time.Millisecond

// HandOver gives clients and connections to the successor until ctx ends, which is when the successor is gone. What it has
// not taken by then is served on as if nothing had been.
func (p *Proxy) HandOver(ctx context.Context, successor Peer) {
	p.peer.Store(&counterpart{peer: successor})
	for _, w := range p.workers {
		w.HandOver(&mover{proxy: p, peer: successor})
	}
	p.yield(ctx, successor)
	for _, w := range p.workers {
		w.HandOver(nil)
	}
	p.peer.Store(nil)
	p.reserve(0)
}

// yield gives connections up as clients leave, and tells the successor how many there still may be. What has been given up is
// not taken back. Half is given up at once, but for those that pinned sessions keep and one for all others that stay.
func (p *Proxy) yield(ctx context.Context, successor Peer) {
	tick := time.NewTicker(yieldEvery)
	defer tick.Stop()
	most := p.setting.Load().config.Pool.MaxConnections
	keep := max(most/2, min(len(p.shared.Pins.Clients())+1, most-1))
	told := most
	for {
		keep = min(keep, p.clients.count()+int(p.arriving.Load()))
		p.reserve(most - keep)
		if held := max(keep, p.connections()); held < told {
			told = held
			ask(successor, request{Held: &held}, func(bool, error) {})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// connections returns how many there are under the bound, whatever they are doing: to the server that has the most.
func (p *Proxy) connections() int {
	most := connectionsOf(p.target)
	p.standbys.each(func(t *pool.Target) { most = max(most, connectionsOf(t)) })
	return most
}

func connectionsOf(t *pool.Target) int {
	s := t.Stats()
	return s.Idle + s.Lent + s.Dialing + s.Closing
}

// reserve leaves connections of pool.max_connections to the other process.
func (p *Proxy) reserve(n int) {
	if p.reserved.Swap(int64(n)) != int64(n) {
		p.configurePool()
	}
}

// Empty tells whether there is no client, and none on its way in.
func (p *Proxy) Empty() bool { return p.arriving.Load() == 0 && p.clients.count() == 0 }

// mover offers sessions to the successor. Its Move is called on their loops.
type mover struct {
	proxy *Proxy
	peer  Peer
}

// Move implements session.Mover.
func (m *mover) Move(d *session.Departure) {
	offer, ok := m.offer(d)
	if !ok {
		d.Stay()
		return
	}
	askWith(m.peer, request{Client: offer}, d.Descriptor, func(took bool, err error) {
		if took && err == nil {
			d.Taken()
		} else {
			d.Stay()
		}
	})
}

// Prepare implements session.Mover.
func (m *mover) Prepare(d *session.Departure) {
	offer, ok := m.offer(d)
	if !ok {
		d.Prepared(false)
		return
	}
	offer.Barrier = d.Barrier
	ask(m.peer, request{Listen: offer}, func(listens bool, err error) { d.Prepared(listens && err == nil) })
}

// Forget implements session.Mover.
func (m *mover) Forget(d *session.Departure) {
	ask(m.peer, request{Forget: &cancelKey{PID: d.Image.PID, Secret: d.Image.Secret}}, func(bool, error) {})
}

// offer makes the request for a session, if it is not too large.
func (m *mover) offer(d *session.Departure) (*clientRequest, bool) {
	encoded, err := d.Image.Encode()
	if err != nil || len(encoded) > longestRequest {
		m.proxy.log.Warn("client is too large to be handed over: it stays", slog.String("user", string(d.Image.User)), slog.Int("bytes", len(encoded)))
		return nil, false
	}
	return &clientRequest{Session: encoded, Password: []byte(m.proxy.secrets.get(string(d.Image.PoolUser)))}, true
}

func ask(peer Peer, r request, answered func(bool, error)) { askWith(peer, r, -1, answered) }

func askWith(peer Peer, r request, descriptor int, answered func(bool, error)) {
	body, err := json.Marshal(r)
	if err != nil {
		answered(false, err)
		return
	}
	peer.Ask(body, descriptor, func(body []byte, err error) {
		var a answer
		if err == nil {
			err = json.Unmarshal(body, &a)
		}
		answered(a.Yes, err)
	})
}

func reply(r Request, yes bool, sent func(error)) {
	body, _ := json.Marshal(answer{Yes: yes}) // It always can.
	r.Answer(body, sent)
}

// cancelElsewhere passes a cancel request on to the other process. done is told, once, whether it has found the client.
func (p *Proxy) cancelElsewhere(pid uint32, secret []byte, done func(found bool)) {
	other := p.peer.Load()
	if other == nil {
		done(false)
		return
	}
	ask(other.peer, request{Cancel: &cancelKey{PID: pid, Secret: secret}}, func(found bool, err error) { done(found && err == nil) })
}

// cancelMoved is for a session that has moved while the request was on its way.
func (p *Proxy) cancelMoved(key cancel.Key, done func()) {
	p.cancelElsewhere(key.PID(), key.Secret(), func(bool) { done() })
}

// findTarget finds whose key it is. When that may be a client of the other process, that is asked and deals with it; then
// there is none. A client that moves here at that very moment is found when it is looked for again.
func (p *Proxy) findTarget(ctx context.Context, pid uint32, secret []byte) cancel.Target {
	if target := p.shared.Keys.Find(pid, secret); target != nil {
		return target
	}
	asked := make(chan bool, 1)
	p.cancelElsewhere(pid, secret, func(found bool) { asked <- found })
	select {
	case found := <-asked:
		if found {
			return nil
		}
	case <-ctx.Done():
		return nil
	}
	return p.shared.Keys.Find(pid, secret)
}
