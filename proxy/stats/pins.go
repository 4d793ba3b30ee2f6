package stats

import "time"

// PinnedClient is a client that keeps its server between transactions, and why.
type PinnedClient struct {
	Client, Application, Database, User string // Client is its address.

	Kind      string // A word of a small fixed set.
	Reason    string // What it is, for people: temp table "t".
	Statement string // That has begun it, in one line, without its values, shortened; "" if it is not known.
	Since     time.Time
}

// PinningStatement is a statement that has pinned sessions, or would have, with the latest of them.
type PinningStatement struct {
	PinnedClient

	Verdict Verdict
	Count   uint64 // How often.
}

// Verdict is what became of a statement that pins.
type Verdict uint8

// Verdicts.
const (
	DoesPin        Verdict = iota
	Refused                // It was not run.
	WouldPin               // Dry run in pool mode session: it would pin in pool mode transaction.
	WouldBeRefused         // Dry run: it was run although it is to be refused.
)

// String says it in words.
func (v Verdict) String() string {
	switch v {
	case DoesPin:
		return "pins"
	case Refused:
		return "refused"
	case WouldPin:
		return "would pin"
	case WouldBeRefused:
		return "would be refused"
	}
	return "unknown"
}

// ClientsPerBusyServer is the multiplexing ratio of this moment: how many clients share each server that is in use. It is 0
// when none is.
func (s *Snapshot) ClientsPerBusyServer() float64 {
	busy := 0
	for _, p := range s.Pools {
		busy += p.Active
	}
	if busy == 0 {
		return 0
	}
	return float64(s.Clients.All()) / float64(busy)
}
