// Package metrics shows the proxy's numbers to Prometheus.
//
// It counts nothing itself: at each scrape it reads one snapshot, so that the proxy does no work for metrics nobody asks
// for. Names follow Prometheus' conventions: base units, _total on counters, no averages and no quantiles; no label
// ever holds a client's address, SQL or the name of a statement.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pgsidecar/proxy/stats"
)

// namespace begins the names of all metrics of the proxy.
const namespace = "pgsidecar_"

// Source is what is shown.
type Source interface {
	Snapshot() stats.Snapshot
}

// ConfigSource tells about the configuration in force.
type ConfigSource interface {
	ConfigState() ConfigState
}

// ConfigState is the configuration in force and the outcome of the last attempt to change it. Loading it at the start
// counts as the first attempt.
type ConfigState struct {
	Hash     string    // Fingerprint, equal for equal configurations.
	Failed   bool      // The last reload was refused, so that the one before it is in force.
	LoadedAt time.Time // When the one in force was loaded.
}

// Build identifies the binary.
type Build struct {
	Version, Revision, GoVersion string
}

// Collector reads a snapshot at each scrape. Any number of goroutines may use it.
type Collector struct {
	source Source
	config ConfigSource
	build  Build

	clients, logins                                       *prometheus.Desc
	servers, limit, waiting, oldestWait                   *prometheus.Desc
	wait, transaction                                     *prometheus.Desc
	transactions, statements, bytes, errors               *prometheus.Desc
	prepared, reparses                                    *prometheus.Desc
	connects, closed, reruns                              *prometheus.Desc
	pinned, pins, ratio, replays, resets, leaks           *prometheus.Desc
	drained, takeover                                     *prometheus.Desc
	reads, standbys                                       *prometheus.Desc
	held, targetUp, targetRole, targetTimeline            *prometheus.Desc
	targetLagBytes, targetLag, alarms                     *prometheus.Desc
	switches, switchSeconds, switchLost                   *prometheus.Desc
	phase, buildInfo, configInfo, reloadOK, configModTime *prometheus.Desc
}

// NewCollector returns a collector, which has to be registered; see Handler.
func NewCollector(source Source, config ConfigSource, build Build) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(namespace+name, help, labels, nil)
	}
	return &Collector{
		source: source, config: config, build: build,

		clients: desc("client_connections", "Logged-in clients by what they do.", "state"),
		logins:  desc("client_connections_total", "Logins of clients by how they ended.", "outcome"),

		servers:    desc("server_connections", "Connections to PostgreSQL.", "pool", "state"),
		limit:      desc("pool_limit", "The most connections to PostgreSQL, over all pools."),
		waiting:    desc("waiting_clients", "Clients that wait for a connection to PostgreSQL.", "pool"),
		oldestWait: desc("oldest_wait_seconds", "How long the client that has waited longest has waited.", "pool"),

		wait:        desc("checkout_wait_seconds", "Time from the wish for a connection to PostgreSQL until it was had."),
		transaction: desc("transaction_seconds", "Time for which a client kept its connection to PostgreSQL."),

		transactions: desc("transactions_total", "Transactions that have ended.", "pool"),
		statements:   desc("statements_total", "Statements sent to PostgreSQL.", "protocol"),
		bytes:        desc("bytes_total", "Bytes carried, without TLS.", "direction"),
		errors:       desc("errors_total", "Errors that clients were told.", "sqlstate", "origin"),

		prepared: desc("prepared_statements", "Prepared statements held.", "where"),
		reparses: desc("prepared_reparses_total", "Statements prepared again because the server at hand did not hold them.", "kind"),

		connects: desc("server_connects_total", "Connections to PostgreSQL that were opened."),
		closed:   desc("server_closed_total", "Connections to PostgreSQL that were closed.", "reason"),

		reruns: desc("requests_run_again_total", "Requests run again at another server, because theirs had ended before it did anything."),

		pinned:  desc("pinned_sessions", "Clients that keep their server between transactions.", "reason"),
		pins:    desc("pins_total", "Times a client began to keep its server between transactions.", "reason"),
		ratio:   desc("clients_per_busy_server", "Logged-in clients for each connection to PostgreSQL that is in use; 0 when none is."),
		replays: desc("state_replays_total", "Times a client's settings were sent to a server that had others."),
		resets:  desc("state_resets_total", "Servers reset before the next client."),
		leaks:   desc("state_leaks_total", "Servers found to carry a client's state after their release; has to stay 0."),

		drained:  desc("drain_clients_total", "Clients that the proxy's end met: idle, with a transaction that finished, or that was cut.", "outcome"),
		takeover: desc("takeover_clients_total", "Clients that have moved between processes: in from a predecessor, out to a successor.", "direction"),

		reads:    desc("reads_total", "Transactions of clients that may read on standbys, by the server on which they ran and why there.", "target", "reason"),
		standbys: desc("standby_connections", "Connections to standbys that clients read from.", "target", "state"),

		held: desc("held", "1 while transactions are held: there is no primary, or an operator wants it."),

		targetUp:       desc("target_up", "1 if the last probe of the server has succeeded.", "target"),
		targetRole:     desc("target_role", "1 for the role in which the server was last seen; accepted is the primary that clients are led to.", "target", "role"),
		targetTimeline: desc("target_timeline", "Timeline of the server; of a standby a lower bound.", "target"),
		targetLagBytes: desc("target_lag_bytes", "WAL of the primary that a standby has not replayed.", "target"),
		targetLag:      desc("target_lag_seconds", "For how long at most a standby has not replayed what it has received.", "target"),
		alarms:         desc("target_alarms", "Things about the servers that people have to look at; status says which."),
		switches:       desc("target_switches_total", "Changes of the primary."),
		switchSeconds:  desc("target_last_switch_seconds", "How long the last change of the primary left none."),
		switchLost:     desc("target_last_switch_lost_wal_bytes", "WAL that the last change of the primary is known to have lost."),

		phase:         desc("phase", "1 for the phase that the proxy is in.", "phase"),
		buildInfo:     desc("build_info", "The binary.", "version", "revision", "goversion"),
		configInfo:    desc("config_info", "The configuration in force.", "hash"),
		reloadOK:      desc("config_last_reload_success", "1 if the last attempt to load the configuration succeeded."),
		configModTime: desc("config_loaded_timestamp_seconds", "When the configuration in force was loaded."),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.clients, c.logins, c.servers, c.limit, c.waiting, c.oldestWait, c.wait, c.transaction, c.transactions, c.statements,
		c.bytes, c.errors, c.prepared, c.reparses, c.connects, c.closed, c.pinned, c.pins, c.ratio, c.replays, c.resets, c.leaks, c.drained, c.takeover, c.reads, c.standbys, c.phase,
		c.reruns, c.held, c.targetUp, c.targetRole, c.targetTimeline, c.targetLagBytes, c.targetLag, c.alarms, c.switches, c.switchSeconds, c.switchLost,
		c.buildInfo, c.configInfo, c.reloadOK, c.configModTime,
	} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(metrics chan<- prometheus.Metric) {
	s, out := c.source.Snapshot(), sink(metrics)
	c.collectClients(out, &s)
	c.collectPools(out, &s)
	c.collectWork(out, &s)
	c.collectState(out, &s)
	c.collectTargets(out, &s)
	c.collectProcess(out, &s)
}

