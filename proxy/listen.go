package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pgsidecar/proxy/session"
)

// socketName begins the names of PostgreSQL's unix sockets; libpq adds it and the port to the directory it is given.
const socketName = ".s.PGSQL."

const standardPort = "6432"

// listenFunc returns the listener for an address: what bind makes, or one that there is already.
type listenFunc func(address string, bind func() (net.Listener, error)) (net.Listener, error)

func bindAnew(_ string, bind func() (net.Listener, error)) (net.Listener, error) { return bind() }

// listener is one address, and where those go who come there.
type listener struct {
	net.Listener

	route session.Route
}

// ListenBy makes Listen get its listeners from listen, which is given each address and how to bind it. It comes before Listen.
func (p *Proxy) ListenBy(listen func(address string, bind func() (net.Listener, error)) (net.Listener, error)) {
	p.listen = listen
}

// Listen binds the addresses.
func (p *Proxy) Listen(ctx context.Context) error {
	config := &p.setting.Load().config
	for i, address := range config.Listen {
		bound, err := p.listen(address, func() (net.Listener, error) { return bind(ctx, address) })
		if err != nil {
			p.closeListeners()
			return fmt.Errorf("listen on %s: %w", address, err)
		}
		route := session.Primary
		if i < len(config.Routes) {
			route = config.Routes[i]
		}
		p.listeners = append(p.listeners, listener{Listener: bound, route: route})
	}
	return nil
}

func bind(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	if !strings.HasPrefix(address, "/") {
		return config.Listen(ctx, "tcp", address)
	}
	if !strings.HasPrefix(filepath.Base(address), socketName) {
		address = filepath.Join(address, socketName+standardPort)
	}
	if err := removeStale(ctx, address); err != nil {
		return nil, err
	}
	return config.Listen(ctx, "unix", address)
}

// removeStale removes a socket that a process has left behind, but not one that somebody serves.
func removeStale(ctx context.Context, path string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another process serves this socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return nil // nothing there, or Listen says what is wrong
}

// Addresses returns where clients can connect, with the ports that the kernel chose.
func (p *Proxy) Addresses() []string {
	all := make([]string, 0, len(p.listeners))
	for _, l := range p.listeners {
		all = append(all, l.Addr().String())
	}
	return all
}

func (p *Proxy) closeListeners() {
	for _, l := range p.listeners {
		_ = l.Close()
	}
}

// acceptPause is how long an accept loop rests when the process has no descriptor left.
const acceptPause = 50 * time.Millisecond

// accept is the goroutine of one listener. It ends when the listener is closed.
func (p *Proxy) accept(ctx context.Context, l listener) {
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.log.ErrorContext(ctx, "cannot accept a client", slog.String("listen", l.Addr().String()), slog.Any("error", err))
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
		default:
			p.arriving.Add(1)
			p.entering.Go(func() {
				defer p.arriving.Add(-1)
				p.enter(ctx, conn, l.route)
			})
		}
	}
}
