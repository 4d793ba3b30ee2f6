package proxy

import (
	"cmp"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/session"
)

// Config is everything that a Proxy is told. A reload passes another one; Listen and Loops stay as they were then.
type Config struct {
	// Listen are the addresses for clients: host:port, or the path of a unix socket (a directory, as libpq names it in
	// host=, with port 6432, or the whole path of the socket).
	Listen []string
	// Routes are where those go who come to the address at the same place of Listen; those that are not there go to the primary.
	Routes []session.Route
	Loops  int // event loops; 0 means 1

	Auth  auth.Config
	TLS   *login.CertFiles // nil: not offered
	Login login.Config     // its TLS and Auth are set by the proxy

	Server  server.Config
	Pool    pool.Config // its Loops, Databases and Users are set by the proxy
	Mode    session.Mode
	Session session.Config

	Unsupported session.Unsupported // for clients that log in from now on, as Mode

	// MaxClients bounds the logged-in clients; 0 means no limit, as for the two others.
	MaxClients, MaxClientsPerDatabase, MaxClientsPerUser int

	// MemoryShare is the percentage of Go's memory limit from which on no client is admitted; 0 means no limit, as does
	// a process without a memory limit.
	MemoryShare int

	Databases map[string]Database // by the name that clients ask for
	Users     map[string]User     // by the name that clients log in with

	// Suspect is called, from any goroutine and perhaps often, when traffic has met something that a failover would explain.
	// It must not block. nil: nobody is told. It is fixed for the proxy's life.
	Suspect func()

	// Console serves clients of its databases; nil: there is none.
	Console Console

	LogConnections bool // a line for each client that comes and goes
}

// Database is an alias, or what is special about one database.
type Database struct {
	Name       string         // at the server; "": the alias's own
	User       string         // at the server, for everyone; "": the client's own
	Mode       *session.Mode  // nil: Config.Mode
	Route      *session.Route // nil: that of the address
	MaxClients int            // 0: Config.MaxClientsPerDatabase

	// MaxConnections bounds the connections to the database at the server, whatever name clients ask for. Of several
	// aliases of one database the lowest counts. 0: Pool.MaxPerDatabase.
	MaxConnections int

	Unsupported *session.Unsupported // nil: Config.Unsupported
}

// User is what is special about one user.
type User struct {
	Mode       *session.Mode // nil: that of the database
	MaxClients int           // 0: Config.MaxClientsPerUser

	// MaxConnections bounds the connections of the user of that name at the server, which need not be the one that its
	// clients log in with. 0: Pool.MaxPerUser.
	MaxConnections int
}

// connectionLimits returns the pool's limits of single databases and users.
func (c *Config) connectionLimits() (databases, users map[string]int) {
	databases, users = make(map[string]int), make(map[string]int)
	for alias, d := range c.Databases {
		name := cmp.Or(d.Name, alias)
		if before := databases[name]; d.MaxConnections > 0 && (before == 0 || d.MaxConnections < before) {
			databases[name] = d.MaxConnections
		}
	}
	for name, u := range c.Users {
		if u.MaxConnections > 0 {
			users[name] = u.MaxConnections
		}
	}
	return databases, users
}
