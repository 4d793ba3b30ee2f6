package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"pgsidecar/drain"
	"pgsidecar/internal/admin"
	"pgsidecar/internal/config"
	"pgsidecar/internal/metrics"
	"pgsidecar/proxy"
	"pgsidecar/proxy/stats"
)

// A proxy as the process needs it; *proxy.Proxy is all of these, and a drain.Proxy.
type (
	serving interface {
		Listen(ctx context.Context) error
		Addresses() []string             // Once Listen has returned.
		Serve(ctx context.Context) error // Returns when everything has ended.
	}
	observed interface {
		Snapshot() stats.Snapshot
		Ready() error
	}
)

// parts is an opened proxy.
type parts struct {
	serving  serving
	observed observed
	moving   *proxy.Proxy // Hands its clients over and takes over those of others; nil if it cannot.
	ending   drain.Proxy
	reload   func(config.Config) error
	holder   admin.Holder              // nil: transactions cannot be held.
	switcher admin.Switcher            // nil: the primary cannot be changed.
	targets  admin.Targets             // nil: servers cannot be taken out of service.
	life     *lifeline                 // Is told of the process; nil: nobody asks.
	watch    func(ctx context.Context) // Watches the servers until ctx ends; nil: nobody does.
}

// opener makes a proxy that neither listens nor dials yet.
type opener func(config.Config, *slog.Logger) (parts, error)

// process carries a proxy through its life: signals, reload, the end. It is what HTTP requests ask (admin.Control).
//
// The goroutine of run attends to signals; those of the proxy, of HTTP and of the lifecycle are started by it and have
// ended when it returns, unless the proxy is stuck.
type process struct {
	parts  parts
	load   func() (config.Config, error)
	notify notifier
	log    *slog.Logger
	level  *slog.LevelVar // The logger's.

	life       *drain.Life
	succession *succession
	ready      *os.File      // Where to announce that it serves; nil: nowhere.
	reloading  chan struct{} // Holds a token while a reload is under way; they come one after the other.

	mu struct { // Held for assignments only.
		sync.Mutex
		running   config.Config // In force.
		state     metrics.ConfigState
		addresses []string // Where clients connect, once that is bound.
	}
}

func newProcess(p parts, c config.Config, load func() (config.Config, error), notify notifier, log *slog.Logger, level *slog.LevelVar) *process {
	ps := &process{
		parts: p, load: load, notify: notify, log: log, level: level,
		life: drain.New(p.ending, log), reloading: make(chan struct{}, 1),
	}
	ps.adopt(c)
	if p.life != nil {
		p.life.process = ps
	}
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

// bound notes where clients connect.
func (p *process) bound(addresses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.addresses = addresses
}

// ConfigHash implements admin.About.
func (p *process) ConfigHash() string { return p.ConfigState().Hash }

// Addresses implements admin.About.
func (p *process) Addresses() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.addresses
}

// httpGrace is how long requests may take to end when everything else has.
const httpGrace = time.Second

// run serves until the proxy has ended. HTTP begins before it and ends after it, so that liveness is never in doubt.
func (p *process) run(ctx context.Context, http *admin.Server, signals <-chan os.Signal) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	living, ended := context.WithCancel(ctx)
	defer ended()
	lives := make(chan life, 1)
	wg.Go(func() { lives <- p.live(living) })
	wg.Go(func() { p.serveHTTP(ctx, http) })
	defer p.endHTTP(ctx, http)

	if err := p.parts.serving.Listen(ctx); err != nil {
		p.succession.giveUp()
		return fmt.Errorf("%w; set listen to another address", err)
	}
	if err := p.succession.listen(ctx); err != nil {
		p.succession.giveUp()
		return err
	}
	p.bound(p.parts.serving.Addresses())
	if p.parts.watch != nil {
		wg.Go(func() { p.parts.watch(living) })
	}
	served := make(chan error, 1) // Serve's goroutine ends with it. One that is stuck is not waited for.
	go func() { served <- p.parts.serving.Serve(ctx) }()

	hearing, deaf := context.WithCancel(ctx)
	defer deaf()
	p.succession.begin(hearing, &wg)
	p.tell(ctx, systemdReady)
	announce(p.ready, p.log)
	wg.Go(func() { p.hear(hearing, signals) })
	select {
	case err := <-served:
		ended()
		p.summarize(ctx, (<-lives).report)
		if err != nil {
			return fmt.Errorf("serve clients: %w", err)
		}
		return nil
	case l := <-lives: // It ends first only if the proxy does not.
		p.summarize(ctx, l.report)
		if l.err != nil {
			return fmt.Errorf("end proxy: %w", l.err)
		}
		return nil
	}
}

// life is how the lifecycle went.
type life struct {
	report drain.Report
	err    error
}

// live is the goroutine of the lifecycle. It ends with the proxy.
func (p *process) live(ctx context.Context) life {
	report, err := p.life.Run(ctx)
	return life{report, err}
}

// hear is the goroutine that answers signals until the proxy has ended.
func (p *process) hear(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			p.log.InfoContext(ctx, "signal", slog.String("signal", s.String()))
			if s == syscall.SIGHUP {
				_, _ = p.Reload(ctx) // Reload has logged what came of it.
				continue
			}
			p.tell(ctx, systemdStopping)
			p.life.Terminate(p.end())
		}
	}
}

// end returns how the end goes by the configuration in force.
func (p *process) end() drain.Config {
	c := p.running()
	end := drain.Config{Timeout: c.Drain.Timeout}
	if c.Lifecycle == config.LifecycleClassic {
		end.Linger, end.MinLinger, end.Quiet = c.Drain.MaxLinger(), c.Drain.MinLinger, c.Drain.QuietPeriod
	}
	return end
}

// Drain implements admin.Control: whoever asks knows that nobody needs the proxy any more.
func (p *process) Drain() { p.life.Drain(p.end()) }

// Notice implements admin.Control.
func (p *process) Notice() { p.life.Notice() }

// Ready implements admin.Control. A drain makes it fail before the first client notices.
func (p *process) Ready() error { return p.parts.observed.Ready() }

// summarize says in one line how the end went. It is a warning only if somebody's transaction was lost.
func (p *process) summarize(ctx context.Context, r drain.Report) {
	s := p.parts.observed.Snapshot()
	level := slog.LevelInfo
	if s.Totals.DrainedCut > 0 {
		level = slog.LevelWarn
	}
	p.log.Log(ctx, level, "ended",
		slog.Uint64("idle", s.Totals.DrainedIdle), slog.Uint64("finished", s.Totals.DrainedFinished), slog.Uint64("cut", s.Totals.DrainedCut),
		slog.Duration("lingered", r.Lingered), slog.Duration("drained", r.Drained), slog.Bool("forced", r.Forced), slog.Bool("late", r.Late))
}

// tell tells systemd, if it has started the process. It is not worth more than a line if that fails.
func (p *process) tell(ctx context.Context, state string) {
	if err := p.notify(ctx, state); err != nil {
		p.log.WarnContext(ctx, "systemd not told", slog.String("state", state), slog.Any("error", err))
	}
}

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
