package router

import (
	"time"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// Topology is what is known of all targets at one moment. It is immutable once published, with all that it refers to.
type Topology struct {
	// Generation is raised whenever another server becomes the primary, or the same one on another timeline: connections
	// made under an earlier one are to be given up.
	Generation uint64

	Targets []Target
	Primary int    // its place in Targets; -1: there is none that may be used
	Why     string // why there is none, in a sentence; "" if there is

	// Alarms are sentences for people: what the router has had to decide and should not have had to.
	Alarms []string

	SystemID uint64 // of the cluster; 0: not known yet
	Timeline uint32 // the highest that a primary was accepted with; 0: none was

	Switches []Switch // the last ones, the latest last
	Switched uint64   // how many there have been
}

// Target is one server as it was last seen.
type Target struct {
	discover.Target
	Seen    *probe.Observation // nil: it has not been probed yet
	Refusal string             // why it is not the primary, in a sentence; "" for the primary
	Reading *Reading           // nil: it is no standby that clients may read from
	Drained bool               // an operator has taken it out of service: nobody is to be sent there
	SameAs  string             // the name of another target that is the same server, which is to be used instead; "": none
}

// Switch is a change of the primary.
type Switch struct {
	From, To         string // names of targets
	Timeline, Before uint32 // that of the new primary, and that of the old one
	At               time.Time

	// Took is the time without a primary: from the moment when the old one was given up to the moment when the new one was
	// accepted.
	Took time.Duration

	// Lost is how much WAL, in bytes, the old primary was seen to have on its disk that the new one does not have. It is a lower
	// bound, as the last that the old one wrote may not have been seen. Approximate says that the new primary does not show
	// where it left the old timeline, so that even more may be missing.
	Lost        uint64
	Approximate bool
}

// Accepted returns the primary, or nil.
func (t *Topology) Accepted() *Target {
	if t.Primary < 0 {
		return nil
	}
	return &t.Targets[t.Primary]
}

// Role is what the target was last seen as: primary, standby, or unknown.
func (t *Target) Role() string {
	switch {
	case t.Seen == nil || t.Seen.Err != nil:
		return "unknown"
	case t.Seen.Standby:
		return "standby"
	}
	return "primary"
}

// Health is a word of a small fixed set: unseen, ok, or why it could not be probed.
func (t *Target) Health() string {
	if t.Seen == nil {
		return "unseen"
	}
	return t.Seen.Reason.String()
}
