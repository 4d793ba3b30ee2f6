package compat_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// pgxPlay plays pgx in one of its query modes.
type pgxPlay struct {
	at   target
	mode pgx.QueryExecMode
}

// pgxDrivers are pgx in all its query modes.
func pgxDrivers() []driver {
	modes := []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	}
	var drivers []driver
	for _, mode := range modes {
		drivers = append(drivers, driver{
			name:       "pgx " + mode.String(),
			situations: situations,
			run: func(t *testing.T, at target) []step {
				return play(t.Context(), pgxPlay{at, mode}.situations())
			},
		})
	}
	return drivers
}

func (p pgxPlay) situations() []situation {
	return []situation{
		{"driver", func(s *scene) any { return moduleVersion(s, "github.com/jackc/pgx/v5") }},
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
		{"pipeline", p.pipeline},
		{"failed pipeline", p.failedPipeline},
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
		{"copy out", p.copyOut},
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

// moduleVersion is the version of a module that these tests are made with. Binaries of tests do not know it themselves.
func moduleVersion(s *scene, path string) string {
	list, err := exec.CommandContext(s.ctx, "go", "list", "-m", "-f", "{{.Version}}", path).Output()
	s.check(err)
	return strings.TrimPrefix(strings.TrimSpace(string(list)), "v")
}

// connect opens a connection that is closed when the scene ends.
func (p pgxPlay) connect(s *scene, params ...string) *pgx.Conn {
	conn, err := p.try(s.ctx, p.at, params...)
	s.check(err)
	s.atEnd(func() { _ = conn.Close(context.WithoutCancel(s.ctx)) })
	return conn
}

func (p pgxPlay) try(ctx context.Context, at target, params ...string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(at.url(params...))
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = p.mode
	return pgx.ConnectConfig(ctx, config)
}

// rows runs a query and returns its rows in words.
func (p pgxPlay) rows(s *scene, conn *pgx.Conn, sql string, args ...any) [][]string {
	rows, err := conn.Query(s.ctx, sql, args...)
	s.check(err)
	return p.collect(s, rows)
}

func (p pgxPlay) collect(s *scene, rows pgx.Rows) [][]string {
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) ([]string, error) {
		values, err := row.Values()
		texts := make([]string, len(values))
		for i, value := range values {
			texts[i] = text(value)
		}
		return texts, err
	})
	s.check(err)
	return all
}

func (p pgxPlay) exec(s *scene, conn *pgx.Conn, sql string, args ...any) string {
	tag, err := conn.Exec(s.ctx, sql, args...)
	s.check(err)
	return tag.String()
}

// state is the SQLSTATE of a statement.
func (p pgxPlay) state(s *scene, conn *pgx.Conn, sql string, args ...any) string {
	_, err := conn.Exec(s.ctx, sql, args...)
	return sqlState(err)
}

func (p pgxPlay) connects(s *scene) any {
	conn := p.connect(s)
	reported := map[string]string{}
	for _, name := range []string{
		"server_version", "server_encoding", "client_encoding", "DateStyle", "TimeZone", "IntervalStyle",
		"integer_datetimes", "standard_conforming_strings", "is_superuser", "session_authorization", "in_hot_standby",
		"default_transaction_read_only", "scram_iterations", "search_path", "application_name",
	} {
		reported[name] = conn.PgConn().ParameterStatus(name)
	}
	return []any{p.rows(s, conn, "select current_user, current_setting('server_version_num')"), reported, conn.PgConn().TxStatus()}
}

func (p pgxPlay) tls(s *scene) any {
	var all []any
	for _, params := range [][]string{
		{"sslmode", "require"},
		{"sslmode", "verify-full", "sslrootcert", p.at.ca, "channel_binding", "require"},
		{"sslmode", "verify-full", "sslrootcert", p.at.ca, "sslnegotiation", "direct"},
	} {
		conn := p.connect(s, params...)
		all = append(all, p.rows(s, conn, "select repeat('x', $1::int)", 20000)[0][0][19990:])
	}
	return all
}

func (p pgxPlay) wrongPassword(s *scene) any {
	at := p.at
	at.password = "guess"
	_, err := p.try(s.ctx, at)
	at.user = "nobody"
	_, second := p.try(s.ctx, at)
	return []string{sqlState(err), sqlState(second)}
}

func (p pgxPlay) unknownDatabase(s *scene) any {
	at := p.at
	at.database = "nowhere"
	_, err := p.try(s.ctx, at)
	return sqlState(err)
}

func (p pgxPlay) applicationName(s *scene) any {
	one := p.connect(s, "application_name", "ä shop's till", "options", `-c work_mem=5MB --search-path=pg_catalog,public -cmy.text=a\ b`)
	other := p.connect(s, "application_name", "other")
	const sql = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path'), nullif(current_setting('my.text', true), '')"
	var all []any
	for range 3 {
		all = append(all, p.rows(s, one, sql), p.rows(s, other, sql))
	}
	return append(all, one.PgConn().ParameterStatus("application_name"))
}
