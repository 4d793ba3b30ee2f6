// Package drain carries a process through the phases of its end: Noticed, Lingering, Draining, Closing.
//
// It decides when; what a phase means to clients and servers is the proxy's business, and what a signal or a request
// means is that of whoever calls. It knows neither sockets nor HTTP.
//
// The invariants:
//   - One goroutine, Run's, owns the phase. Others ask it, and have been heard when their call returns.
//   - Phases only go forward.
//   - From the first word of the end on there is a deadline, and Run returns within it and closeWithin.
package drain

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"pgsidecar/proxy/stats"
)

// Proxy is what is brought to its end.
type Proxy interface {
	// Enter tells the phase that begins: Noticed, Lingering or Draining. It returns at once.
	Enter(phase stats.Phase)
	// Emptied returns when the last client left, or the zero time while there is one.
	Emptied() time.Time
	// Shutdown ends each client at its transaction boundary and cuts what is left when ctx ends. It returns when no client is
	// left.
	Shutdown(ctx context.Context) error
}

// Config is how the end goes. It comes with the word that begins it, so that it is the one then in force.
type Config struct {
	// Linger is the longest time for which new clients are still welcome after the end was announced, because the
	// application ends at the same time and is not done yet. 0 drains at once, as is right when the application has ended
	// before.
	Linger time.Duration
	// MinLinger is the shortest such time, and Quiet how long there must have been no client at its end. An application
	// that has no connection at the moment may open one to finish its work, so that the first moment without a client
	// says nothing.
	MinLinger, Quiet time.Duration
	// Timeout is how long transactions may go on after that, before they are cut.
	Timeout time.Duration
}

// Report tells how the end went. Times are 0 for phases that were left out.
type Report struct {
	Lingered, Drained time.Duration
	Forced            bool // Somebody said it twice.
	Late              bool // The deadline came before the last client had left.
}

// ErrStuck means that the proxy did not end when everything in it had been cut.
var ErrStuck = errors.New("connections did not close")

// closeWithin is how long the proxy may take to end after its last client: PostgreSQL is waited for up to two seconds.
const closeWithin = 3 * time.Second

// Life is the life of one proxy. Its owner starts Run once; the other methods may be called by any goroutine, and do
// nothing when Run has ended.
type Life struct {
	proxy Proxy
	log   *slog.Logger
	asks  chan ask
	ended chan struct{} // Closed by Run.
}

// New returns the life of a proxy that nobody has told to end.
func New(proxy Proxy, log *slog.Logger) *Life {
	return &Life{proxy: proxy, log: log, asks: make(chan ask), ended: make(chan struct{})}
}

// Notice tells that the end is near, while clients are still served as before: a pod has begun to terminate.
func (l *Life) Notice() { l.ask(ask{word: notice}) }

// Drain begins to drain now, without lingering. Saying it again changes nothing.
func (l *Life) Drain(c Config) { l.ask(ask{word: drainNow, config: c}) }

// Terminate is the word of a signal. The first one begins the end; whoever says it twice does not want to wait, so the
// second one cuts what is left.
func (l *Life) Terminate(c Config) { l.ask(ask{word: terminate, config: c}) }

// ask is a request to Run's goroutine.
type ask struct {
	word   word
	config Config
	heard  chan struct{} // Closed when the phase is what the word makes it.
}

type word uint8

const (
	notice word = iota
	drainNow
	terminate
)

func (l *Life) ask(a ask) {
	a.heard = make(chan struct{})
	select {
	case l.asks <- a:
		<-a.heard
	case <-l.ended:
	}
}

// Run leads the proxy to its end. It returns when ctx is done, which is the owner's sign that the proxy has ended, or
// ErrStuck when that does not happen in time.
func (l *Life) Run(ctx context.Context) (Report, error) {
	defer close(l.ended)
	c := newCourse(l)
	defer c.stop()
	for {
		select {
		case a := <-l.asks:
			c.hear(ctx, a)
			close(a.heard)
		case <-c.timer.C:
			if c.expire(ctx) {
				return c.report, ErrStuck
			}
		case late := <-c.drained:
			c.close(late)
		case <-ctx.Done():
			return c.end(), nil
		}
	}
}
