// Package config turns a YAML file and the environment into one typed Config and reports every fault at once.
//
// It does not act on what it reads: other packages get their own Config structs from cmd. The table in options.go is the
// only place that knows the keys: parsing, variable names, the reference file, the masked print and the comparison for a
// reload are all derived from it.
package config

import "time"

// Config is everything that can be set. A Config from Load is complete and consistent; the zero value is not, see Default.
// Durations of 0 switch a limit off, as do numbers of 0, unless a key's text says otherwise.
type Config struct {
	Listen             []Listen
	HTTP               HTTP
	Upstream           Upstream
	Discovery          Discovery
	Pool               Pool
	Failover           Failover
	Reads              Reads
	Client             Client
	Timeouts           Timeouts
	PreparedStatements PreparedStatements
	Session            Session
	ClientAuth         ClientAuth
	ClientTLS          ClientTLS
	Databases          map[string]Database // By the name that clients ask for.
	Users              map[string]User     // By the name that clients log in with.
	Admin              Admin
	Takeover           Takeover
	Drain              Drain
	Lifecycle          Lifecycle
	Log                Log
	Loops              int
	CPUs               []int // Empty: all that the process is given.
	Memory             Memory
}

// HTTP is where probes, metrics and the status page are served.
type HTTP struct {
	Listen         []string // host:port or the path of a unix socket.
	PodTerminating bool     // /pod-terminating answers others than this machine.
	QuitQuitQuit   bool     // /quitquitquit is there.
}

// Upstream is how PostgreSQL is reached.
type Upstream struct {
	URL            ConnString
	Hosts          []string // host:port; none: those of the URL.
	PasswordFile   string   // Read at each login; "" without.
	ConnectTimeout time.Duration
	Keepalive      time.Duration
	TCPUserTimeout time.Duration
}

// Pool bounds the server connections and says how long they live.
type Pool struct {
	Mode                      PoolMode
	MaxConnections            int
	MinConnections            int
	MaxConnectionsPerDatabase int
	MaxConnectionsPerUser     int
	AcquireTimeout            time.Duration
	IdleTimeout               time.Duration
	MaxLifetime               time.Duration
}

// Failover is how a missing primary is bridged.
type Failover struct {
	Hold       time.Duration
	MaxLostWAL int // Bytes; 0: any.

	ResolveCommit bool // COMMITs whose answer was lost are looked up.
}

// Client bounds the clients and how long they may be idle or slow.
type Client struct {
	MaxClients            int
	MaxClientsPerDatabase int
	MaxClientsPerUser     int
	LoginTimeout          time.Duration
	IdleTimeout           time.Duration
	WriteTimeout          time.Duration
}

// Timeouts bounds the work of clients.
type Timeouts struct {
	Query           time.Duration
	Transaction     time.Duration
	IdleTransaction time.Duration
}

// Session is how the state of clients' sessions is kept apart.
type Session struct {
	SentinelEvery int // Releases.
	LearnEvery    time.Duration
	OnUnsupported OnUnsupported
	Explain       bool // A dry run.
}

// PreparedStatements bounds the tables of prepared statements.
type PreparedStatements struct {
	Max          int // Per server connection.
	MaxPerClient int
}

// ClientAuth is how clients prove who they are.
type ClientAuth struct {
	Method       AuthMethod
	UsersFile    string
	UnknownUsers UnknownUsers
	ForceTrust   bool
}

// ClientTLS is the encryption offered to clients.
type ClientTLS struct {
	Mode       TLSMode
	CertFile   string
	KeyFile    string
	CAFile     string
	MinVersion TLSVersion
}

// Database is an alias, or a setting for one database.
type Database struct {
	DBName         string // "" is the alias's own name.
	User           string // The user at the server for everyone who asks for this alias; "" is the client's own.
	PoolMode       PoolMode
	Route          Route // "" is that of the Listen.
	MaxClients     int
	MaxConnections int

	OnUnsupported OnUnsupported // "" is that of the session section.
}

// User is a setting for one user.
type User struct {
	PoolMode       PoolMode
	MaxClients     int
	MaxConnections int
}

// Admin is who may look after the proxy by SQL.
type Admin struct {
	Users []string // Empty: the user of the upstream URL.
}

// Takeover is how a successor takes the clients over.
type Takeover struct {
	Socket string // The path of a unix socket; "" without.
}

// Drain is how the end goes, and how long it may take.
type Drain struct {
	Timeout     time.Duration // For transactions, from the moment when new clients are refused.
	PodGrace    time.Duration // From SIGTERM to SIGKILL; 0: not known, which a classic sidecar cannot do with.
	MinLinger   time.Duration // The next two are for a classic sidecar only.
	QuietPeriod time.Duration
}

// closingTime is what the end takes after the last client: PostgreSQL gets two seconds to end its connections.
const closingTime = 3 * time.Second

