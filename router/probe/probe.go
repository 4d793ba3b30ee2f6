// Package probe watches one PostgreSQL server: over a connection of its own it asks again and again who the server is, which role
// it has and how far it has come. It judges nothing: which server is to be trusted is decided above.
//
// The invariant: whatever the server does, an observation is published within Config.Timeout of the probe's begin, and it is
// never better than what the server itself has answered since then.
package probe

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ApplicationName is that of the probes' sessions.
const ApplicationName = "pgsidecar-probe"

// Config says what is probed and how often. The zero values of the durations and counts mean the defaults named with them.
type Config struct {
	// Connect names one host, the role that asks, and the encryption; it comes from pgconn.ParseConfig. Fallbacks to other
	// hosts and target_session_attrs are ignored. The role needs no rights; History needs REPLICATION or pg_read_file.
	Connect *pgconn.Config

	// Password is asked at each dial, so that a rotated password is used without a restart. nil: Connect.Password.
	Password func() (string, error)

	Every   time.Duration // between the begins of probes of a healthy server; 1 s
	Suspect time.Duration // the same while it is suspect; 100 ms
	Timeout time.Duration // for one probe, with dialling; 1 s

	// Patience is for how long a server that does not get well is probed at the pace of a suspect one after the last
	// call of Suspect; then it is probed at that of a healthy one. 1 min.
	Patience time.Duration

	// Census is how old the numbers of connections and the horizon may be, which cost more than the rest; 5 s.
	Census time.Duration

	// Dial opens sockets; nil: TCP or unix sockets with the options that follow.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// As for the connections of clients: see TCP_KEEPIDLE and so on, and TCP_USER_TIMEOUT, in tcp(7). Where both are set, as
	// here, Linux gives up an idle connection when UserTimeout has passed without an answer to a keepalive, whatever the count.
	KeepAliveIdle     time.Duration // 10 s
	KeepAliveInterval time.Duration // 5 s
	KeepAliveCount    int           // 3
	UserTimeout       time.Duration // 15 s

	// Changed is called after each observation, from Run's goroutine, which waits for it; nil: nobody is called. It may
	// call Suspect, of this prober too: that does not make it probe in a loop.
	Changed func(*Observation)
}

// Prober probes one server. New makes it, and Run is the one goroutine that has its connection; Suspect and Latest may be called
// by any.
type Prober struct {
	config  Config
	suspect chan struct{} // holds a token if Suspect was called since Run last looked
	latest  atomic.Pointer[Observation]
}

// New returns a prober that has not dialled yet.
func New(config Config) *Prober {
	config.Every = defaulted(config.Every, time.Second)
	config.Suspect = min(defaulted(config.Suspect, 100*time.Millisecond), config.Every)
	config.Timeout = defaulted(config.Timeout, time.Second)
	config.Patience = defaulted(config.Patience, time.Minute)
	config.Census = defaulted(config.Census, 5*time.Second)
	config.KeepAliveIdle = defaulted(config.KeepAliveIdle, 10*time.Second)
	config.KeepAliveInterval = defaulted(config.KeepAliveInterval, 5*time.Second)
	config.UserTimeout = defaulted(config.UserTimeout, 15*time.Second)
	config.KeepAliveCount = defaulted(config.KeepAliveCount, 3)
	config.Connect = config.alone()
	return &Prober{config: config, suspect: make(chan struct{}, 1)}
}

func defaulted[T int | time.Duration](value, standard T) T {
	if value <= 0 {
		return standard
	}
	return value
}

// Suspect says that the server may have changed: it is probed at once, and then every Config.Suspect until it has been well for
// Config.Every after the last such call. While it is suspect, further calls only prolong that. It costs next to nothing.
func (p *Prober) Suspect() {
	select {
	case p.suspect <- struct{}{}:
	default: // Run has not yet looked: one token stands for all calls.
	}
}

// Latest returns the last observation; nil before the first.
func (p *Prober) Latest() *Observation { return p.latest.Load() }

// Run probes until ctx ends, the first time at once, and closes the connection then. It is called once.
func (p *Prober) Run(ctx context.Context) {
	p.run(ctx, &connection{config: &p.config})
}

// alone returns what to dial: Connect without what is about other hosts, and as the probe.
func (c *Config) alone() *pgconn.Config {
	connect := c.Connect.Copy()
	connect.Fallbacks = slices.DeleteFunc(connect.Fallbacks, func(f *pgconn.FallbackConfig) bool {
		return f.Host != connect.Host || f.Port != connect.Port
	})
	connect.ValidateConnect, connect.AfterConnect = nil, nil
	connect.ConnectTimeout = 0 // Timeout is for everything together.
	connect.MaxProtocolMessageBodyLen = allowance
	connect.RuntimeParams["application_name"] = ApplicationName
	if c.Dial != nil {
		connect.DialFunc = c.Dial
	} else {
		connect.DialFunc = c.dialSocket
	}
	return connect
}

// asker answers probes.
type asker interface {
	// ask answers one probe within Config.Timeout, or when ctx ends. It never returns nil.
	ask(ctx context.Context) *Observation
	// lost has something to receive, once or for ever, when the connection has broken between two probes; nil: there is none.
	lost() <-chan answer
	// close ends the connection, if there is one.
	close()
}

func (p *Prober) run(ctx context.Context, server asker) {
	defer server.close()
	pace := pace{config: &p.config}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.suspect:
			if pace.alarm(time.Now()) {
				continue // It is suspect already: the timer runs at that pace.
			}
		case <-server.lost():
			server.close()
			if pace.alarm(time.Now()) {
				continue
			}
		case <-timer.C:
		}
		begin := time.Now()
		o := server.ask(ctx)
		if ctx.Err() != nil {
			return // What was found was found while giving up.
		}
		p.latest.Store(o)
		if p.config.Changed != nil {
			p.config.Changed(o)
		}
		timer.Reset(time.Until(begin.Add(pace.next(o))))
	}
}
