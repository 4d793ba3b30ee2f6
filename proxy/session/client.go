package session

import (
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
)

// Client is who has logged in, and how its session is to be served.
type Client struct {
	Profile

	// Settings are the startup parameters that become settings (modes Transaction and Statement). They are there until the
	// client has been welcomed.
	Settings []state.Setting

	// Login is how to log in to a server of the session's own: in modes WholeSession and Replication, and in the others
	// where Settings can only be made when a connection begins. It is there until the client has been welcomed.
	Login *server.Login
}

// Profile is what many clients have in common. It does not change.
type Profile struct {
	User, Database string // as the client knows them
	Protocol       uint32 // negotiated version: 3<<16, or 3<<16|2
	Mode           Mode
	Pool           *pool.Pool // on the primary
	Route          Route
	Unsupported    Unsupported // what becomes of statements that pin (modes Transaction and Statement)
}

// private tells whether the session has a server of its own.
func (p *Profile) private() bool { return p.Mode == WholeSession || p.Mode == Replication }

// maxAlike bounds the clients that a worker remembers for others to share.
const maxAlike = 1000

// alike returns one client for all that have been welcomed and are the same from then on.
func (w *Worker) alike(p Profile) *Client {
	if c := w.welcomed[p]; c != nil {
		return c
	}
	if len(w.welcomed) >= maxAlike {
		clear(w.welcomed)
	}
	c := &Client{Profile: p}
	w.welcomed[p] = c
	return c
}
