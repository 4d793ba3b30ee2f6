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

	Clients Clients
	Logins  LoginCounts
	Pools   []PoolSnapshot
	Limit   int // pool.max_connections: the bound over all pools.
	Totals  Totals
	Errors  []ErrorCount

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
