package stats

import "time"

// Client is a logged-in client at one moment.
type Client struct {
	Address, Application string
	Database, User       string // As the client knows them.
	ServerDatabase       string // As the server does: those of its pool.
	ServerUser           string
	Mode                 string // The pool mode: transaction, statement, session, or replication.
	State                ClientState
	Waited               time.Duration // For a server, if it waits.
	Prepared             int           // Statements that it has named.
}

// ClientState is what a client does; see Clients.
type ClientState uint8

// The states.
const (
	ClientIdle ClientState = iota
	ClientActive
	ClientWaiting
)

// String returns the word for it.
func (s ClientState) String() string {
	switch s {
	case ClientIdle:
		return "idle"
	case ClientActive:
		return "active"
	case ClientWaiting:
		return "waiting"
	}
	return "unknown"
}
