package state

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// audit asks a server as the proxy does.
func (s session) audit(user string, custom ...string) Audit {
	s.Helper()
	results, err := s.conn.Exec(context.Background(), string(AuditSQL(user, custom))).ReadAll()
	require.NoError(s, err)
	var rows []byte
	for _, row := range results[0].Rows {
		rows, err = (&pgproto3.DataRow{Values: row}).Encode(rows)
		require.NoError(s, err)
	}
	a, ok := DecodeAudit(rows)
	require.True(s, ok)
	return a
}

// states are things that a session may hold, how they come and how they go.
var states = []struct {
	name, begin, end string
	want             Audit
}{
	{"setting", "SET work_mem TO '3MB'", "RESET work_mem", Audit{Settings: []Setting{{"work_mem", "3MB"}}}},
	{"list", `SET search_path TO "a, b", c`, "RESET ALL", Audit{Settings: []Setting{{"search_path", `"a, b", c`}}}},
	{"custom", "SELECT set_config('app.x', 'it''s \\', false)", "RESET app.x", Audit{Settings: []Setting{{"app.x", `it's \`}}}},
	{
		"inside a block", "DO $$BEGIN PERFORM set_config('app.x', '7', false); SET work_mem TO '3MB'; END$$", "RESET ALL",
		Audit{Settings: []Setting{{"app.x", "7"}, {"work_mem", "3MB"}}},
	},
	{"characteristics", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE", "RESET ALL", Audit{
		Settings: []Setting{{"default_transaction_isolation", "serializable"}, {"default_transaction_read_only", "on"}},
	}},
	{"role", "SET ROLE audit_role", "RESET ROLE", Audit{Settings: []Setting{{"role", "audit_role"}}}},
	{"temp table", "CREATE TEMP TABLE t (a serial PRIMARY KEY)", "DISCARD TEMP", Audit{Temp: 2, TempName: "table t"}}, // and its sequence
	{"temp view", "CREATE VIEW pg_temp.v AS SELECT 1", "DROP VIEW v", Audit{Temp: 1, TempName: "view v"}},
	{"temp function", "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "DROP FUNCTION pg_temp.f", Audit{Temp: 1}},
	{"temp type", "CREATE TYPE pg_temp.y AS ENUM ()", "DROP TYPE pg_temp.y", Audit{Temp: 1}},
	{"select into", "SELECT 1 AS a INTO TEMP u", "DROP TABLE u", Audit{Temp: 1, TempName: "table u"}},
	{"lock", "SELECT pg_advisory_lock(1), pg_try_advisory_lock_shared(2, 3)", "SELECT pg_advisory_unlock_all()", Audit{Locks: 2}},
	{"channel", `LISTEN "Jobs ,1"; LISTEN b`, "UNLISTEN *", Audit{Channels: []string{"Jobs ,1", "b"}}},
	{"cursor", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c", Audit{Cursors: []string{"c"}}},
	{"prepared", `PREPARE "P" AS SELECT 1`, "DEALLOCATE ALL", Audit{Prepared: []string{"P"}}},
	{"nothing: transaction", "BEGIN; SET LOCAL work_mem TO '3MB'; CREATE TEMP TABLE t () ON COMMIT DROP; DECLARE c CURSOR FOR SELECT 1; " +
		"SELECT pg_advisory_xact_lock(1); SELECT set_config('app.x', '7', true); COMMIT", "SELECT 1", Audit{}},
	{"nothing: transaction modes", "BEGIN; SET TRANSACTION READ ONLY, DEFERRABLE, ISOLATION LEVEL SERIALIZABLE; COMMIT", "SELECT 1", Audit{}},
	{"nothing: rolled back", "BEGIN; SET work_mem TO '3MB'; CREATE TEMP TABLE t (); LISTEN x; ROLLBACK", "SELECT 1", Audit{}},
}

func TestAudit_everyState_isReportedUntilItEnds(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		plain := c.Role(t)
		database := c.Database(t)
		c.Exec(t, "DROP ROLE IF EXISTS audit_role; CREATE ROLE audit_role; GRANT audit_role TO "+plain)
		c.Exec(t, "GRANT ALL ON DATABASE "+database+" TO "+plain)
		for _, user := range []string{pgtest.Superuser, plain} {
			s := dial(t, c, database, user)
			// Another session's things must not be taken for ours.
			dial(t, c, database, user).run("SELECT pg_advisory_lock_shared(99); LISTEN y; CREATE TEMP TABLE other (); PREPARE q AS SELECT 1")
			require.Equal(t, Audit{}, s.audit(user, "app.x"))
			for _, state := range states {
				s.run(state.begin)
				a := s.audit(user, "app.x", "app.unknown", "not valid!")
				slices.SortFunc(a.Settings, func(x, y Setting) int { return strings.Compare(x.Name, y.Name) })
				slices.Sort(a.Channels)
				a.Empty = nil // what earlier ones have left
				require.Equal(t, state.want, a, "%s as %s", state.name, user)
				if !strings.HasPrefix(state.name, "nothing") {
					effects := Effects([]byte(state.begin))
					_, pins := Pins(effects)
					require.True(t, pins || Suspicious(effects), state.name)
				}
				s.run(state.end)
				a = s.audit(user, "app.x")
				a.Empty = nil
				require.Equal(t, Audit{}, a, "%s as %s, after %s", state.name, user, state.end)
			}
		}
	})
}

// A custom setting that was reset, or set locally, is there and empty from then on. It is a setting of those who know of it.
func TestAudit_emptyCustomSettings_areOfThoseWhoHaveSetThem(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		s := dial(t, c, "postgres", pgtest.Superuser)
		s.run("SET app.reset TO 'x'; RESET app.reset; SET app.empty TO ''; SELECT set_config('app.local', 'x', true); SET app.other TO 'x'")
		a := s.audit(pgtest.Superuser, "app.reset", "app.empty", "app.local", "app.other", "app.unknown")
		require.ElementsMatch(t, []string{"app.reset", "app.empty", "app.local"}, a.Empty)
		require.Equal(t, []Setting{{"app.other", "x"}}, a.SettingsOf(nil, nil))
		known := NewInterner().Intern([]Setting{{"app.reset", "x"}, {"app.unknown", "x"}})
		require.ElementsMatch(t, []Setting{{"app.other", "x"}, {"app.reset", ""}, {"app.empty", ""}},
			a.SettingsOf(known, []string{"app.other", "app.empty"}))
	})
}

func TestAudit_sessionUser_isASetting(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		role := c.Role(t)
		s := dial(t, c, "postgres", pgtest.Superuser)
		s.run("SET SESSION AUTHORIZATION " + role)
		require.Equal(t, []Setting{{"session_authorization", role}}, s.audit(pgtest.Superuser).Settings)
		s.run("RESET SESSION AUTHORIZATION")
		require.Equal(t, Audit{}, s.audit(pgtest.Superuser))
	})
}

// A client that puts its own objects before PostgreSQL's must not blind the audit, nor get anything of its own executed.
func TestAudit_hostileSearchPath_changesNothing(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		s := dial(t, c, database, pgtest.Superuser)
		s.run(`CREATE SCHEMA evil; SET search_path TO evil, pg_temp, pg_catalog;
			CREATE TABLE executed (what text);
			CREATE VIEW pg_settings AS SELECT 'x' AS name, 'x' AS setting, 'default' AS source;
			CREATE VIEW pg_locks AS SELECT 'x' AS locktype, 0 AS pid;
			CREATE TEMP VIEW pg_cursors AS SELECT 'x' AS name, false AS is_holdable;
			CREATE TEMP VIEW pg_depend AS SELECT 0 AS refclassid, 0 AS refobjid;
			CREATE FUNCTION current_setting(text) RETURNS text LANGUAGE sql AS $$INSERT INTO evil.executed VALUES ('function'); SELECT 'x'$$;
			CREATE FUNCTION differ(text, text) RETURNS boolean LANGUAGE sql AS $$INSERT INTO evil.executed VALUES ('text'); SELECT false$$;
			CREATE FUNCTION differ(name, name) RETURNS boolean LANGUAGE sql AS $$INSERT INTO evil.executed VALUES ('name'); SELECT false$$;
			CREATE OPERATOR = (LEFTARG = text, RIGHTARG = text, FUNCTION = differ);
			CREATE OPERATOR <> (LEFTARG = text, RIGHTARG = text, FUNCTION = differ);
			CREATE OPERATOR <> (LEFTARG = name, RIGHTARG = name, FUNCTION = differ);
			CREATE TYPE regclass AS ENUM ('pg_catalog.pg_namespace');
			SELECT pg_advisory_lock(1); DECLARE c CURSOR WITH HOLD FOR SELECT 1`)
		a := s.audit(pgtest.Superuser, "app.x")
		require.Equal(t, Audit{
			TempName: "view pg_depend",
			Settings: []Setting{{"search_path", "evil, pg_temp, pg_catalog"}}, Temp: 2, Locks: 1, Cursors: []string{"c"},
		}, a)
		require.Empty(t, s.run("SELECT * FROM evil.executed"))
	})
}

// What an audit says of one server's settings, Diff gives to another, in any encoding.
func TestAudit_settings_moveToAnotherServer(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		from, to := dial(t, c, database, pgtest.Superuser), dial(t, c, database, pgtest.Superuser)
		from.run("SET client_encoding TO LATIN1")
		from.run(`SET search_path TO "Ünï" , b; SET datestyle TO german; SET timezone TO -3.5; SET work_mem TO 1024; SET app.x TO 'é'`)
		found := from.audit(pgtest.Superuser, "app.x")
		require.Len(t, found.Settings, 6)
		to.run(string(Diff(nil, NewInterner().Intern(found.Settings))))
		require.Equal(t, found, to.audit(pgtest.Superuser, "app.x"))
	})
}

func TestDecodeAudit_anythingElse_isRefused(t *testing.T) {
	row, err := (&pgproto3.DataRow{Values: [][]byte{[]byte("s"), []byte("a"), []byte("b")}}).Encode(nil)
	require.NoError(t, err)
	a, ok := DecodeAudit(slices.Concat(row, row))
	require.True(t, ok)
	require.Len(t, a.Settings, 2)
	for i := 1; i < len(row); i++ {
		_, ok := DecodeAudit(row[:i])
		require.False(t, ok, i)
	}
	_, ok = DecodeAudit(append(slices.Clone(row), 'x'))
	require.False(t, ok)
	two, err := (&pgproto3.DataRow{Values: [][]byte{[]byte("s"), nil}}).Encode(nil)
	require.NoError(t, err)
	_, ok = DecodeAudit(two)
	require.False(t, ok)
}

// Whatever an audit finds after a text has run must have been announced by the text's effects.
func TestEffects_whatAnAuditFinds_wasAnnounced(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		c.ExecIn(t, database, `CREATE TABLE t (a int PRIMARY KEY, b int); CREATE SEQUENCE s;
			CREATE FUNCTION f(int DEFAULT 1) RETURNS int LANGUAGE sql AS $$SELECT set_config('work_mem', '2MB', false); SELECT 1$$;
			CREATE PROCEDURE p(int) LANGUAGE sql AS $$SELECT pg_advisory_lock(1)$$`)
		s := dial(t, c, database, pgtest.Superuser)
		found := 0
		for _, test := range slices.Concat(settingsStatements, setConfigStatements, temporaryObjectsStatements,
			sessionCommandsStatements, transactionsStatements, queriesStatements) {
			if strings.Contains(test.sql, "pg_backup_start") || strings.HasPrefix(test.sql, "COPY t") || strings.Contains(test.sql, "SYSTEM") {
				continue // they need an answer or leave more than the session
			}
			_, _ = s.try("PREPARE p AS SELECT set_config('work_mem', '2MB', false) AS a")
			if test.want.Has(Deallocate | DeallocateAll | DiscardAll) {
				s.run("DEALLOCATE ALL")
			}
			_, _ = s.try(test.sql)
			if s.conn.TxStatus() != 'I' {
				s.run("ROLLBACK")
			}
			_, _ = s.try("DEALLOCATE p")
			if a := s.audit(pgtest.Superuser, "app.user_id", "a.b"); !isEmpty(a) {
				found++
				_, pins := Pins(test.want)
				require.True(t, pins || Suspicious(test.want), "%s leaves %+v, and is said to be %q", test.sql, a, names(test.want))
			}
			s.run("DISCARD ALL")
		}
		require.Greater(t, found, 40)
	})
}

func TestAuditPins_whatCannotMove_isNamed(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		s := dial(t, c, c.Database(t), pgtest.Superuser)
		for _, test := range []struct {
			sql    string
			why    Effect
			reason string
		}{
			{"SET work_mem TO '2MB'", 0, ""},
			{"SET temp_buffers TO '2MB'", Set, `SET "temp_buffers"`},
			{"CREATE TEMP TABLE t ()", Temp, `temp table "t"`},
			{`CREATE TEMP TABLE "a ""b" (c serial); CREATE TEMP TABLE "A" ()`, Temp, `temp table "a "b" and 2 more`},
			{"CREATE TEMP SEQUENCE s", Temp, `temp sequence "s"`},
			{"CREATE TYPE pg_temp.y AS ENUM ()", Temp, "temporary object"},
			{"LISTEN b; LISTEN a", Listen, `LISTEN "a", "b"`},
			{"PREPARE a AS SELECT 1", Prepare, `PREPARE "a"`},
			{"SELECT pg_advisory_lock(1)", AdvisoryLock, "advisory lock"},
			{`DECLARE "C" CURSOR WITH HOLD FOR SELECT 1`, HoldCursor, `cursor "C" WITH HOLD`},
			{"SELECT pg_advisory_lock(1); CREATE TEMP VIEW v AS SELECT 1", Temp, `temp view "v", advisory lock`},
		} {
			s.run(test.sql)
			a := s.audit(pgtest.Superuser)
			why, reason := a.Pins()
			require.Equal(t, test.why, why, test.sql)
			require.Equal(t, test.reason, reason, test.sql)
			s.run("DISCARD ALL")
		}
	})
}

func isEmpty(a Audit) bool {
	return len(a.Settings)+a.Temp+a.Locks+len(a.Channels)+len(a.Cursors)+len(a.Prepared) == 0
}
