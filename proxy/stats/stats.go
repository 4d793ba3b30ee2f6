// Package stats holds the proxy's counters and the snapshot in which they are read.
//
// It does not know how numbers are shown: Prometheus, the status page and the console read a Snapshot.
// Counters of the fast path are written by one event loop each and read by anyone, so they need neither locks nor
// read-modify-write instructions.
package stats

import "sync/atomic"

// Counter is a number that only grows. One goroutine writes it, any goroutine may read it; the zero value is ready.
// With a single writer a plain load of its own last store is exact, which spares the locked addition.
type Counter struct{ n uint64 }

// Add adds n. Only the counter's writer may call it.
func (c *Counter) Add(n uint64) { atomic.StoreUint64(&c.n, c.n+n) }

// Inc adds one. Only the counter's writer may call it.
func (c *Counter) Inc() { c.Add(1) }

// Load returns the value. Any goroutine may call it.
func (c *Counter) Load() uint64 { return atomic.LoadUint64(&c.n) }

// Loop holds the counters of one event loop, which is their only writer. Loops must allocate it on its own: the
// padding keeps the counters of two loops out of one cache line.
type Loop struct {
	_ [64]byte

	StatementsSimple   Counter // Query messages sent to a server.
	StatementsExtended Counter // Execute messages sent to a server.

	BytesFromClients Counter // Bytes, after TLS.
	BytesToClients   Counter
	BytesFromServers Counter
	BytesToServers   Counter

	ReparsesNamed   Counter // Parse messages injected because the server did not hold a client's named statement.
	ReparsesUnnamed Counter // The same for unnamed statements.

	Reruns       Counter // Requests made again of another server, as theirs had ended before it did anything.
	StateReplays Counter // Times a client's settings were sent ahead of its first message.
	StateResets  Counter // Times a server was reset before another client could have it.
	StateLeaks   Counter // Times a released server was found to carry a client's state; must stay 0.

	DrainedIdle     Counter // Clients that the drain found between transactions, or waiting to begin one.
	DrainedFinished Counter // Clients whose transaction ended during the drain.
	DrainedCut      Counter // Clients whose transaction was cut at the drain's deadline.

	// Transactions of clients that may read on standbys, but went to the primary.
	ReadsNone     Counter // There was no standby that may be read from.
	ReadsBehind   Counter // None was known to show what the client has written or read.
	ReadsByChance Counter // Any server would have done.
	ReadsRefused  Counter // A standby has refused it, and the client was not told.
	ReadsConflict Counter // A standby has cancelled it because of its recovery, and the client was not told.
	ReadsLost     Counter // Its standby was lost, and the client was not told.

	HandedOver Counter // Clients that have moved to a successor process.
	TakenOver  Counter // Clients that have moved here from a predecessor.

	Wait        Histogram // From the wish for a server to the link, also when it was had at once.
	Transaction Histogram // From link to unlink.

	_ [64]byte
}

// Pool holds the counters of one pool on one loop, which is their only writer.
type Pool struct {
	Transactions Counter // Transactions that ended, whatever their outcome.
}

// Totals is the sum of the loops' counters.
type Totals struct {
	StatementsSimple, StatementsExtended                               uint64
	BytesFromClients, BytesToClients, BytesFromServers, BytesToServers uint64
	ReparsesNamed, ReparsesUnnamed                                     uint64
	Reruns, StateReplays, StateResets, StateLeaks                      uint64
	DrainedIdle, DrainedFinished, DrainedCut                           uint64
	HandedOver, TakenOver                                              uint64
	ReadsNone, ReadsBehind, ReadsByChance                              uint64
	ReadsRefused, ReadsConflict, ReadsLost                             uint64
	Wait, Transaction                                                  Distribution
}

// AddTo adds the loop's counters to t. Any goroutine may call it; the counters are read one after another, so a
// sum is as exact as a scrape needs and no more.
func (l *Loop) AddTo(t *Totals) {
	t.StatementsSimple += l.StatementsSimple.Load()
	t.StatementsExtended += l.StatementsExtended.Load()
	t.BytesFromClients += l.BytesFromClients.Load()
	t.BytesToClients += l.BytesToClients.Load()
	t.BytesFromServers += l.BytesFromServers.Load()
	t.BytesToServers += l.BytesToServers.Load()
	t.ReparsesNamed += l.ReparsesNamed.Load()
	t.ReparsesUnnamed += l.ReparsesUnnamed.Load()
	t.Reruns += l.Reruns.Load()
	t.StateReplays += l.StateReplays.Load()
	t.StateResets += l.StateResets.Load()
	t.StateLeaks += l.StateLeaks.Load()
	t.DrainedIdle += l.DrainedIdle.Load()
	t.DrainedFinished += l.DrainedFinished.Load()
	t.DrainedCut += l.DrainedCut.Load()
	t.ReadsNone += l.ReadsNone.Load()
	t.ReadsBehind += l.ReadsBehind.Load()
	t.ReadsByChance += l.ReadsByChance.Load()
	t.ReadsRefused += l.ReadsRefused.Load()
	t.ReadsConflict += l.ReadsConflict.Load()
	t.ReadsLost += l.ReadsLost.Load()
	t.HandedOver += l.HandedOver.Load()
	t.TakenOver += l.TakenOver.Load()
	l.Wait.AddTo(&t.Wait)
	l.Transaction.AddTo(&t.Transaction)
}
