// Package proxy puts listeners, logins, loops, sessions and pools together.
//
// It reads no files of its own but certificates, and it knows no YAML and no Prometheus: whoever runs it passes a Config
// and reads a Snapshot.
//
// Ownership: New makes everything, Serve runs it, and Serve's return is the end of every goroutine it started. A client
// belongs to the goroutine of its login until that hands it to a loop, for good.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
	"pgsidecar/proxy/stats"
)

// Proxy serves clients from New to the end of Serve. Its methods may be called from any goroutine.
type Proxy struct {
	log     *slog.Logger
	started time.Time
	loops   []*loop.Loop
	workers []*session.Worker
	shared  *session.Shared
	target  *pool.Target // the primary's connections
	setting atomic.Pointer[setting]

	standbys    standbys
	route       atomic.Pointer[route] // nil: where the upstream leads
	routing     holds
	configuring sync.Mutex // held while the pool is told its setting, which takes no time

	logins  stats.Logins
	errors  stats.ErrorCounts
	clients census
	traffic traffic
	secrets secrets
	memory  *memory
	rush    rush

	peer     atomic.Pointer[counterpart] // the process that this one takes over from or hands over to, or nil
	reserved atomic.Int64                // connections that are left to it
	expected expected                    // clients that will come from it

	phase     atomic.Uint32 // a stats.Phase
	listen    listenFunc
	listeners []listener
	accepting sync.WaitGroup // accept loops
	entering  sync.WaitGroup // clients that are logging in
	arriving  atomic.Int64   // how many these are
	stopLogin context.CancelFunc
}

// setting is a Config made ready: what is replaced as a whole by a reload.
type setting struct {
	config Config
	policy *auth.Policy
	tls    *tlsFiles
	dialer *server.Dialer
}

// New makes a proxy. It neither binds nor dials.
func New(config Config, log *slog.Logger) (*Proxy, error) {
	if config.Server.Upstream == nil {
		return nil, errors.New("no upstream: there is no server to connect to")
	}
	config.Loops = max(config.Loops, 1)
	p := &Proxy{log: log, started: time.Now(), listen: bindAnew, memory: newMemory()}
	p.clients.init()
	first, err := prepare(config, nil)
	if err != nil {
		return nil, err
	}
	p.setting.Store(first)
	p.shared = session.NewShared(log, &p.errors)
	p.shared.Ended, p.shared.CancelElsewhere = p.sessionEnded, p.cancelMoved
	if config.Suspect != nil {
		p.shared.Suspect = config.Suspect
	}
	for i := range config.Loops {
		l, err := loop.New(loop.Config{Index: i})
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make event loop: %w", err), p.discard())
		}
		p.loops = append(p.loops, l)
		p.workers = append(p.workers, session.NewWorker(l, p.shared, config.Session))
	}
	p.target = pool.NewTarget(p.poolConfig(), (*dialer)(p))
	p.standbys.set = p.shared.Standbys
	return p, nil
}

// discard ends loops that have never run.
func (p *Proxy) discard() error {
	var all error
	for _, l := range p.loops {
		l.Stop()
		all = errors.Join(all, l.Run())
	}
	return all
}

// idleAtEnd is the idle timeout of servers from Noticed on: those that a proxy at its end does not need are wanted
// elsewhere, by its successor first of all.
const idleAtEnd = time.Second

// poolConfig returns what the pool is told in the setting and the phase of now.
func (p *Proxy) poolConfig() pool.Config {
	config := p.setting.Load().config
	c := config.Pool
	c.Loops = config.Loops
	c.Databases, c.Users = config.connectionLimits()
	c.Now = loop.Nanos
	c.Reserved = int(p.reserved.Load())
	if p.Phase() >= stats.Noticed {
		c.MinConnections = 0
		if c.IdleTimeout <= 0 || c.IdleTimeout > idleAtEnd { // negative: none; 0: the pool's default, which is longer
			c.IdleTimeout = idleAtEnd
		}
	}
	return c
}

// configurePool tells the pool what has changed. Whoever comes last tells it the latest.
func (p *Proxy) configurePool() {
	p.configuring.Lock()
	defer p.configuring.Unlock()
	p.target.Reconfigure(p.poolConfig())
	p.standbys.each(func(t *pool.Target) { t.Reconfigure(readConfig(p.poolConfig())) })
}

// Serve accepts clients until ctx is cancelled or Shutdown or Close has ended everything. Listen comes first.
func (p *Proxy) Serve(ctx context.Context) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	logins, stopLogin := context.WithCancel(running)
	p.stopLogin = stopLogin
	defer stopLogin()

	faults := make(chan error, len(p.loops))
	var loops, reaper sync.WaitGroup
	for _, l := range p.loops {
		loops.Go(func() { faults <- l.Run() })
	}
	reaper.Go(func() { p.target.Run(running) })
	p.standbys.begin(running)
	for _, l := range p.listeners {
		p.accepting.Go(func() { p.accept(logins, l) })
	}
	p.phase.CompareAndSwap(uint32(stats.Starting), uint32(stats.Serving))
	p.log.InfoContext(ctx, "serving", slog.Any("listen", p.Addresses()))

	var err error
	select {
	case <-p.clients.ended:
	case <-ctx.Done():
		p.end()
	case err = <-faults:
		p.end()
	}
	p.finish(&loops)
	stop()
	reaper.Wait()
	p.standbys.running.Wait()
	p.phase.Store(uint32(stats.Done))
	return err
}

// finish ends what is left after the last client: pools, their connections, loops.
func (p *Proxy) finish(loops *sync.WaitGroup) {
	p.closeListeners()
	p.accepting.Wait()
	p.stopLogin()
	p.entering.Wait()
	for _, w := range p.workers {
		w.Abort()
	}
	p.target.Close()
	p.standbys.end()
	p.awaitServers(lingerForServers)
	for _, l := range p.loops {
		l.Stop()
	}
	loops.Wait()
}

// lingerForServers bounds how long the end waits for PostgreSQL to have ended the last connections.
const lingerForServers = 2 * time.Second

// Phase tells where the proxy is in its life.
func (p *Proxy) Phase() stats.Phase { return stats.Phase(p.phase.Load()) }

// Ready tells whether new clients are welcome, and if not, why.
func (p *Proxy) Ready() error {
	if phase := p.Phase(); phase != stats.Serving && phase != stats.Noticed {
		return fmt.Errorf("the proxy is %s", phase)
	}
	return nil
}
