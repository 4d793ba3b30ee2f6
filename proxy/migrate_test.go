package proxy_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// migrator is what a tool that migrates schemas sends around its migrations.
type migrator struct {
	name     string
	mode     pgx.QueryExecMode // in which its driver sends
	before   []string
	lock     string // a session's advisory lock: it waits, or tells whether it has been had
	unlock   string
	apart    bool // the migrations run on a connection of their own
	versions string
	set      string // the version, of one parameter
}

const (
	versionsOfGo   = `CREATE TABLE IF NOT EXISTS "public"."schema_migrations" (version bigint not null primary key, dirty boolean not null)`
	setVersionOfGo = `INSERT INTO "public"."schema_migrations" (version, dirty) VALUES ($1, false)`
	versions       = `CREATE TABLE IF NOT EXISTS "schema_migrations" ("version" character varying NOT NULL PRIMARY KEY)`
	setVersion     = `INSERT INTO "schema_migrations" ("version") VALUES ($1::int8::text)`
)

func migrators() []migrator {
	ofGo := []string{"SELECT CURRENT_DATABASE()", "SELECT CURRENT_SCHEMA()"}
	return []migrator{
		{
			"golang-migrate with lib/pq", pgx.QueryExecModeExec, ofGo,
			"SELECT pg_advisory_lock('1219852735')", "SELECT pg_advisory_unlock('1219852735')", false, versionsOfGo, setVersionOfGo,
		},
		{
			"golang-migrate with pgx", pgx.QueryExecModeCacheStatement, ofGo,
			"SELECT pg_advisory_lock('1219852735')", "SELECT pg_advisory_unlock('1219852735')", false, versionsOfGo, setVersionOfGo,
		},
		{
			"Rails", pgx.QueryExecModeSimpleProtocol,
			[]string{
				"SET client_min_messages TO 'warning'", "SET standard_conforming_strings = on", "SET SESSION timezone TO 'UTC'",
				"SELECT current_database()",
			},
			"SELECT pg_try_advisory_lock(5463475827365)", "SELECT pg_advisory_unlock(5463475827365)", false, versions, setVersion,
		},
		{
			"Flyway", pgx.QueryExecModeExec,
			[]string{"SET extra_float_digits = 3", "SELECT current_user", "SHOW search_path", `SELECT set_config('search_path', '"public"', false)`},
			"SELECT pg_try_advisory_lock(77431708279161)", "SELECT pg_advisory_unlock(77431708279161)", true, versions, setVersion,
		},
		{
			"sqlx and Prisma", pgx.QueryExecModeCacheStatement,
			[]string{"SELECT current_database()"},
			"SELECT pg_advisory_lock(72707369)", "SELECT pg_advisory_unlock(72707369)", false, versions, setVersion,
		},
	}
}

const (
	migrations = 4
	replicas   = 4 // of an application that migrate at the same time
)

// Several replicas of an application start at once, and each migrates the schema: one after the other, each migration once.
func TestMigrations_takeTurnsByAdvisoryLocks(t *testing.T) {
	c := pgtest.Shared(t, 0)
	for _, tool := range migrators() {
		t.Run(tool.name, func(t *testing.T) {
			t.Parallel()
			p := startFor(t, c.URL(c.Database(t), pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 3 })
			ended := make(chan error, replicas)
			for range replicas {
				go func() { ended <- tool.migrate(t.Context(), p.url()) }()
			}
			for range replicas {
				require.NoError(t, <-ended)
			}
			conn := pgtest.Connect(t, p.url())
			require.Equal(t, "10", one(t, conn, "select sum(version::int) from schema_migrations"))
			require.Equal(t, "4", one(t, conn, "select count(*) from pg_class where relname like 'migrated%' and relkind = 'r'"))
			require.Equal(t, "0", one(t, conn, "select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())"))
			await(t, "no pin", func() bool { return len(p.Snapshot().PinnedClients) == 0 })
			require.Zero(t, p.Snapshot().Totals.StateLeaks)
		})
	}
}

// migrate is one replica's run of the tool.
func (m *migrator) migrate(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // All that counts has been answered.
	runner := conn
	if m.apart {
		if runner, err = pgx.Connect(ctx, url); err != nil {
			return err
		}
		defer func() { _ = runner.Close(context.WithoutCancel(ctx)) }() // As above.
	}
	for _, sql := range m.before {
		if _, err := conn.Exec(ctx, sql, m.mode); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	for locked := false; !locked; {
		var answer any // nothing of a lock that waits
		if err := conn.QueryRow(ctx, m.lock, m.mode).Scan(&answer); err != nil {
			return fmt.Errorf("%s: %w", m.lock, err)
		}
		locked = answer != false
	}
	if err := m.apply(ctx, runner); err != nil {
		return err
	}
	var unlocked bool
	if err := conn.QueryRow(ctx, m.unlock, m.mode).Scan(&unlocked); err != nil || !unlocked {
		return fmt.Errorf("%s: %v, %w", m.unlock, unlocked, err)
	}
	return nil
}

// apply runs the migrations that have not been. One that is run twice fails.
func (m *migrator) apply(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, m.versions, m.mode); err != nil {
		return fmt.Errorf("%s: %w", m.versions, err)
	}
	var done int
	if err := conn.QueryRow(ctx, "SELECT COALESCE(MAX(version::int), 0) FROM schema_migrations", m.mode).Scan(&done); err != nil {
		return fmt.Errorf("ask version: %w", err)
	}
	for version := done + 1; version <= migrations; version++ {
		for _, sql := range []string{"BEGIN", fmt.Sprintf("CREATE TABLE migrated%d (id bigserial primary key)", version), m.set, "COMMIT"} {
			arguments := []any{m.mode}
			if sql == m.set {
				arguments = append(arguments, int64(version))
			}
			if _, err := conn.Exec(ctx, sql, arguments...); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
	}
	return nil
}
