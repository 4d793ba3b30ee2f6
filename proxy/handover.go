package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/session"
)

// A proxy can hand its clients over to another process, its successor, while both serve: HandOver here, TakeOver there. Each
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

// connections returns how many there are under the bound, whatever they are doing.
func (p *Proxy) connections() int {
	s := p.target.Stats()
	return s.Idle + s.Lent + s.Dialing + s.Closing
}

// reserve leaves connections of pool.max_connections to the other process.
func (p *Proxy) reserve(n int) {
	if p.reserved.Swap(int64(n)) != int64(n) {
		p.configurePool()
	}
}

// Reserve leaves connections to the predecessor, which has them. It comes before Serve.
func (p *Proxy) Reserve(n int) { p.reserve(n) }

// TakeOver serves with a predecessor beside it until ctx ends, which is when that one is gone.
func (p *Proxy) TakeOver(ctx context.Context, predecessor Peer) {
	p.peer.Store(&counterpart{peer: predecessor})
	<-ctx.Done()
	p.expected.discard()
	p.peer.Store(nil)
	p.reserve(0)
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

// Requested deals with a request of the other process. It does not block.
func (p *Proxy) Requested(r Request) {
	decoder := json.NewDecoder(bytes.NewReader(r.Body()))
	decoder.DisallowUnknownFields()
	var what request
	if err := decoder.Decode(&what); err != nil {
		p.log.Error("request of the other process is not understood", slog.Any("error", err))
		reply(r, false, nil)
		return
	}
	switch {
	case what.Client != nil:
		if err := p.receive(r, what.Client); err != nil {
			p.log.Warn("client not taken over: it stays with the predecessor", slog.Any("error", err))
			reply(r, false, nil)
		}
	case what.Listen != nil:
		if err := p.expect(r, what.Listen); err != nil {
			p.log.Warn("client that listens not taken over: it stays with the predecessor", slog.Any("error", err))
			reply(r, false, nil)
		}
	case what.Forget != nil:
		if arrival := p.expected.take(*what.Forget); arrival != nil {
			arrival.Discard()
		}
		reply(r, true, nil)
	case what.Cancel != nil:
		p.cancelHere(r, what.Cancel)
	case what.Held != nil:
		p.reserve(max(*what.Held, 0))
		reply(r, true, nil)
	default:
		reply(r, false, nil)
	}
}

// receive takes a client over. It is this proxy's when the predecessor is certain to hear of it; an error means that it never
// will be.
func (p *Proxy) receive(r Request, offer *clientRequest) error {
	image, err := session.DecodeImage(offer.Session)
	if err != nil {
		return err
	}
	fd := r.TakeDescriptor()
	if fd < 0 {
		return errors.New("it has come without its socket")
	}
	transport, err := loop.Passed(fd, image.Kept, image.Unsent)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	arrival, who, err := p.arrive(image)
	if err != nil {
		_ = transport.Close()
		return err
	}
	at := place{database: who.Database, user: who.User}
	if p.clients.enter(at, limits{}) != "" { // It was let in before: only the end of the proxy keeps it out.
		arrival.Discard()
		_ = transport.Close()
		return errors.New("the proxy is shutting down")
	}
	p.secrets.put(who.Pool.User(), string(offer.Password))
	reply(r, true, func(err error) {
		if err == nil && arrival.Enter(transport) {
			return
		}
		arrival.Discard()
		_ = transport.Close()
		p.clients.leave(at)
	})
	return nil
}

// arrive makes room for a client that is on its way, or finds the room that was made for one that listens.
func (p *Proxy) arrive(image *session.Image) (*session.Arrival, *session.Client, error) {
	who := &session.Client{Profile: session.Profile{
		User: same(string(image.User)), Database: same(string(image.Database)), Protocol: image.Protocol, Unsupported: image.Unsupported,
		Pool: p.target.Pool(string(image.PoolDatabase), string(image.PoolUser)),
	}}
	if image.Statement {
		who.Mode = session.Statement
	}
	if arrival := p.expected.take(cancelKey{PID: image.PID, Secret: image.Secret}); arrival != nil {
		arrival.Replace(image)
		return arrival, who, nil
	}
	if len(image.Channels) > 0 {
		return nil, nil, errors.New("it listens, and nobody has heard what it may have missed")
	}
	arrival, err := p.quietest().Arrive(image, who)
	return arrival, who, err
}

// expect listens for a client that will come.
func (p *Proxy) expect(r Request, offer *clientRequest) error {
	image, err := session.DecodeImage(offer.Session)
	if err != nil {
		return err
	}
	key := cancelKey{PID: image.PID, Secret: image.Secret}
	channels := image.Channels
	image.Channels = nil // Nobody is expected yet.
	arrival, who, err := p.arrive(image)
	if err != nil {
		return err
	}
	image.Channels = channels
	p.secrets.put(who.Pool.User(), string(offer.Password))
	p.expected.put(key, arrival)
	arrival.Listen(offer.Barrier, func() { reply(r, true, nil) })
	return nil
}

// expected holds the arrivals of clients that listen, until they come. The zero value has none.
type expected struct {
	mu       sync.Mutex // held for a map access
	arrivals map[string]*session.Arrival
}

func (k cancelKey) text() string {
	return string(binary.BigEndian.AppendUint32(nil, k.PID)) + string(k.Secret)
}

func (e *expected) put(key cancelKey, a *session.Arrival) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.arrivals == nil {
		e.arrivals = make(map[string]*session.Arrival)
	}
	e.arrivals[key.text()] = a
}

func (e *expected) take(key cancelKey) *session.Arrival {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.arrivals[key.text()]
	delete(e.arrivals, key.text())
	return a
}

// discard forgets all: the predecessor is gone, and they with it.
func (e *expected) discard() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, a := range e.arrivals {
		a.Discard()
	}
	e.arrivals = nil
}

// cancelHere answers when the request of the other process' client has had its effect.
func (p *Proxy) cancelHere(r Request, what *cancelKey) {
	target := p.shared.Keys.Find(what.PID, what.Secret)
	if target == nil {
		reply(r, false, nil)
		return
	}
	target.CancelRequested(func() { reply(r, true, nil) })
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
