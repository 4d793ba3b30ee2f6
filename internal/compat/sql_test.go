package compat_test

import (
	"context"
	"database/sql"
	"testing"
)

// sqlPlay plays a driver for database/sql.
type sqlPlay struct {
	at     target
	driver sqlDriver
}

// sqlDriver is what is different in drivers for database/sql.
type sqlDriver struct {
	module string
	// open returns a database whose notices go to notice.
	open func(url string, notice func(string)) (*sql.DB, error)
	// copyIn copies rows into columns of a table.
	copyIn func(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error
	// listen waits for so many notifications of a channel, after it has had ready called, and returns their payloads.
	listen func(s *scene, at target, channel string, n int, ready func()) []string
}

func sqlDrivers() []driver {
	var drivers []driver
	for name, d := range map[string]sqlDriver{"lib/pq": pqDriver(), "pgx stdlib": stdlibDriver()} {
		drivers = append(drivers, driver{
			name:       name,
			situations: situations,
			run:        func(t *testing.T, at target) []step { return play(t.Context(), sqlPlay{at, d}.situations()) },
		})
	}
	return drivers
}

func (p sqlPlay) situations() []situation {
	return []situation{
		{"driver", func(s *scene) any { return moduleVersion(s, p.driver.module) }},
		{"connect", p.connects},
		{"tls", p.tls},
		{"wrong password", p.wrongPassword},
		{"unknown database", p.unknownDatabase},
		{"application name", p.applicationName},
		{"types", p.types},
		{"nulls", p.nulls},
		{"unicode", p.unicode},
		{"big values", p.bigValues},
		{"prepared", p.prepared},
		{"equal names", p.equalNames},
		{"pipeline", noPipeline},
		{"failed pipeline", noPipeline},
		{"transaction", p.transaction},
		{"savepoints", p.savepoints},
		{"read only", p.readOnly},
		{"two phase", p.twoPhase},
		{"errors", p.errors},
		{"failed transaction", p.failedTransaction},
		{"deferred constraint", p.deferredConstraint},
		{"notices", p.notices},
		{"several results", p.severalResults},
		{"copy in", p.copyIn},
		{"copy out", func(s *scene) any { s.absent("database/sql has none"); return nil }},
		{"failed copy", p.failedCopy},
		{"cursor", p.cursor},
		{"many rows", p.manyRows},
		{"cancel", p.cancel},
		{"timeout", p.timeout},
		{"notify", p.notify},
		{"settings", p.settings},
		{"session state", p.sessionState},
		{"reset", p.reset},
		{"schema change", func(s *scene) any { conn := p.connect(s); return p.schemaChange(s, conn, conn) }},
		{"schema change by another", func(s *scene) any { return p.schemaChange(s, p.connect(s), p.connect(s)) }},
		{"terminated", p.terminated},
		{"pool", p.pool},
	}
}

func noPipeline(s *scene) any {
	s.absent("database/sql has none")
	return nil
}

// open opens a database that is closed when the scene ends.
func (p sqlPlay) open(s *scene, at target, params ...string) *sql.DB {
	db, err := p.driver.open(at.url(params...), func(string) {})
	s.check(err)
	s.atEnd(func() { _ = db.Close() })
	return db
}

// connect opens a connection that is closed when the scene ends.
func (p sqlPlay) connect(s *scene, params ...string) *sql.Conn {
	conn, err := p.open(s, p.at, params...).Conn(s.ctx)
	s.check(err)
	s.atEnd(func() { _ = conn.Close() })
	return conn
}

// queryer is a *sql.DB, *sql.Conn or *sql.Tx.
type queryer interface {
	QueryContext(ctx context.Context, sql string, args ...any) (*sql.Rows, error)
	ExecContext(ctx context.Context, sql string, args ...any) (sql.Result, error)
}

// rows runs a query and returns its rows in words.
func (p sqlPlay) rows(s *scene, on queryer, query string, args ...any) [][]string {
	rows, err := on.QueryContext(s.ctx, query, args...)
	s.check(err)
	defer rows.Close()
	all := p.collect(s, rows)
	s.check(rows.Err())
	return all
}

// collect reads one set of rows.
func (p sqlPlay) collect(s *scene, rows *sql.Rows) [][]string {
	columns, err := rows.Columns()
	s.check(err)
	all := [][]string{}
	for rows.Next() {
		values, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		s.check(rows.Scan(places...))
		row := make([]string, len(values))
		for i, value := range values {
			row[i] = text(value)
		}
		all = append(all, row)
	}
	return all
}

func (p sqlPlay) exec(s *scene, on queryer, query string, args ...any) int64 {
	result, err := on.ExecContext(s.ctx, query, args...)
	s.check(err)
	n, err := result.RowsAffected()
	s.check(err)
	return n
}

// state is the SQLSTATE of a statement.
func (p sqlPlay) state(s *scene, on queryer, query string, args ...any) string {
	_, err := on.ExecContext(s.ctx, query, args...)
	return sqlState(err)
}

func (p sqlPlay) connects(s *scene) any {
	db := p.open(s, p.at)
	s.check(db.PingContext(s.ctx))
	return p.rows(s, db, "select current_user, current_setting('server_version_num'), current_setting('client_encoding'), current_setting('datestyle')")
}

func (p sqlPlay) tls(s *scene) any {
	var all []any
	for _, mode := range []string{"require", "verify-full"} {
		all = append(all, p.rows(s, p.connect(s, "sslmode", mode, "sslrootcert", p.at.ca), "select repeat('x', $1::int)", 20000)[0][0][19990:])
	}
	return all
}

func (p sqlPlay) wrongPassword(s *scene) any {
	at := p.at
	at.password = "guess"
	err := p.open(s, at).PingContext(s.ctx)
	at.user = "nobody"
	return []string{sqlState(err), sqlState(p.open(s, at).PingContext(s.ctx))}
}

func (p sqlPlay) unknownDatabase(s *scene) any {
	at := p.at
	at.database = "nowhere"
	return sqlState(p.open(s, at).PingContext(s.ctx))
}

func (p sqlPlay) applicationName(s *scene) any {
	one := p.connect(s, "application_name", "ä shop's till", "options", `-c work_mem=5MB --search-path=pg_catalog,public`, "extra_float_digits", "0")
	other := p.connect(s, "application_name", "other")
	const query = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path'), current_setting('extra_float_digits')"
	var all []any
	for range 3 {
		all = append(all, p.rows(s, one, query), p.rows(s, other, query))
	}
	return all
}
