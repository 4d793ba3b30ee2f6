package config

import "time"

// Reads is what clients may read from standbys. Who does is said by the routes: of a Listen, of a Database, or of the client itself.
type Reads struct {
	Consistency Consistency
	MaxLag      time.Duration // 0: any.
	MaxLagBytes int           // 0: any.

	ReadOnlyTransactions bool // They run on standbys.
}

type (
	// Route says which servers clients get, in the words of libpq's target_session_attrs. In a Database "" is the route of the
	// Listen.
	Route string
	// Consistency is what a client that reads from standbys is certain to see.
	Consistency string
)

// The routes.
const (
	RoutePrimary       Route = "primary"
	RouteStandby       Route = "standby"
	RoutePreferStandby Route = "prefer-standby"
	RouteAny           Route = "any"
	RouteAuto          Route = "auto"
)

// The levels of consistency, from the weakest to the strongest.
const (
	ConsistencyEventual Consistency = "eventual"
	ConsistencySession  Consistency = "session"
	ConsistencyStrict   Consistency = "strict"
)

func route(to *Route) value {
	return choice(to, RoutePrimary, RouteStandby, RoutePreferStandby, RouteAny, RouteAuto)
}

func (c *Config) readOptions() []option {
	return []option{{
		key: "reads.consistency", value: choice(&c.Reads.Consistency, ConsistencyEventual, ConsistencySession, ConsistencyStrict),
		doc: "What a client that reads from standbys is certain to see: session, what it has written, and what it has read before; strict, also " +
			"what any client of this proxy had committed before; eventual, nothing. What no standby is known to show yet is read on the primary.",
	}, {
		key: "reads.max_lag", value: duration(&c.Reads.MaxLag, 0, maxTimeout), alias: "replica_lag delay_threshold_by_time",
		doc: "How far a standby may be behind the primary, in time, for transactions to be sent there. 0 sets no limit.",
	}, {
		key: "reads.max_lag_bytes", value: number(&c.Reads.MaxLagBytes, 0, 1<<40), alias: "max_lag_in_bytes delay_threshold",
		doc: "The same in bytes of WAL that it has not replayed. 0 sets no limit.",
	}, {
		key: "reads.read_only_transactions", value: boolean(&c.Reads.ReadOnlyTransactions),
		doc: "Run transactions on standbys, where one will do, that clients of the route primary begin READ ONLY, or while they have " +
			"default_transaction_read_only on. It counts for clients that log in from then on.",
	}}
}
