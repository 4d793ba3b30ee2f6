package stats

import "time"

// Phase is where the proxy is in its life.
type Phase uint8

// The phases in their order; Noticed and Lingering may be skipped.
const (
	Starting Phase = iota
	Serving
	Noticed   // The pod is going to end: everything works on, idle servers are given back early.
	Lingering // Classic sidecar after SIGTERM: new clients are still welcome.
	Draining  // New clients are refused, idle ones closed, transactions end.
	Closing   // The deadline has passed or a second signal came: what is left is cut.
	Done

	numPhases = iota
)

// String returns the word used in labels and in JSON.
func (p Phase) String() string {
	switch p {
	case Starting:
		return "starting"
	case Serving:
		return "serving"
	case Noticed:
		return "noticed"
	case Lingering:
		return "lingering"
	case Draining:
		return "draining"
	case Closing:
		return "closing"
	case Done:
		return "done"
	default:
		return "unknown"
	}
}

// MarshalText makes the word appear in JSON.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Phases returns all phases in their order.
func Phases() [numPhases]Phase {
	return [numPhases]Phase{Starting, Serving, Noticed, Lingering, Draining, Closing, Done}
}

// Snapshot is the state of the whole proxy as one reader saw it. Its parts are read one after another while the proxy
// works on, so sums may be off by what happened meanwhile.
type Snapshot struct {
	Phase   Phase
	Started time.Time

	Clients  Clients
	Logins   LoginCounts
	Pools    []PoolSnapshot // To the primary.
	Standbys []StandbySnapshot
	Limit    int // pool.max_connections: the bound over all pools.
	Totals   Totals
	Errors   []ErrorCount

	Held     string // Why transactions are held; "": they are not.
	Topology Topology

	Prepared       Prepared
	ServerConnects uint64  // Connections to PostgreSQL that became ready.
	ServersClosed  []Count // By reason, a word of a small fixed set.
	Pinned         []Count // Sessions by kind of pin: a word of a small fixed set, never an object's name.
	Pins           []Count // Pins that have begun, by kind.

	PinnedClients     []PinnedClient     // Those counted in Pinned, the one that has been for longest first.
	PinningStatements []PinningStatement // What has pinned sessions, the most frequent first; at most some hundreds.
}

// Clients counts the logged-in clients by state; each is in exactly one.
type Clients struct {
	Idle    int // Between transactions, without a server.
	Active  int // Linked to a server.
	Waiting int // Waiting for a server.
}

// All returns the number of logged-in clients.
func (c Clients) All() int { return c.Idle + c.Active + c.Waiting }

// PoolSnapshot is the state of one pool, which is a pair of database and user.
type PoolSnapshot struct {
	Database, User string

	Idle, Active, Dialing, Closing int           // Server connections; each is in exactly one state.
	Waiting                        int           // Clients in the queue.
	OldestWait                     time.Duration // How long the first of them has waited; 0 without one.
	Transactions                   uint64
}

// StandbySnapshot is what clients read from one standby, over all databases and users.
type StandbySnapshot struct {
	Name    string
	Open    bool // Clients may read from it; else there is only what was counted before.
	Avoided bool // But nobody is sent there, as it is too far behind.

	Idle, Active, Dialing, Closing int // Server connections; each is in exactly one state.
	Waiting                        int // Clients in the queue.
	Transactions                   uint64
}

// Read is how many transactions of clients that may read on standbys ran somewhere for a reason.
type Read struct {
	Target string // The name of a standby, or primary.
	Reason string // A word of a small fixed set.
	Count  uint64
}

// Reads returns where clients that may read on standbys had their transactions run.
func (s *Snapshot) Reads() []Read {
	all := make([]Read, 0, len(s.Standbys)+6)
	for _, b := range s.Standbys {
		all = append(all, Read{b.Name, "standby", b.Transactions})
	}
	return append(all,
		Read{"primary", "no_standby", s.Totals.ReadsNone},
		Read{"primary", "not_yet_shown", s.Totals.ReadsBehind},
		Read{"primary", "by_chance", s.Totals.ReadsByChance},
		Read{"primary", "refused", s.Totals.ReadsRefused},
		Read{"primary", "recovery_conflict", s.Totals.ReadsConflict},
		Read{"primary", "standby_lost", s.Totals.ReadsLost},
	)
}

// Prepared counts the prepared statements that are held, by place.
type Prepared struct {
	Clients int // Names that clients have given, over all clients.
	Shared  int // Distinct statements in the shared table.
	Servers int // Statements prepared on servers, over all servers.
}

// Count is a number with its label.
type Count struct {
	Label string
	Count uint64
}
