// Package admin serves HTTP beside the proxy: probes, metrics, the status and, for this machine only, drain and reload.
// The notice that the pod is ending may come from the kubelet as well, if the configuration says so.
//
// It decides nothing: what a request asks for is done by a Control. It must never get in the way of the clients, so every
// request is bounded in time, and liveness says nothing but that the process is alive: it never depends on the
// database, else a database's pause would have every pod restarted.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"pgsidecar/proxy/stats"
)

// Source is what the pages show.
type Source interface {
	Snapshot() stats.Snapshot
}

// Control is what requests may ask of the process.
type Control interface {
	// Ready returns why new clients are not welcome, or nil when they are.
	Ready() error
	// Reload reads the configuration again and returns what it changed. An error says why everything was left as it was.
	Reload(ctx context.Context) ([]Change, error)
	// Drain begins the end of the process and returns at once. Further calls do nothing.
	Drain()
	// Notice tells that the pod has begun to end. It returns at once; clients notice nothing.
	Notice()
}

// About tells what does not count anything. Any goroutine may ask it.
type About interface {
	// ConfigHash returns the fingerprint of the configuration in force.
	ConfigHash() string
	// Addresses returns where clients connect, with the ports that the kernel chose; none before they are bound.
	Addresses() []string
}

// Holder lets an operator hold transactions, for as long as it takes to change something behind the proxy.
type Holder interface {
	// Hold lets no transaction begin until Resume. why is what clients are told who have waited too long.
	Hold(why string)
	// Resume ends a Hold, and reports whether there was one.
	Resume() bool
}

// Targets takes single servers out of service.
type Targets interface {
	// DrainTarget sends nobody to a server any more, until RestoreTarget. An error says that it is not known.
	DrainTarget(ctx context.Context, name string) error
	// RestoreTarget ends that. An error says that it is not known, or was not drained.
	RestoreTarget(ctx context.Context, name string) error
}

// Change is one key that a reload found changed.
type Change struct {
	Key  string `json:"key"`
	From string `json:"from"` // Secrets are masked.
	To   string `json:"to"`
	Live bool   `json:"live"` // In force now; else after a restart.
}

// Config says where the server listens and what it is told to show.
type Config struct {
	Listen  []string     // host:port, or the paths of unix sockets; empty serves nothing.
	Version string       // Of the binary.
	About   About        // Nil leaves it out.
	Holder  Holder       // Answers /hold and /resume; nil leaves them out.
	Metrics http.Handler // Serves /metrics; nil leaves it out.

	Switcher Switcher // Answers /switchover; nil leaves it out.
	Targets  Targets  // Answers /targets; nil leaves it out.

	PodTerminating bool // Let others than this machine call /pod-terminating, as the kubelet does.
	QuitQuitQuit   bool // Serve /quitquitquit.

	// ListenBy returns the listener for an address: what bind makes, or one that there is already. Nil: what bind makes.
	ListenBy func(address string, bind func() (net.Listener, error)) (net.Listener, error)
}

// Bounds for one request. A reload reads files and may dial; everything else is over in milliseconds.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 15 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10 // Bytes.
)

// Server is the HTTP server. Its owner calls Listen, Serve and Shutdown once each, in this order.
type Server struct {
	cfg       Config
	source    Source
	control   Control
	log       *slog.Logger
	http      *http.Server
	listeners []net.Listener // Made by Listen, closed by Serve's end.
}

// New returns a server that does nothing yet.
func New(cfg Config, source Source, control Control, log *slog.Logger) *Server {
	s := &Server{cfg: cfg, source: source, control: control, log: log}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // Scanners and cut connections; not our faults.
	}
	return s
}

// Listen binds all addresses or none.
func (s *Server) Listen(ctx context.Context) error {
	for _, address := range s.cfg.Listen {
		l, err := s.cfg.listener(address, func() (net.Listener, error) { return listen(ctx, address) })
		if err != nil {
			s.closeListeners()
			return fmt.Errorf("listen for http on %s: %w", address, err)
		}
		s.listeners = append(s.listeners, l)
	}
	return nil
}

func (c *Config) listener(address string, bind func() (net.Listener, error)) (net.Listener, error) {
	if c.ListenBy == nil {
		return bind()
	}
	return c.ListenBy(address, bind)
}

// listen binds a host:port or the path of a unix socket.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if !strings.HasPrefix(address, "/") {
		return lc.Listen(ctx, "tcp", address)
	}
	l, err := lc.Listen(ctx, "unix", address)
	if err == nil {
		return l, nil
	}
	// The file of a process that was killed stays behind; one that answers is in use.
	if conn, dialErr := (&net.Dialer{}).DialContext(ctx, "unix", address); dialErr == nil {
		_ = conn.Close() // Its purpose was to be answered.
		return nil, err
	}
	if info, statErr := os.Lstat(address); statErr != nil || info.Mode()&os.ModeSocket == 0 {
		return nil, err
	}
	if err := os.Remove(address); err != nil {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	return lc.Listen(ctx, "unix", address)
}

// Addresses returns where Listen has bound, with real ports in place of port 0.
func (s *Server) Addresses() []net.Addr {
	addresses := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addresses[i] = l.Addr()
	}
	return addresses
}

// Serve answers requests until Shutdown is called, or until a listener breaks.
func (s *Server) Serve() error {
	defer s.closeListeners()
	var wg sync.WaitGroup
	errs := make([]error, len(s.listeners))
	for i := range s.listeners {
		wg.Go(func() { errs[i] = s.serve(s.listeners[i]) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// serve answers requests of one listener until it ends.
func (s *Server) serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown lets requests end until ctx does, then cuts them. Serve returns after it.
func (s *Server) Shutdown(ctx context.Context) {
	if err := s.http.Shutdown(ctx); err != nil {
		if err := s.http.Close(); err != nil {
			s.log.DebugContext(ctx, "http not closed cleanly", slog.Any("error", err))
		}
	}
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close() // Closed before, when Serve has ended by Shutdown.
	}
}
