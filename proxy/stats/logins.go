package stats

import "sync/atomic"

// Outcome says how the login of a client ended.
type Outcome uint8

// The outcomes of a login, one for each accepted connection that was no cancel request.
const (
	LoggedIn    Outcome = iota // ReadyForQuery was sent.
	AuthFailed                 // Wrong password, unknown user, certificate or TLS not as asked for.
	TooMany                    // One of the client limits was reached.
	Unavailable                // The proxy was starting or stopping, or no server could be had.
	TimedOut                   // client.login_timeout passed.
	Broken                     // The client left or did not keep to the protocol.

	numOutcomes = iota
)

// String returns the word used in labels.
func (o Outcome) String() string {
	switch o {
	case LoggedIn:
		return "logged_in"
	case AuthFailed:
		return "auth_failed"
	case TooMany:
		return "too_many"
	case Unavailable:
		return "unavailable"
	case TimedOut:
		return "timed_out"
	case Broken:
		return "broken"
	default:
		return "unknown"
	}
}

// Logins counts the logins of clients by outcome. Any goroutine may use it; the zero value is ready.
type Logins struct{ counts [numOutcomes]atomic.Uint64 }

// LoginCounts is a reading of Logins, indexed by Outcome.
type LoginCounts [numOutcomes]uint64

// Add counts one login.
func (l *Logins) Add(o Outcome) { l.counts[o].Add(1) }

// Snapshot returns the counts.
func (l *Logins) Snapshot() LoginCounts {
	var counts LoginCounts
	for i := range l.counts {
		counts[i] = l.counts[i].Load()
	}
	return counts
}
