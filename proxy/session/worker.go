package session

import (
	"log/slog"
	"sync/atomic"
	"time"

	"pgsidecar/proxy/cancel"
	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/standby"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/stats"
	"pgsidecar/proxy/wire"
)

// Config is what sessions can be told. It is replaced as a whole at a reload. Zero durations mean no limit, except where
// a default is named.
type Config struct {
	AcquireTimeout         time.Duration // longest wait for a server; default 30 s
	WriteTimeout           time.Duration // a client that reads nothing for so long is closed; default 60 s
	ClientIdleTimeout      time.Duration
	QueryTimeout           time.Duration
	TransactionTimeout     time.Duration
	IdleTransactionTimeout time.Duration

	// SentinelEvery makes every so many released servers prove that they hold nothing of their client; 0: none has to.
	SentinelEvery int

	// LearnEvery is how long what a database hides from the texts of statements is believed to stay as it is; 0: nothing is
	// looked for.
	LearnEvery time.Duration

	// Explain makes a dry run: what RefuseUnsupported would refuse is run and reported, and so is, in mode WholeSession,
	// what would pin in mode Transaction.
	Explain bool

	Consistency Consistency // of what is read from standbys
	// ReadOnlyTransactions has transactions that their clients say are read-only run on standbys, where there is one that will
	// do. It counts for clients that log in from now on.
	ReadOnlyTransactions bool
	Hold                 time.Duration // longest wait for a standby where there is none that will do; 0 or less: none
	// ResolveCommit looks COMMITs up whose server was lost, on the one that serves next.
	ResolveCommit bool

	PreparedPerServer int // statements that a server holds; default 200, never less than 2
	PreparedPerClient int // names that a client may have; default 5000
}

func (c Config) withDefaults() Config {
	if c.AcquireTimeout <= 0 {
		c.AcquireTimeout = 30 * time.Second
	}
	if c.WriteTimeout <= 0 {
		c.WriteTimeout = time.Minute
	}
	if c.PreparedPerServer <= 0 {
		c.PreparedPerServer = 200
	}
	c.PreparedPerServer = max(c.PreparedPerServer, 2) // a DEALLOCATE and what it names
	if c.PreparedPerClient <= 0 {
		c.PreparedPerClient = 5000
	}
	return c
}

// Shared is what the sessions of all loops share. All of it is for the slow path, or atomic.
type Shared struct {
	Log      *slog.Logger
	Keys     *cancel.Registry
	Errors   *stats.ErrorCounts
	Settings *state.Interner
	Welcomes *Welcomes
	Custom   *CustomSettings
	Pins     *Pins
	Hubs     *Hubs
	Standbys *standby.Set

	Databases *Databases

	// Ended is called, on its loop, when a session has ended, right before its client is closed.
	Ended func(*Client)

	// CancelElsewhere passes a cancel request on whose session has moved to another process. done is called as that of
	// cancel.Target is.
	CancelElsewhere func(key cancel.Key, done func())

	// Suspect is called, on any loop and perhaps often, when traffic has met something that a failover would explain. It
	// must not block.
	Suspect func()

	// Suspended keeps sessions that have a server of their own from beginning transactions; see Worker.Continue.
	Suspended atomic.Bool

	refused refusedTexts // by standbys
	numbers statement.Numbers
	clients *wire.Classes
	wrote   atomic.Int64  // loop.Nanos of when something may have been committed that a client was told of last; kept for StrictConsistency only
	catalog atomic.Uint32 // counts statements that may have changed the catalog
}

// NewShared returns what the workers of one proxy share. Its exported fields are set before the first worker is made.
func NewShared(log *slog.Logger, errors *stats.ErrorCounts) *Shared {
	return &Shared{
		Log:      log,
		Keys:     cancel.NewRegistry(),
		Errors:   errors,
		Settings: state.NewInterner(),
		Welcomes: newWelcomes(),
		Custom:   new(CustomSettings),
		Pins:     newPins(),
		Hubs:     new(Hubs),
		Standbys: new(standby.Set),

		Databases: new(Databases),

		Ended:   func(*Client) {},
		Suspect: func() {},

		CancelElsewhere: noCancelElsewhere,

		clients: wire.FromClient(),
	}
}

// Worker is what the sessions of one loop share: buffers, tables and counters. It belongs to the loop.
type Worker struct {
	Loop  *loop.Loop
	Stats *stats.Loop

	shared *Shared
	config Config
	table  *statement.Table

	rereads uint32 // see Session.reread

	// Buffers for what is being written, free between two calls. toServer and toClient are the results of edits; local
	// is for answers that the proxy gives itself.
	toServer, toClient, local []byte

	sessions ring[Session, *Session] // all sessions of this loop
	servers  ring[Server, *Server]   // the servers of this loop that are linked or closing, for the sweep

	waits    []*wait             // free ones
	welcomed map[Profile]*Client // see alike

	resolutions map[*Session]*resolution

	sweeper    sweeper
	linked     int // servers, for the sentinel
	draining   bool
	departures *departures // where sessions are to move, or nil
	gauges     Gauges
}

// Gauges counts the sessions of a loop by what they do. Written by the loop, read by anyone.
type Gauges struct {
	Clients, Active, Waiting atomic.Int64
	Awaiting                 atomic.Int64 // of those that wait, how many do so for a standby that will do
	Names                    atomic.Int64 // statement names that clients have given
	Held                     atomic.Int64 // statements that servers hold
	Shared                   atomic.Int64 // statements in the loop's table
}

// NewWorker returns the worker of a loop.
func NewWorker(l *loop.Loop, shared *Shared, config Config) *Worker {
	w := &Worker{
		Loop:   l,
		Stats:  new(stats.Loop),
		shared: shared,
		config: config.withDefaults(),
		table:  statement.NewTable(&shared.numbers, 0),

		welcomed: make(map[Profile]*Client),

		resolutions: make(map[*Session]*resolution),
	}
	w.sweeper.worker = w
	return w
}

// Gauges returns the worker's gauges.
func (w *Worker) Gauges() *Gauges { return &w.gauges }

// Configure replaces the configuration. It may be called from any goroutine.
func (w *Worker) Configure(config Config) {
	w.Loop.Post(&reconfiguration{worker: w, config: config.withDefaults()})
}

type reconfiguration struct {
	worker *Worker
	config Config
}

func (r *reconfiguration) Run() {
	r.worker.config = r.config
	r.worker.watchIdle()
}

// maxBuffer is the capacity up to which an edit's buffer is kept for the next one.
const maxBuffer = 256 << 10

func keepBuffer(b []byte) []byte {
	if cap(b) > maxBuffer {
		return nil
	}
	return b[:0]
}
