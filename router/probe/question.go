package probe

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// part is a statement of the question. The parts that are wanted go to the server as one simple query, which is one round trip
// and one transaction.
type part int

// The parts, in the order in which they are asked.
const (
	guard     part = iota // makes the statements that follow mean what they say, and end if nobody waits for them any more
	role                  // the one part that every server answers
	identity              // once per connection
	abilities             // once per connection
	positions             // not where the storage is not PostgreSQL's own (Aurora)
	census                // every Config.Census
	topology              // where abilities has found the functions
	parts
)

// sql are the statements. Each gives one row but topology. Names are found in pg_catalog alone, whatever the role's search_path is: see guard,
// whose settings end with the transaction and so leave nothing behind even if a pooler stands between.
func (l *link) sql(p part, timeout time.Duration) string {
	switch p {
	case guard:
		return fmt.Sprintf(`SELECT pg_catalog.set_config('search_path', 'pg_catalog', true),
			pg_catalog.set_config('statement_timeout', '%d', true)`, max(1, timeout.Milliseconds()))
	case role:
		// A database's or a role's own setting holds for sessions that begin later; the one that PostgreSQL would
		// take is compared with the one that this session began with.
		return `SELECT pg_is_in_recovery(), current_setting('server_version_num'), current_setting('default_transaction_read_only'),
			(SELECT value FROM pg_db_role_setting, unnest(setconfig) AS value
			WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
			AND setrole IN (0, to_regrole(quote_ident(session_user))) AND value LIKE 'default\_transaction\_read\_only=%'
			ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1)`
	case identity:
		return `SELECT system_identifier, extract(epoch FROM pg_postmaster_start_time()) || '/' || current_setting('port')
			FROM pg_control_system()`
	case abilities:
		return `SELECT has_function_privilege('pg_read_file(text,bigint,bigint,boolean)', 'execute'),
			(SELECT rolreplication FROM pg_roles WHERE rolname = session_user),
			EXISTS (SELECT FROM pg_proc WHERE proname = 'aurora_replica_status' AND pronamespace = 'pg_catalog'::regnamespace
				AND has_function_privilege(oid, 'execute')),
			EXISTS (SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
				WHERE proname = 'show_topology' AND nspname = 'rds_tools'
				AND has_schema_privilege(n.oid, 'usage') AND has_function_privilege(p.oid, 'execute'))`
	case positions:
		return `SELECT r,
			CASE WHEN r THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END,
			CASE WHEN r THEN greatest((SELECT timeline_id FROM pg_control_checkpoint()),
				(SELECT min_recovery_end_timeline FROM pg_control_recovery()),
				(SELECT received_tli FROM pg_stat_wal_receiver)) END,
			CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END,
			CASE WHEN r THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_flush_lsn() END,
			CASE WHEN r THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END
			FROM (SELECT pg_is_in_recovery() AS r) AS role`
	case census:
		return `SELECT (SELECT sum(numbackends) FROM pg_stat_database), current_setting('max_connections'),
			current_setting('superuser_reserved_connections')::int + coalesce(current_setting('reserved_connections', true)::int, 0),
			(SELECT coalesce(max(greatest(age(backend_xmin), age(backend_xid))), 0) FROM pg_stat_activity WHERE pid <> pg_backend_pid())`
	case topology:
		if l.server.aurora {
			return auroraTopology
		}
		return rdsTopology
	case parts:
	}
	return ""
}

// server is what does not change while a connection lives.
type server struct {
	systemID     uint64
	instance     string
	readOnly     string // the stored setting of default_transaction_read_only that the session began with
	mayReadFiles bool
	mayReplicate bool
	aurora, rds  bool
}

// question returns the wanted parts as one query.
func (l *link) question(wanted []part, timeout time.Duration) string {
	statements := make([]string, 0, len(wanted))
	for _, p := range wanted {
		statements = append(statements, l.sql(p, timeout))
	}
	return strings.Join(statements, ";\n")
}

// understand reads the rows of one part into an observation and into what is known of the server.
func (l *link) understand(o *Observation, p part, rows [][]string) error {
	if p == topology {
		return o.readTopology(rows)
	}
	if len(rows) != 1 {
		return fmt.Errorf("read answer: %d rows where there is always one", len(rows))
	}
	r := reader{row: rows[0]}
	switch p {
	case guard:
		return nil
	case role:
		o.Standby, o.Version, o.ReadOnly = r.boolean(), r.number(), r.boolean()
		stored := r.text()
		if !l.known {
			l.server.readOnly = stored
		} else if stored != l.server.readOnly {
			return errOutdated
		}
	case identity:
		// The type is bigint, and half of all identifiers are negative in it.
		l.server.systemID, l.server.instance = uint64(r.signed()), r.text()
	case abilities:
		l.server.mayReadFiles, l.server.mayReplicate = r.boolean(), r.boolean()
		l.server.aurora, l.server.rds = r.boolean(), r.boolean()
	case positions:
		o.readPositions(&r)
	case census:
		o.Connections, o.MaxConnections, o.Reserved, o.HorizonAge = r.number(), r.number(), r.number(), r.signed()
	case topology, parts:
	}
	return r.err
}

// readPositions reads the part of that name. Lag is what the server says; connection.judgeLag makes it the truth.
func (o *Observation) readPositions(r *reader) {
	o.Standby = r.boolean()
	file, timeline := r.text(), r.text()
	if len(file) >= 8 {
		o.Timeline = r.hex(file[:8])
	} else if timeline != "" {
		o.Timeline = uint32(r.parse(timeline))
	}
	o.LSN = r.lsn()
	second, since := r.lsn(), r.text()
	if !o.Standby {
		o.LSN, o.Flushed = headerless(o.LSN, second), second
		return
	}
	o.Received = max(second, o.LSN)
	if o.Received > o.LSN && since != "" {
		o.Lag = max(0, time.Duration(r.float(since)*float64(time.Second)))
	}
}

// reader takes the columns of a row one by one. The first error stays. NULL is "", and the zero of every kind.
type reader struct {
	row []string
	err error
}

func (r *reader) text() string {
	if len(r.row) == 0 {
		r.fail(errors.New("read answer: a column is missing"))
		return ""
	}
	text := r.row[0]
	r.row = r.row[1:]
	return text
}

func (r *reader) fail(err error) {
	if r.err == nil && err != nil {
		r.err = err
	}
}

func (r *reader) boolean() bool {
	text := r.text()
	return text == "t" || text == "on"
}

func (r *reader) number() int { return int(r.signed()) }

func (r *reader) signed() int64 { return r.parse(r.text()) }

func (r *reader) parse(text string) int64 {
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	r.fail(err)
	return n
}

func (r *reader) hex(text string) uint32 {
	n, err := strconv.ParseUint(text, 16, 32)
	r.fail(err)
	return uint32(n)
}

func (r *reader) float(text string) float64 {
	n, err := strconv.ParseFloat(text, 64)
	r.fail(err)
	return n
}

func (r *reader) lsn() LSN {
	text := r.text()
	if text == "" {
		return 0
	}
	l, err := ParseLSN(text)
	r.fail(err)
	return l
}
