package admin

import (
	"strconv"
	"time"

	"pgsidecar/proxy/stats"
)

// Topology is what is known of the servers. Times are in seconds, WAL in bytes.
type Topology struct {
	Why      string   `json:"no_primary,omitempty"` // Why there is none.
	Alarms   []string `json:"alarms"`               // What people have to look at.
	SystemID string   `json:"system_identifier"`    // A text, as it is too large a number for some readers.
	Timeline uint32   `json:"timeline"`
	Targets  []Target `json:"targets"`
	Switched uint64   `json:"switches_total"`
	Switches []Switch `json:"switches"` // The last ones.
}

// Target is one server as it was last seen.
type Target struct {
	Name     string  `json:"name"`
	Address  string  `json:"address"`
	Role     string  `json:"role"`   // primary, standby or unknown.
	Health   string  `json:"health"` // ok, unseen, or why it could not be probed.
	Accepted bool    `json:"accepted"`
	Refusal  string  `json:"refusal,omitempty"` // Why it is not the primary.
	Age      float64 `json:"age_seconds"`
	Timeline uint32  `json:"timeline"`
	LSN      string  `json:"lsn,omitempty"`
	LagBytes uint64  `json:"lag_bytes"`
	LagTime  float64 `json:"lag_seconds"`
	Readable bool    `json:"readable"`         // A standby that clients may read from.
	Behind   string  `json:"behind,omitempty"` // Why nobody is sent there all the same.
}

// Switch is a change of the primary.
type Switch struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Timeline uint32    `json:"timeline"`
	At       time.Time `json:"at"`
	Took     float64   `json:"seconds"` // Without a primary.
	Lost     uint64    `json:"lost_wal_bytes"`
	AtLeast  bool      `json:"lost_wal_is_approximate,omitempty"`
}

// newTopology returns a topology in the form that is served.
func newTopology(t *stats.Topology) *Topology {
	if !t.Known {
		return nil
	}
	out := &Topology{
		Why: t.Why, Alarms: append([]string{}, t.Alarms...), SystemID: strconv.FormatUint(t.SystemID, 10), Timeline: t.Timeline,
		Targets: []Target{}, Switched: t.Switched, Switches: []Switch{},
	}
	for _, o := range t.Targets {
		out.Targets = append(out.Targets, Target{
			Name: o.Name, Address: o.Address, Role: o.Role, Health: o.Health, Accepted: o.Accepted, Refusal: o.Refusal,
			Age: o.Age.Round(time.Millisecond).Seconds(), Timeline: o.Timeline, LSN: o.LSN, LagBytes: o.LagBytes,
			LagTime: o.LagTime.Round(time.Millisecond).Seconds(), Readable: o.Readable, Behind: o.Behind,
		})
	}
	for _, s := range t.Switches {
		out.Switches = append(out.Switches, Switch{
			From: s.From, To: s.To, Timeline: s.Timeline, At: s.At, Took: s.Took.Round(time.Millisecond).Seconds(),
			Lost: s.Lost, AtLeast: s.Approximate,
		})
	}
	return out
}
