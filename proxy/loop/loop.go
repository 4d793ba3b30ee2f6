package loop

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// DefaultScratch is the size of a loop's read buffer in bytes when Config says nothing else.
const DefaultScratch = 64 << 10

// Config configures a Loop. The zero value is useful.
type Config struct {
	Scratch int // Bytes of the read buffer that all connections of the loop share; 0 or less means DefaultScratch.
	Index   int // The loop's number, for whoever keeps several.
}

// Stats are a loop's totals since it was made.
type Stats struct {
	Reads   uint64 // System calls that read from connections.
	Writes  uint64 // System calls that wrote to connections.
	Wakeups uint64 // Blocking waits that have returned.
	Posts   uint64 // Posted tasks that have been run.
}

// Loop waits for events on its connections and tells their owners. One goroutine runs it, the one that calls Run; it
// ends with Stop. Post, Stop, Index and Stats may be called from any goroutine, everything else from Run's only.
type Loop struct {
	index   int
	poller  poller
	conns   []*Conn // Attached connections by descriptor; nil where there is none.
	gen     uint32  // Tells the connections apart that have had the same descriptor.
	scratch []byte
	lent    []byte // The Conn's own buffer that the last Read returned, if it was one: Keep may leave bytes in it.
	records []byte // TLS records made by the call in progress, on their way to one write.
	spare   []*tail
	outbox  outbox
	poked   []event // Made-up events for what the poller cannot know of: bytes inside a tls.Conn.
	later   tasks
	posted  tasks // What has been taken out of inbox.
	inbox   inbox
	wheel   wheel
	clock   func() int64
	now     int64
	busy    bool // There have been events since the processor was last offered to others.

	reads, writes, wakeups, posts atomic.Uint64 // Written by the loop's goroutine only.
}

// New makes a loop and opens its descriptors. Every loop must be run, even when it has been stopped before: Run is what
// closes them.
func New(cfg Config) (*Loop, error) {
	if cfg.Scratch <= 0 {
		cfg.Scratch = DefaultScratch
	}
	l := &Loop{index: cfg.Index, scratch: make([]byte, cfg.Scratch), clock: Nanos}
	l.outbox.bytes = make([]byte, 0, outboxSize)
	l.now = l.clock()
	l.wheel.init(l.now)
	if err := l.poller.open(); err != nil {
		return nil, fmt.Errorf("open poller: %w", err)
	}
	return l, nil
}

// Run serves events until Stop and returns nil, or the error that made waiting impossible. What had been posted by then
// is run; connections that are still attached are closed, without a word to their owners.
func (l *Loop) Run() error {
	defer l.release()
	for {
		n, err := l.wait()
		if err != nil {
			l.inbox.stop()
			return fmt.Errorf("wait for events: %w", err)
		}
		l.now = l.clock()
		l.dispatch(n)
		l.later.run()
		stopping := l.runPosts()
		l.wheel.advance(l.now)
		l.sendAll()
		if stopping {
			l.later.run()
			return nil
		}
	}
}

// Stop makes Run return after the turn that is under way. Any goroutine may call it, any number of times.
func (l *Loop) Stop() {
	if l.inbox.stop() {
		l.poller.wake()
	}
}

// Index returns the loop's number.
func (l *Loop) Index() int { return l.index }

// Stats returns the loop's totals. The figures are read one after the other, not at one instant.
func (l *Loop) Stats() Stats {
	return Stats{
		Reads: l.reads.Load(), Writes: l.writes.Load(),
		Wakeups: l.wakeups.Load(), Posts: l.posts.Load(),
	}
}

// Nanos returns the monotonic time in nanoseconds as it was at the last wake-up, on the scale of the function Nanos.
func (l *Loop) Nanos() int64 { return l.now }

// origin is where Nanos counts from. It is fixed when the process starts.
var origin = time.Now() //nolint:gochecknoglobals // A constant that only the start of the process can know.

// Nanos returns the monotonic time in nanoseconds since the process started. Any goroutine may call it.
func Nanos() int64 { return int64(time.Since(origin)) }

// NanosAt returns the same for a moment that time.Now has told.
func NanosAt(t time.Time) int64 { return int64(t.Sub(origin)) }

// wait returns how many events the poller has. It looks without telling the scheduler first, as under load there is
// nearly always something. When there is not, but the last turn has served somebody, the processor is offered to others
// once: those who have just been written to mostly answer at once, and to find several answers costs less than to be woken
// for the first of them. Only a wait that will block wakes for nothing but an event, a post or a timer.
func (l *Loop) wait() (int, error) {
	n, err := l.look()
	if n != 0 || err != nil || !l.later.empty() || len(l.poked) != 0 {
		return n, err
	}
	if l.busy {
		l.busy = false
		l.poller.yield()
		if n, err = l.look(); n != 0 || err != nil {
			return n, err
		}
	}
	timeout := l.timeout()
	if timeout == 0 || !l.inbox.sleep() {
		return 0, nil
	}
	n, err = l.poller.wait(timeout)
	l.busy = n > 0
	l.wakeups.Add(1)
	return n, err
}

// look returns how many events the poller has now.
func (l *Loop) look() (int, error) {
	n, err := l.poller.poll()
	l.busy = l.busy || n > 0
	return n, err
}

// timeout returns the milliseconds that the loop may block: 0 when a timer is due, -1 for ever.
func (l *Loop) timeout() int {
	at, ok := l.wheel.next()
	if !ok {
		return -1
	}
	left := at - l.clock()
	if left <= 0 {
		return 0
	}
	return int(min((left+int64(time.Millisecond)-1)/int64(time.Millisecond), math.MaxInt32))
}

// dispatch tells the owners of what the poller found. Hangups come first, so that the owner of a dead idle server knows
// before a client that would be given that server is served. Each event is looked up when its turn comes: a callback may
// have closed the connection, and a new one may have got its descriptor.
func (l *Loop) dispatch(n int) {
	for i := range n {
		if e := l.poller.event(i); e.hangup {
			if c := l.lookup(e); c != nil {
				c.flags |= unread | hungUp
				c.owner.Readable(true)
			}
		}
	}
	for i := range n {
		l.serve(l.poller.event(i))
	}
	for _, e := range l.takePoked() {
		l.serve(e)
	}
}

// serve tells an owner of an event, but for the hangup in it.
func (l *Loop) serve(e event) {
	if c := l.lookup(e); c != nil && e.writable {
		c.writable()
	}
	if !e.readable || e.hangup {
		return
	}
	if c := l.lookup(e); c != nil {
		c.flags |= unread
		c.owner.Readable(false)
	}
}

// takePoked empties the list of made-up events. Those that are added while it is worked off belong to the next turn.
func (l *Loop) takePoked() []event {
	p := l.poked
	l.poked = nil
	return p
}

// lookup returns the connection that an event is for, or nil when that one is not attached any more.
func (l *Loop) lookup(e event) *Conn {
	if int(e.fd) >= len(l.conns) {
		return nil
	}
	if c := l.conns[e.fd]; c != nil && c.gen == e.gen {
		return c
	}
	return nil
}

// register puts a connection into the table under its descriptor, with a generation of its own.
func (l *Loop) register(c *Conn) {
	if n := int(c.fd) + 1; n > len(l.conns) {
		table := make([]*Conn, max(n, 2*len(l.conns)))
		copy(table, l.conns)
		l.conns = table
	}
	l.gen++
	c.gen = l.gen
	l.conns[c.fd] = c
}

// release closes what Run leaves behind.
func (l *Loop) release() {
	for _, c := range l.conns {
		if c != nil {
			c.Close()
		}
	}
	l.poller.close()
}
