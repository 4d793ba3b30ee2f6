// Package discover finds out where PostgreSQL servers are: from a list, from DNS, from Patroni, from what servers themselves tell
// of their cluster. It does not talk to PostgreSQL, and what it finds is a claim that whoever uses it verifies.
//
// The invariant: no error makes a source forget the servers that it knows. An empty answer is an error.
package discover

import (
	"context"
	"net"
	"strconv"
	"time"
)

// Hint is a role that a source ascribes to a server.
type Hint int

// The hints.
const (
	Unknown Hint = iota
	Primary
	Standby
)

// String is the hint in words.
func (h Hint) String() string {
	switch h {
	case Unknown:
		return "unknown"
	case Primary:
		return "primary"
	case Standby:
		return "standby"
	}
	return "invalid"
}

// Target is a server at one address.
type Target struct {
	// Name tells the targets of a source apart and stays the same as long as a target means the same server to its source. It
	// is host:port where there is nothing better.
	Name string
	// Host is a name, an IP address or the directory of a unix socket.
	Host string
	Port uint16
	// ServerName is whom the server's certificate must name, where Host is an address that a name was resolved to. "": Host.
	ServerName string
	Role       Hint
	Timeline   uint32 // 0: unknown
}

// Addr is host:port.
func (t Target) Addr() string { return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port))) }

// Snapshot is what a source knows at one time. It is immutable once published, with all that it refers to.
type Snapshot struct {
	// Targets is the last good list, also when Err is set; it is empty only before the first.
	Targets []Target
	// Authority says that this source decides who leads, at the moment of this snapshot: it confirms the target whose name
	// is Leader, and vetoes all others. With Leader "" it vetoes everyone. It is false when Err is set: an authority that
	// cannot be heard neither confirms nor vetoes.
	Authority bool
	Leader    string
	At        time.Time // when it was asked
	Err       error     // why the source could not be asked, or its answer not be believed
}

// Source publishes a snapshot after each attempt to find something out, the first of which Run makes at once; most say the same
// as those before. Run is called once, publishes from its own goroutine only and returns when ctx ends.
type Source interface {
	Run(ctx context.Context, publish func(Snapshot))
}