func (c *Collector) collectClients(out sink, s *stats.Snapshot) {
	out.gauge(c.clients, s.Clients.Idle, "idle")
	out.gauge(c.clients, s.Clients.Active, "active")
	out.gauge(c.clients, s.Clients.Waiting, "waiting")
	for i, n := range s.Logins {
		out.counter(c.logins, n, stats.Outcome(i).String())
	}
}

func (c *Collector) collectPools(out sink, s *stats.Snapshot) {
	out.gauge(c.limit, s.Limit)
	for _, p := range s.Pools {
		pool := poolLabel(p.Database, p.User)
		out.gauge(c.servers, p.Idle, pool, "idle")
		out.gauge(c.servers, p.Active, pool, "active")
		out.gauge(c.servers, p.Dialing, pool, "dialing")
		out.gauge(c.servers, p.Closing, pool, "closing")
		out.gauge(c.waiting, p.Waiting, pool)
		out.seconds(c.oldestWait, p.OldestWait, pool)
		out.counter(c.transactions, p.Transactions, pool)
	}
	out.counter(c.connects, s.ServerConnects)
	for _, closed := range s.ServersClosed {
		out.counter(c.closed, closed.Count, closed.Label)
	}
}

func (c *Collector) collectWork(out sink, s *stats.Snapshot) {
	t := &s.Totals
	out.histogram(c.wait, &t.Wait)
	out.histogram(c.transaction, &t.Transaction)
	out.counter(c.statements, t.StatementsSimple, "simple")
	out.counter(c.statements, t.StatementsExtended, "extended")
	out.counter(c.bytes, t.BytesFromClients, "from_client")
	out.counter(c.bytes, t.BytesToClients, "to_client")
	out.counter(c.bytes, t.BytesFromServers, "from_server")
	out.counter(c.bytes, t.BytesToServers, "to_server")
	for _, e := range s.Errors {
		out.counter(c.errors, e.Count, e.SQLState, e.Origin.String())
	}
}

func (c *Collector) collectState(out sink, s *stats.Snapshot) {
	out.gauge(c.prepared, s.Prepared.Clients, "clients")
	out.gauge(c.prepared, s.Prepared.Shared, "shared")
	out.gauge(c.prepared, s.Prepared.Servers, "servers")
	out.counter(c.reparses, s.Totals.ReparsesNamed, "named")
	out.counter(c.reparses, s.Totals.ReparsesUnnamed, "unnamed")
	for _, p := range s.Pinned {
		out.gauge(c.pinned, int(p.Count), p.Label)
	}
	for _, p := range s.Pins {
		out.counter(c.pins, p.Count, p.Label)
	}
	out.fraction(c.ratio, s.ClientsPerBusyServer())
	out.counter(c.reruns, s.Totals.Reruns)
	out.counter(c.replays, s.Totals.StateReplays)
	out.counter(c.resets, s.Totals.StateResets)
	out.counter(c.leaks, s.Totals.StateLeaks)
}

func (c *Collector) collectProcess(out sink, s *stats.Snapshot) {
	for _, p := range stats.Phases() {
		out.flag(c.phase, p == s.Phase, p.String())
	}
	out.counter(c.drained, s.Totals.DrainedIdle, "idle")
	out.counter(c.drained, s.Totals.DrainedFinished, "finished")
	out.counter(c.drained, s.Totals.DrainedCut, "cut")
	out.counter(c.takeover, s.Totals.TakenOver, "in")
	out.counter(c.takeover, s.Totals.HandedOver, "out")
	out.flag(c.buildInfo, true, c.build.Version, c.build.Revision, c.build.GoVersion)
	state := c.config.ConfigState()
	out.flag(c.configInfo, true, state.Hash)
	out.flag(c.reloadOK, !state.Failed)
	out.moment(c.configModTime, state.LoadedAt)
}
