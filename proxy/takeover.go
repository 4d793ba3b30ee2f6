package proxy

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"

	"golang.org/x/sys/unix"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/session"
)

// What the other process asks, and how clients arrive. handover.go says what it is about.

// Succeed makes the proxy the successor of another one, which has so many connections, until Alone. It comes before Serve:
// cancel requests for clients of the predecessor come from the first moment on.
func (p *Proxy) Succeed(predecessor Peer, connections int) {
	p.peer.Store(&counterpart{peer: predecessor})
	p.reserve(connections)
}

// Alone notes that the predecessor is gone.
func (p *Proxy) Alone() {
	p.expected.discard()
	p.peer.Store(nil)
	p.reserve(0)
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
		User: same(string(image.User)), Database: same(string(image.Database)), Protocol: image.Protocol, Unsupported: image.Unsupported, Route: image.Route,
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
