package probe

import "time"

// Observation is what one probe has found. It is immutable once published.
//
// If Err is set, nothing but At, Took, Err and Reason is valid. What the server does not have, or does not show to the role
// that asks, is zero or empty.
type Observation struct {
	At   time.Time     // when the answer came, or was given up
	Took time.Duration // from the probe's begin to At, with dialling if that was necessary

	// Since is when the connection that was asked had been logged in. The server has not been started anew between then and At.
	Since time.Time

	// SystemID identifies the cluster: servers with the same one are copies of each other.
	SystemID uint64

	// Instance tells the running server from all others of its cluster, whatever name it is reached by: when it was started, to the
	// microsecond, and the port in its configuration, which no two servers of one machine share.
	Instance string

	// Timeline is exact on a primary, from the moment of its promotion. On a standby it is a lower bound, as a plain role is told
	// only what the last restart point knew: that it is low says nothing against a standby.
	Timeline uint32

	Standby  bool // pg_is_in_recovery()
	ReadOnly bool // default_transaction_read_only of a session that begins now: writes are switched off

	// LSN is, on a standby, the position up to which it has replayed. On a primary it is the *insert* position: an upper bound of all
	// that any client had been told is committed when the probe was answered, whatever its synchronous_commit, and so what a
	// standby must have replayed to show it.
	LSN LSN

	// Flushed is, on a primary, the position up to which the WAL is on its disk: commits up to there may have been
	// acknowledged and must not be lost. 0 on a standby.
	Flushed LSN

	// Received is, on a standby, the position up to which it has the WAL, replayed or not: what it would have if it were promoted. 0
	// on a primary.
	Received LSN

	// Lag is, on a standby that has not replayed all it has received, for how long at most it has not. It is 0 if it has, which
	// says nothing about what it has not received: compare LSN with the primary's for that.
	Lag time.Duration

	Version int // server_version_num, such as 180004

	// The census, which is taken less often than each time (Config.Census).
	Connections    int   // to all databases
	MaxConnections int   // max_connections
	Reserved       int   // of those, for superusers and members of pg_use_reserved_connections only
	HorizonAge     int64 // transactions begun since the oldest snapshot that a session holds: what VACUUM cannot remove

	// History tells where earlier timelines ended, oldest first. It is empty on timeline 1, and where neither pg_read_file nor
	// replication is permitted to the role.
	History []TimelineSwitch

	// Topology lists the members of the cluster as Aurora and RDS Multi-AZ clusters tell them, and is empty elsewhere.
	Topology []Member

	Err    error
	Reason Reason
}

// TimelineSwitch is a point at which a standby was promoted.
type TimelineSwitch struct {
	Timeline uint32 // the timeline that ended
	At       LSN    // where it ended: what was written beyond is not part of this history
}

// Member is a server of a cluster, in the words of a server of the same cluster. Readers repeat what they have heard, late:
// whether a server is the primary is to be asked of itself.
type Member struct {
	ID     string
	Host   string        // "" where only ids are told (Aurora)
	Port   uint16        // 0 where it is not told
	Writer bool          // it is said to be the primary
	Self   bool          // it is the server that was asked
	Lag    time.Duration // behind the writer, as far as it is told
}

// Reason classifies why an observation says nothing about its server.
type Reason int

// The reasons.
const (
	OK          Reason = iota
	Unreachable        // no address, no route, nobody listens, or the connection was reset
	Timeout            // no answer within Config.Timeout: frozen, overloaded, or the route is lost
	Refused            // a PostgreSQL that does not serve now: it starts, recovers or shuts down (57P01 to 57P04)
	Full               // a PostgreSQL that lives, but has no connection left for the probe (53300)
	AuthFailed         // the probe's login is refused (class 28), or its database does not exist (3D000)
	TLSFailed          // no agreement on encryption, or a certificate that is not accepted
	NotPostgres        // something else answers, or answers without end
	Failed             // a PostgreSQL that answered the question with another error
)

// String is a short text for logs and status pages.
func (r Reason) String() string {
	switch r {
	case OK:
		return "ok"
	case Unreachable:
		return "unreachable"
	case Timeout:
		return "timeout"
	case Refused:
		return "refused"
	case Full:
		return "full"
	case AuthFailed:
		return "auth_failed"
	case TLSFailed:
		return "tls_failed"
	case NotPostgres:
		return "not_postgres"
	case Failed:
		return "failed"
	}
	return "unknown"
}
