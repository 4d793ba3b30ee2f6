package stats

import "time"

// Topology is what is known of the servers behind the proxy.
type Topology struct {
	Known    bool   // Servers are watched at all.
	Why      string // Why none of them is the primary; "" if one is.
	Alarms   []string
	SystemID uint64
	Timeline uint32 // The highest that a primary was accepted with.
	Targets  []Target
	Switches []Switch // The last ones, the latest last.
	Switched uint64   // How many there have been.
}

// Target is one server as it was last seen.
type Target struct {
	Name, Address string
	Role          string        // primary, standby or unknown.
	Health        string        // ok, unseen, or why it could not be probed: a word of a small fixed set.
	Accepted      bool          // It is the primary that clients are led to.
	Refusal       string        // Why it is not, in a sentence.
	Age           time.Duration // Of what was last seen.

	Timeline uint32
	LSN      string
	LagBytes uint64        // Of a standby: WAL of the primary that it has not replayed.
	LagTime  time.Duration // Of a standby: how long what it has received has waited to be replayed, at most.

	Readable bool   // It is a standby that clients may read from.
	Behind   string // Why nobody is sent there all the same: too far behind. A sentence.
}

// Switch is a change of the primary.
type Switch struct {
	From, To         string
	Before, Timeline uint32
	At               time.Time
	Took             time.Duration // Without a primary.
	Lost             uint64        // Bytes of WAL that the old one is known to have had and the new one has not; a lower bound.
	Approximate      bool          // Even more may be missing.
}
