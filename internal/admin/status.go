package admin

import (
	"bytes"
	_ "embed"
	"html/template"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"pgsidecar/proxy/stats"
)

// Status is the answer to GET /status. Times are in seconds.
type Status struct {
	Version  string  `json:"version"`
	Config   string  `json:"config_hash,omitempty"` // Of the configuration in force.
	Phase    string  `json:"phase"`
	NotReady string  `json:"not_ready,omitempty"` // Why new clients are not welcome.
	Uptime   float64 `json:"uptime_seconds"`

	Listen   []string  `json:"listen"`             // Where clients connect, with real ports; empty while starting.
	Held     string    `json:"held,omitempty"`     // Why transactions are held.
	Topology *Topology `json:"topology,omitempty"` // Absent where servers are not watched.

	Clients      Clients           `json:"clients"`
	Servers      Servers           `json:"servers"`
	Pools        []Pool            `json:"pools"`    // To the primary.
	Standbys     []Standby         `json:"standbys"` // That clients read from.
	Reads        map[string]uint64 `json:"reads"`    // Transactions of clients that may read from standbys, by where they ran and why.
	Transactions uint64            `json:"transactions"`
	Errors       []Error           `json:"errors"`
	Logins       map[string]uint64 `json:"logins"` // By outcome.
	Pinned       map[string]uint64 `json:"pinned"` // Sessions by kind of reason.
	Leaks        uint64            `json:"state_leaks"`

	CheckoutWait Durations `json:"checkout_wait"`
	Transaction  Durations `json:"transaction"`

	ClientsPerBusyServer float64            `json:"clients_per_busy_server"` // 0 when no server is busy.
	PinnedClients        []PinnedClient     `json:"pinned_clients"`
	PinningStatements    []PinningStatement `json:"pinning_statements"`
}

// Durations counts how long something took, since the start.
type Durations struct {
	Bounds []float64 `json:"bounds_seconds"` // Upper bounds, inclusive and ascending.
	Counts []uint64  `json:"counts"`         // Per bucket, not cumulative; the last one is above all bounds.
	Sum    float64   `json:"sum_seconds"`
}

// Clients counts the logged-in clients by state.
type Clients struct {
	Idle    int `json:"idle"`
	Active  int `json:"active"`
	Waiting int `json:"waiting"`
}

// Servers counts the connections to PostgreSQL by state.
type Servers struct {
	Idle    int `json:"idle"`
	Active  int `json:"active"`
	Dialing int `json:"dialing"`
	Closing int `json:"closing"`
	Limit   int `json:"limit"` // The most that there may be; 0 in a single pool.
}

// Pool is one pair of database and user.
type Pool struct {
	Database     string  `json:"database"`
	User         string  `json:"user"`
	Servers      Servers `json:"servers"`
	Waiting      int     `json:"waiting_clients"`
	OldestWait   float64 `json:"oldest_wait_seconds"`
	Transactions uint64  `json:"transactions"`
}

// Standby is what clients read from one standby, over all databases and users.
type Standby struct {
	Name         string  `json:"name"`
	Open         bool    `json:"open"`    // Clients may read from it.
	Avoided      bool    `json:"avoided"` // But nobody is sent there, as it is too far behind.
	Servers      Servers `json:"servers"`
	Waiting      int     `json:"waiting_clients"`
	Transactions uint64  `json:"transactions"`
}

// PinnedClient is a client that keeps its server between transactions.
type PinnedClient struct {
	Client      string    `json:"client"` // Its address.
	Application string    `json:"application"`
	Database    string    `json:"database"`
	User        string    `json:"user"`
	Kind        string    `json:"kind"`   // The key in Status.Pinned.
	Reason      string    `json:"reason"` // For people.
	Since       time.Time `json:"since"`
	Seconds     float64   `json:"seconds"`   // Since then.
	Statement   string    `json:"statement"` // Without its values, shortened; empty if not known.
}

// PinningStatement is a statement that has pinned sessions since the start, or would have.
type PinningStatement struct {
	Verdict   string    `json:"verdict"` // pins, refused, would pin, would be refused.
	Reason    string    `json:"reason"`  // Of the latest time, as the rest.
	Statement string    `json:"statement"`
	Database  string    `json:"database"`
	User      string    `json:"user"`
	Count     uint64    `json:"count"`
	Last      time.Time `json:"last"`
}

// Error is how often clients were told one SQLSTATE.
type Error struct {
	SQLState string `json:"sqlstate"`
	Origin   string `json:"origin"` // server or proxy.
	Count    uint64 `json:"count"`
}

