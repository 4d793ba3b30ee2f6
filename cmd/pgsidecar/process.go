package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"pgsidecar/internal/admin"
	"pgsidecar/internal/config"
	"pgsidecar/internal/metrics"
	"pgsidecar/proxy/stats"
)

// A proxy as the process needs it; *proxy.Proxy is all of these.
type (
	serving interface {
		Serve(ctx context.Context) error    // Returns when everything has ended.
		Shutdown(ctx context.Context) error // Ends at transaction boundaries; cuts what is left when ctx ends.
		Close() error                       // Cuts everything.
	}
	observed interface {
		Snapshot() stats.Snapshot
		Ready() error
	}
	binding interface {
		Listen(ctx context.Context) error
	}
)

// parts is an opened proxy.
type parts struct {
	serving  serving
	observed observed
	binding  binding
	reload   func(config.Config) error
}

// opener makes a proxy that neither listens nor dials yet.
type opener func(config.Config, *slog.Logger) (parts, error)

// process carries a proxy through its life: signals, drain, reload, the end. It is what HTTP requests ask (admin.Control).
//
// The goroutine of run decides; those of the proxy, of HTTP and of a shutdown are started by it and have ended when it
// returns.
type process struct {
	parts parts
	load  func() (config.Config, error)
	log   *slog.Logger
	level *slog.LevelVar // The logger's.

	drain     chan struct{} // Closed once, by Drain.
	drainOnce sync.Once
	reloading chan struct{} // Holds a token while a reload is under way; they come one after the other.

	mu struct { // Held for assignments only.
		sync.Mutex
		running config.Config // In force.
		state   metrics.ConfigState
	}
}

func newProcess(p parts, c config.Config, load func() (config.Config, error), log *slog.Logger, level *slog.LevelVar) *process {
	ps := &process{
		parts: p, load: load, log: log, level: level,
		drain: make(chan struct{}), reloading: make(chan struct{}, 1),
	}
	ps.adopt(c)
	return ps
}

// adopt notes that c is in force.
func (p *process) adopt(c config.Config) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.running = c
	p.mu.state = metrics.ConfigState{Hash: c.Hash(), LoadedAt: time.Now()}
}

// running returns the configuration in force.
func (p *process) running() config.Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.running
}

// ConfigState implements metrics.ConfigSource.
func (p *process) ConfigState() metrics.ConfigState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.state
}

// httpGrace is how long requests may take to end when everything else has.
const httpGrace = time.Second

// run serves until the proxy has ended. HTTP begins before it and ends after it, so that liveness is never in doubt.
func (p *process) run(ctx context.Context, http *admin.Server, signals <-chan os.Signal) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { p.serveHTTP(ctx, http) })
	defer p.endHTTP(ctx, http)
	if err := p.parts.binding.Listen(ctx); err != nil {
		return fmt.Errorf("%w; set listen to another address", err)
	}
	served := make(chan error, 1)
	wg.Go(func() { served <- p.parts.serving.Serve(ctx) })
	err := p.attend(ctx, &wg, signals, served)
	p.log.InfoContext(ctx, "ended")
	return err
}

// attend answers signals and a drain until the proxy has ended.
func (p *process) attend(ctx context.Context, wg *sync.WaitGroup, signals <-chan os.Signal, served <-chan error) error {
	drain, told := p.drain, false
	for {
		select {
		case err := <-served:
			if err != nil {
				return fmt.Errorf("serve clients: %w", err)
			}
			return nil
		case <-drain:
			drain = nil
			wg.Go(func() { p.shutdown(ctx) })
		case s := <-signals:
			p.log.InfoContext(ctx, "signal", slog.String("signal", s.String()))
			switch {
			case s == syscall.SIGHUP:
				_, _ = p.Reload(ctx) // Reload has logged what came of it.
			case told: // Whoever says it twice does not want to wait. A drain by HTTP is not the first of two.
				p.closeNow(ctx)
			default:
				told = true
				p.Drain()
			}
		}
	}
}

// Drain implements admin.Control: it begins the end.
func (p *process) Drain() { p.drainOnce.Do(func() { close(p.drain) }) }

// shutdown is the goroutine that ends the proxy at transaction boundaries. It ends when the proxy has no client left.
func (p *process) shutdown(ctx context.Context) {
	timeout := p.running().Drain.Timeout
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	switch err := p.parts.serving.Shutdown(ctx); {
	case errors.Is(err, context.DeadlineExceeded):
		p.log.WarnContext(ctx, "drain timed out, what was left has been cut", slog.Duration("timeout", timeout))
	case err != nil:
		p.log.ErrorContext(ctx, "drain failed", slog.Any("error", err))
	default:
		p.log.InfoContext(ctx, "drained")
	}
}

func (p *process) closeNow(ctx context.Context) {
	if err := p.parts.serving.Close(); err != nil {
		p.log.ErrorContext(ctx, "close failed", slog.Any("error", err))
	}
}

// Ready implements admin.Control. A drain makes it fail before the first client notices.
func (p *process) Ready() error {
	select {
	case <-p.drain:
		return errDraining
	default:
		return p.parts.observed.Ready()
	}
}

var errDraining = errors.New("the proxy is draining")

// serveHTTP is the goroutine of HTTP; it ends when the server is shut down. The proxy goes on without it: clients are
// worth more than numbers.
func (p *process) serveHTTP(ctx context.Context, http *admin.Server) {
	if err := http.Serve(); err != nil {
		p.log.ErrorContext(ctx, "http ended", slog.Any("error", err))
	}
}

func (p *process) endHTTP(ctx context.Context, http *admin.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpGrace)
	defer cancel()
	http.Shutdown(ctx)
}