// MaxLinger returns how long a classic sidecar may still welcome new clients after SIGTERM, so that the rest of the end
// fits into the pod's grace period.
func (d Drain) MaxLinger() time.Duration { return d.PodGrace - d.Timeout - closingTime }

// Memory bounds the memory of the process.
type Memory struct {
	Limit     int64 // Bytes; 0: what the environment says.
	Admission int   // Percent of the limit.
}

// Log is what is logged, and how.
type Log struct {
	Level       LogLevel
	Format      LogFormat
	Connections bool
}

// The words that a key with a choice takes.
type (
	// PoolMode says how long a client keeps its server. In a Database or User "" is the mode of the pool.
	PoolMode string
	// OnUnsupported says what becomes of statements whose effect only one server connection can keep.
	OnUnsupported string
	// AuthMethod says how a client proves who it is.
	AuthMethod string
	// UnknownUsers says what happens to users that are neither in the upstream URL nor in the users file.
	UnknownUsers string
	// TLSMode says which clients must use TLS, in the words of PgBouncer's client_tls_sslmode.
	TLSMode string
	// TLSVersion is the oldest TLS version that is accepted.
	TLSVersion string
	// Lifecycle says how the pod starts and stops the proxy.
	Lifecycle string
	// LogLevel is the least severe level that is logged.
	LogLevel string
	// LogFormat is the form of a log line.
	LogFormat string
)

// The pool modes.
const (
	PoolTransaction PoolMode = "transaction"
	PoolSession     PoolMode = "session"
	PoolStatement   PoolMode = "statement"
)

// What becomes of statements that pin.
const (
	UnsupportedPin   OnUnsupported = "pin"
	UnsupportedError OnUnsupported = "error"
	UnsupportedWarn  OnUnsupported = "warn"
)

// The authentication methods.
const (
	AuthTrust    AuthMethod = "trust"
	AuthPassword AuthMethod = "password"
	AuthMD5      AuthMethod = "md5"
	AuthSCRAM    AuthMethod = "scram-sha-256"
)

// What happens to unknown users.
const (
	UnknownReject   UnknownUsers = "reject"
	UnknownAsIs     UnknownUsers = "as-is"
	UnknownUpstream UnknownUsers = "upstream"
)

// The TLS modes, from none to the strictest.
const (
	TLSDisable    TLSMode = "disable"
	TLSAllow      TLSMode = "allow"
	TLSRequire    TLSMode = "require"
	TLSVerifyCA   TLSMode = "verify-ca"
	TLSVerifyFull TLSMode = "verify-full"
)

// The TLS versions.
const (
	TLS12 TLSVersion = "1.2"
	TLS13 TLSVersion = "1.3"
)

// The lifecycles: told to end when nobody needs it any more, or together with the application that does.
const (
	LifecycleNative  Lifecycle = "native"
	LifecycleClassic Lifecycle = "classic"
)

// The log levels.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

// The log formats.
const (
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

// Default returns the configuration without a file and without an environment. It lacks only the upstream URL.
func Default() Config {
	return Config{
		Listen: []Listen{{Address: "127.0.0.1:6432", Route: RoutePrimary}},
		HTTP:   HTTP{Listen: []string{"127.0.0.1:6433"}},
		Upstream: Upstream{
			ConnectTimeout: 15 * time.Second,
			Keepalive:      15 * time.Second,
			TCPUserTimeout: 15 * time.Second,
		},
		Pool: Pool{
			Mode:           PoolTransaction,
			MaxConnections: 20,
			AcquireTimeout: 30 * time.Second,
			IdleTimeout:    10 * time.Minute,
			MaxLifetime:    time.Hour,
		},
		Reads:              Reads{Consistency: ConsistencySession, MaxLag: 30 * time.Second},
		Failover:           Failover{Hold: 10 * time.Second, MaxLostWAL: 16 << 20},
		Client:             Client{MaxClients: 10_000, LoginTimeout: time.Minute, WriteTimeout: time.Minute},
		PreparedStatements: PreparedStatements{Max: 200, MaxPerClient: 5000},
		Session:            Session{SentinelEvery: 10_000, LearnEvery: time.Minute, OnUnsupported: UnsupportedPin},
		ClientAuth:         ClientAuth{Method: AuthTrust, UnknownUsers: UnknownReject},
		ClientTLS:          ClientTLS{Mode: TLSDisable, MinVersion: TLS12},
		Drain:              Drain{Timeout: 30 * time.Second, MinLinger: 5 * time.Second, QuietPeriod: 3 * time.Second},
		Lifecycle:          LifecycleNative,
		Log:                Log{Level: LogInfo, Format: LogText},
		Loops:              1,
		Memory:             Memory{Admission: 90},
	}
}