// currentStatus returns the status of this moment.
func (s *Server) currentStatus() Status {
	snapshot := s.source.Snapshot()
	status := newStatus(&snapshot)
	status.Version = s.cfg.Version
	if s.cfg.About != nil {
		status.Config, status.Listen = s.cfg.About.ConfigHash(), append(status.Listen, s.cfg.About.Addresses()...)
	}
	if err := s.control.Ready(); err != nil {
		status.NotReady = err.Error()
	}
	return status
}

// newStatus returns a snapshot in the form that is served. Lists are never null, which some readers would trip over.
func newStatus(s *stats.Snapshot) Status {
	status := Status{
		Phase:    s.Phase.String(),
		Clients:  Clients{s.Clients.Idle, s.Clients.Active, s.Clients.Waiting},
		Servers:  Servers{Limit: s.Limit},
		Listen:   []string{},
		Pools:    []Pool{},
		Standbys: []Standby{},
		Reads:    map[string]uint64{},
		Errors:   []Error{},
		Logins:   map[string]uint64{},
		Pinned:   map[string]uint64{},
		Leaks:    s.Totals.StateLeaks,

		CheckoutWait: newDurations(&s.Totals.Wait),
		Transaction:  newDurations(&s.Totals.Transaction),

		ClientsPerBusyServer: s.ClientsPerBusyServer(),
		PinnedClients:        []PinnedClient{},
		PinningStatements:    []PinningStatement{},
	}
	status.Held, status.Topology = s.Held, newTopology(&s.Topology)
	if !s.Started.IsZero() {
		status.Uptime = time.Since(s.Started).Round(time.Millisecond).Seconds()
	}
	for _, p := range s.Pools {
		status.Pools = append(status.Pools, Pool{
			Database: p.Database, User: p.User,
			Servers: Servers{Idle: p.Idle, Active: p.Active, Dialing: p.Dialing, Closing: p.Closing},
			Waiting: p.Waiting, OldestWait: p.OldestWait.Seconds(), Transactions: p.Transactions,
		})
		status.Servers.Idle += p.Idle
		status.Servers.Active += p.Active
		status.Servers.Dialing += p.Dialing
		status.Servers.Closing += p.Closing
		status.Transactions += p.Transactions
	}
	for _, b := range s.Standbys {
		status.Standbys = append(status.Standbys, Standby{
			Name: b.Name, Open: b.Open, Avoided: b.Avoided, Waiting: b.Waiting, Transactions: b.Transactions,
			Servers: Servers{Idle: b.Idle, Active: b.Active, Dialing: b.Dialing, Closing: b.Closing},
		})
	}
	for _, r := range s.Reads() {
		status.Reads[r.Reason] += r.Count
	}
	for _, e := range s.Errors {
		status.Errors = append(status.Errors, Error{e.SQLState, e.Origin.String(), e.Count})
	}
	for i, n := range s.Logins {
		status.Logins[stats.Outcome(i).String()] = n
	}
	for _, p := range s.Pinned {
		status.Pinned[p.Label] = p.Count
	}
	for _, p := range s.PinnedClients {
		status.PinnedClients = append(status.PinnedClients, PinnedClient{
			Client: p.Client, Application: p.Application, Database: p.Database, User: p.User,
			Kind: p.Kind, Reason: p.Reason, Since: p.Since, Seconds: time.Since(p.Since).Round(time.Millisecond).Seconds(), Statement: p.Statement,
		})
	}
	for _, p := range s.PinningStatements {
		status.PinningStatements = append(status.PinningStatements, PinningStatement{
			Verdict: p.Verdict.String(), Reason: p.Reason, Statement: p.Statement,
			Database: p.Database, User: p.User, Count: p.Count, Last: p.Since,
		})
	}
	return status
}

func newDurations(d *stats.Distribution) Durations {
	durations := Durations{Counts: slices.Clone(d.Buckets[:]), Sum: d.Sum.Seconds()}
	for _, bound := range stats.Bounds() {
		durations.Bounds = append(durations.Bounds, bound.Seconds())
	}
	return durations
}

//go:embed page.html
var pageText string

// page serves the status for people. The page needs nothing from elsewhere and runs no script.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	page := template.Must(template.New("page").Parse(pageText))
	if err := page.Execute(&body, s.currentStatus()); err != nil {
		s.log.ErrorContext(r.Context(), "status page not made", slog.Any("error", err))
		http.Error(w, "the page could not be made; /status has the same as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	s.wrote(w.Write(body.Bytes()))
}
