package state

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// ordinary statements of applications: harmless to the session.
var ordinary = []string{
	"SELECT u.id, u.name, count(*) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1 AND o.state IN ('new', 'paid') GROUP BY 1, 2 ORDER BY 1 LIMIT 10",
	`INSERT INTO "orders" ("id", "customer", "state", "note", "created_at") VALUES (4711, 'Smith & Sons, 12 Long Road, Springfield', 'new', 'please leave it with the neighbour; she''s in', now()) RETURNING "id"`,
	"UPDATE pgbench_accounts SET abalance = abalance + -2347 WHERE aid = 7762532;",
	"DELETE FROM sessions WHERE expires_at < '2026-01-01 00:00:00+00' AND user_id = 17",
}

func TestEffects_ordinaryStatements_doNotAllocate(t *testing.T) {
	for _, sql := range append(ordinary, "BEGIN", "COMMIT", "BEGIN READ ONLY", "ROLLBACK TO SAVEPOINT a", "SHOW x") {
		text := []byte(sql)
		require.Zero(t, testing.AllocsPerRun(100, func() { Effects(text) }), sql)
	}
	for _, sql := range ordinary {
		require.Zero(t, Effects([]byte(sql))&^Write, sql)
	}
}

type classified struct {
	sql  string
	want Effect
}

func checkEffects(t *testing.T, tests []classified) {
	t.Helper()
	for _, test := range tests {
		if got := Effects([]byte(test.sql)); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.sql, names(got), names(test.want))
		}
	}
}

// names spells a set of effects.
func names(e Effect) string {
	all := []string{
		"Set", "SetLocal", "Reset", "ResetUser", "ResetAll", "Temp", "TempLocal", "Drop", "Listen", "Unlisten", "UnlistenAll", "Notify",
		"AdvisoryLock", "AdvisoryUnlock", "AdvisoryUnlockAll", "HoldCursor", "CloseCursor", "CloseAll", "Prepare", "Execute",
		"Deallocate", "DeallocateAll", "DiscardAll", "DiscardPlans", "DiscardTemp", "DiscardSequences", "Sequence", "SequenceRead",
		"Seed", "Load", "Opaque", "Begin", "ReadOnlyBegin", "Commit", "Rollback", "Savepoint", "ReleaseSavepoint", "RollbackTo",
		"PrepareTransaction", "Copy", "DDL", "Write", "Call", "Do", "Function", "Unknown",
	}
	var set []string
	for i, name := range all {
		if e.Has(1 << i) {
			set = append(set, name)
		}
	}
	return strings.Join(set, "|")
}

var settingsStatements = []classified{
	{"SET work_mem = '1MB'", Set},
	{"set work_mem to 64", Set},
	{"SET SESSION search_path TO a, b", Set},
	{"SET app.user_id = '7'", Set},
	{"/* tenant */ SET a = 1 -- x", Set},
	{"SET TIME ZONE 'UTC'", Set},
	{"SET TIME ZONE INTERVAL '1' HOUR TO MINUTE", Set},
	{"SET TIME ZONE LOCAL", Reset},
	{"SET TIME ZONE DEFAULT", Reset},
	{"SET NAMES 'UTF8'", Set},
	{"SET NAMES", Reset},
	{"SET SCHEMA 'x'", Set},
	{"SET ROLE app", Set},
	{"SET ROLE NONE", Set},
	{"SET role TO DEFAULT", ResetUser},
	{"RESET ROLE", ResetUser},
	{`RESET "Role"`, ResetUser},
	{"SET SESSION AUTHORIZATION bob", Set},
	{"SET SESSION AUTHORIZATION DEFAULT", ResetUser},
	{"SET SESSION SESSION AUTHORIZATION 'bob'", Set},
	{"RESET SESSION AUTHORIZATION", ResetUser},
	{"SET XML OPTION DOCUMENT", Set},
	{"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Set},
	{"SET a TO DEFAULT", Reset},
	{"RESET a", Reset},
	{"RESET TIME ZONE", Reset},
	{"RESET ALL", ResetAll},
	{`RESET "all"`, Reset},
	{"SET LOCAL work_mem = 1", SetLocal},
	{"SET LOCAL ROLE app", SetLocal},
	{"SET LOCAL TIME ZONE 'UTC'", SetLocal},
	{"SET LOCAL a TO DEFAULT", SetLocal | Reset},
	{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", SetLocal},
	{"SET SESSION TRANSACTION READ ONLY", SetLocal},
	{"SET TRANSACTION SNAPSHOT '00000003-0000001B-1'", SetLocal},
	{"SET CONSTRAINTS ALL DEFERRED", SetLocal},
	{"SET transaction_isolation = 'serializable'", SetLocal},
	{"RESET transaction_isolation", SetLocal},
	{"SET seed TO 0.5", Seed},
	{"SHOW work_mem", 0},
	{"SHOW ALL", 0},
	// names that look like grammar
	{"SET local.x = 1", Set},
	{"SET session.x = 1", Set},
	{"SET transaction.x TO 1", Set},
	{"SET constraints.x TO 1", Set},
	{"SET time.zone TO 1", Set},
	{`SET "local".x = 1`, Set},
	// not SQL: refused by the server, but not called harmless
	{"SET", Set | Unknown},
	{"SET x", Set | Unknown},
	{"RESET", Reset | Unknown},
}

func TestEffects_settings_areFound(t *testing.T) { checkEffects(t, settingsStatements) }

var setConfigStatements = []classified{
	{"SELECT set_config('a', 'b', false)", Set},
	{"SELECT set_config('a', 'b', true)", SetLocal},
	{"select pg_catalog.set_config($1, $2, TRUE)", SetLocal},
	{"SELECT set_config($1, $2, $3)", Set},
	{"SELECT set_config('a', concat('b', ')', f(1)), true)", SetLocal | Function},
	{"SELECT set_config('a', (SELECT array_to_string(ARRAY[1,2], ',')), true)", SetLocal},
	{"SELECT set_config('a', 'b', NOT true)", Set},
	{"SELECT set_config('a', 'b', is_local => true)", Set},
	{"SELECT set_config('a', 'b', true), set_config('c', 'd', false)", Set | SetLocal},
	{"SELECT set_config ( 'a' , 'b' , /* , */ true )", SetLocal},
	{`SELECT "set_config"('a', 'b', false)`, Set},
	{`SELECT "SET_CONFIG"('a', 'b', false)`, Function},
	{"SELECT SET_CONFIG('a', 'b', false)", Set},
	{"SELECT set_config('a', 'b'", Set},
	{"SELECT public.set_config('a', 'b', true)", Function},
	{"SELECT set_config(name, setting, false) FROM pg_settings WHERE name LIKE 'x%'", Set},
	{"SELECT t.set_config FROM t", 0},
	{"SELECT 'set_config(''a'', ''b'', false)'", 0},
	{"UPDATE pg_settings SET setting = 'on' WHERE name = 'x'", Set | Write},
	{`UPDATE pg_catalog."pg_settings" SET setting = 'on'`, Set | Write},
	{"WITH x AS (UPDATE PG_SETTINGS SET setting = 'on' RETURNING 1) TABLE x", Set | Write},
	{"SELECT setting FROM pg_settings", 0},
	{"INSERT INTO t VALUES (set_config('a', 'b', false))", Set | Write},
	{"SELECT pg_catalog.set_config('search_path', '', false);", Set},
	{"EXPLAIN ANALYZE SELECT set_config('a', 'b', false)", Set},
	{"COPY (SELECT set_config('a', 'b', false)) TO STDOUT", Set | Copy},
	{"DECLARE c CURSOR FOR SELECT set_config('a', 'b', false)", Set},
	{"EXECUTE p(set_config('a', 'b', false))", Set | Execute},
}

func TestEffects_setConfig_areFound(t *testing.T) { checkEffects(t, setConfigStatements) }

var temporaryObjectsStatements = []classified{
	{"CREATE TEMP TABLE t ()", Temp | DDL},
	{"CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT 1", Temp | DDL},
	{"CREATE LOCAL TEMP TABLE t ()", Temp | DDL},
	{"CREATE GLOBAL TEMPORARY TABLE t ()", Temp | DDL},
	{"CREATE OR REPLACE TEMP VIEW v AS SELECT 1", Temp | DDL},
	{"CREATE TEMP RECURSIVE VIEW v AS SELECT 1", Temp | DDL},
	{"CREATE TEMP SEQUENCE s", Temp | DDL},
	{"CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1", TempLocal | DDL},
	{"CREATE TEMP TABLE t WITH (autovacuum_enabled = off) ON COMMIT DROP AS EXECUTE p", TempLocal | Execute | DDL},
	{"CREATE TEMP TABLE t ON COMMIT PRESERVE ROWS AS SELECT 'on commit drop'", Temp | DDL},
	{"CREATE TEMP TABLE t AS SELECT 1 /* ON COMMIT DROP */", Temp | DDL},
	{"CREATE TABLE pg_temp.t AS SELECT 1", Temp | DDL},
	{`CREATE TABLE "pg_temp" . t AS SELECT 1`, Temp | DDL},
	{"CREATE TABLE pg_temp_3.t AS SELECT 1", Temp | DDL},
	{"CREATE VIEW pg_temp.v AS SELECT 1", Temp | DDL},
	{"CREATE TABLE t AS SELECT 1", DDL},
	{"CREATE TABLE temp AS SELECT 1", DDL},
	{"SELECT 1 INTO TEMP t", Temp | DDL},
	{"SELECT 1 INTO TEMPORARY TABLE t", Temp | DDL},
	{"SELECT 1 INTO pg_temp.t", Temp | DDL},
	{"WITH x AS (SELECT 1) SELECT * INTO TEMP t FROM x", Temp | DDL},
	{"SELECT 1 INTO t", DDL},
	{"SELECT temp, temporary FROM weather", 0},
	{"EXPLAIN (ANALYZE, COSTS off) CREATE TEMP TABLE t AS SELECT 1", Temp | DDL},
	{"DROP TABLE pg_temp.t", Drop | DDL},
	{"DROP TABLE IF EXISTS t", Drop | DDL},
	{"ALTER FUNCTION f SET search_path = public, pg_temp", DDL},
	{"SET search_path = pg_catalog, pg_temp", Set},
}

func TestEffects_temporaryObjects_areFound(t *testing.T) { checkEffects(t, temporaryObjectsStatements) }

var sessionCommandsStatements = []classified{
	{"LISTEN jobs", Listen},
	{"UNLISTEN jobs", Unlisten},
	{"UNLISTEN *", UnlistenAll},
	{`UNLISTEN "*"`, Unlisten},
	{"NOTIFY jobs, 'payload'", Notify},
	{"SELECT pg_notify('jobs', 'x')", Notify},
	{"SELECT pg_advisory_lock(1)", AdvisoryLock},
	{"SELECT PG_ADVISORY_LOCK (1, 2)", AdvisoryLock},
	{"SELECT pg_try_advisory_lock_shared(1)", AdvisoryLock},
	{"SELECT pg_advisory_unlock(1)", AdvisoryUnlock},
	{"SELECT pg_advisory_unlock_all()", AdvisoryUnlockAll},
	{"SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock(2)", Local},
	{"SELECT * FROM pg_advisory_lock(1)", AdvisoryLock},
	{"SELECT 1 WHERE (pg_advisory_lock)(1) IS NULL", 0}, // no call in SQL
	{"DECLARE c CURSOR WITH HOLD FOR SELECT 1", HoldCursor},
	{"DECLARE c BINARY INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT 1", HoldCursor},
	{"DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", 0},
	{"DECLARE c CURSOR FOR SELECT 1", 0},
	{"DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE", Write},
	{"FETCH 10 FROM c", 0},
	{"MOVE FORWARD ALL IN c", 0},
	{"CLOSE c", CloseCursor},
	{"CLOSE ALL", CloseAll},
	{"PREPARE p AS SELECT pg_advisory_lock(1)", Prepare},
	{"PREPARE p (int, text) AS INSERT INTO t VALUES ($1, $2)", Prepare},
	{"PREPARE transaction AS SELECT 1", Prepare},
	{"PREPARE TRANSACTION 'x'", PrepareTransaction},
	{"EXECUTE p (1, 'x')", Execute},
	{"EXPLAIN ANALYZE EXECUTE p", Execute},
	{"CREATE TABLE t AS EXECUTE p", Execute | DDL},
	{"CREATE TRIGGER g BEFORE UPDATE ON t EXECUTE FUNCTION f ()", DDL | Write | Function},
	{"DEALLOCATE p", Deallocate},
	{"DEALLOCATE PREPARE p", Deallocate},
	{"DEALLOCATE prepare", Deallocate},
	{"DEALLOCATE ALL", DeallocateAll},
	{"DEALLOCATE PREPARE ALL", DeallocateAll},
	{`DEALLOCATE "all"`, Deallocate},
	{"DISCARD ALL", DiscardAll},
	{"DISCARD PLANS", DiscardPlans},
	{"DISCARD TEMP", DiscardTemp},
	{"DISCARD TEMPORARY", DiscardTemp},
	{"DISCARD SEQUENCES", DiscardSequences},
	{"DISCARD", Unknown},
	{"SELECT nextval('s')", Sequence},
	{"SELECT setval('s', 1)", Sequence},
	{"SELECT currval('s')", SequenceRead},
	{"SELECT lastval()", SequenceRead},
	{"SELECT setseed(0.5)", Seed},
	{"LOAD 'auto_explain'", Load},
	{"SELECT pg_backup_start('x')", Opaque},
	{"SELECT dblink_connect('a', 'b')", Opaque},
	{"CALL p(1)", Call | Function},
	{"DO $$BEGIN PERFORM 1; END$$", Do},
	{"DO LANGUAGE plpgsql 'BEGIN; END'", Do},
}

func TestEffects_sessionCommands_areFound(t *testing.T) { checkEffects(t, sessionCommandsStatements) }

var transactionsStatements = []classified{
	{"BEGIN", Begin},
	{"begin work isolation level repeatable read", Begin},
	{"BEGIN READ ONLY", Begin | ReadOnlyBegin},
	{"START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE", Begin | ReadOnlyBegin},
	{"BEGIN READ WRITE", Begin},
	{"BEGIN READ ONLY, READ WRITE", Begin},
	{"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", Begin | ReadOnlyBegin},
	{"COMMIT", Commit},
	{"END", Commit},
	{"COMMIT AND CHAIN", Commit | Begin},
	{"COMMIT WORK AND NO CHAIN", Commit},
	{"COMMIT PREPARED 'x'", Write},
	{"ROLLBACK", Rollback},
	{"ABORT TRANSACTION AND CHAIN", Rollback | Begin},
	{"ROLLBACK PREPARED 'x'", Write},
	{"ROLLBACK TO a", RollbackTo},
	{"ROLLBACK WORK TO SAVEPOINT a", RollbackTo},
	{"SAVEPOINT a", Savepoint},
	{"RELEASE a", ReleaseSavepoint},
	{"RELEASE SAVEPOINT a", ReleaseSavepoint},
}

func TestEffects_transactions_areFound(t *testing.T) { checkEffects(t, transactionsStatements) }

var queriesStatements = []classified{
	{"", 0},
	{" \n\t;;-- x", 0},
	{"(SELECT 1) UNION ((SELECT 2))", 0},
	{"VALUES (1, 'a'), (2, 'b')", 0},
	{"TABLE t", 0},
	{"WITH a AS (SELECT 1), b (n) AS MATERIALIZED (SELECT 2) SELECT * FROM a", Function}, // b might be a call for all that is known
	{"WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n+1 FROM t WHERE n < 100) SELECT sum(n) FROM t", 0},
	{"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", Write},
	{"SELECT * FROM t FOR UPDATE", Write},
	{"SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED", Write},
	{"SELECT * FROM t FOR KEY SHARE", Write},
	{"SELECT * FROM t FOR SHARE", Write},
	{"SELECT share FROM t", 0},
	{"MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN DO NOTHING", Write},
	{"INSERT INTO t (a, b) SELECT a, b FROM s ON CONFLICT (a) DO UPDATE SET b = excluded.b", Write},
	{"INSERT INTO s.t AS x (a) VALUES (DEFAULT)", Write},
	{`INSERT INTO "S"."T" ("a") VALUES (1)`, Write},
	{"TRUNCATE t", Write},
	{"LOCK TABLE t IN EXCLUSIVE MODE", Write},
	{"COPY t (a, b) FROM STDIN WITH (FORMAT csv)", Copy | Write},
	{"COPY t TO STDOUT", Copy},
	{"COPY (SELECT a FROM b) TO STDOUT", Copy},
	{"SELECT a::numeric(10,2), CAST(b AS varchar(10)), c::vector(3) FROM t", 0},
	{"SELECT count(*) FILTER (WHERE a) OVER (PARTITION BY (b) ORDER BY (c)) FROM t", 0},
	{"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t GROUP BY GROUPING SETS ((a), ())", 0},
	{"SELECT * FROM generate_series(1, 3) AS g(n), LATERAL (SELECT 1) AS x, (VALUES (1)) v(a)", 0},
	{"SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (1)", 0},
	{"SELECT * FROM t OFFSET (1) FETCH FIRST (2) ROWS ONLY", 0},
	{"SELECT a OPERATOR(pg_catalog.+) b, ARRAY(SELECT 1), ROW(1), COALESCE(a, b) FROM t", 0},
	{"SELECT EXTRACT(epoch FROM now()), date_trunc('day', CURRENT_TIMESTAMP)", 0},
	{"SELECT random(), gen_random_uuid(), clock_timestamp(), pg_sleep(1)", 0},
	{"SELECT pg_stat_get_activity(NULL)", 0},
	{"SELECT (information_schema._pg_expandarray(i.indkey)).n FROM pg_index i", 0},
	{"SELECT f(1)", Function},
	{"SELECT myschema.count(1)", Function},
	{"SELECT db.pg_catalog.count(1)", 0},
	{"SELECT * FROM f(1)", Function},
	{"SELECT * FROM a JOIN f(1) ON true", Function},
	{`SELECT "values"(1)`, Function},
	{`SELECT U&"f"(1)`, Function},
	{"SELECT a[1:f(x)] FROM t", Function},
	{"SELECT txid_current()", Write},
	{"SELECT lo_import('x')", Write},
	{"SELECT query_to_xml('select set_config(''a'',''b'',false)', true, true, '')", Function},
	{"SELECT ts_stat('select f()')", Function},
	{"EXPLAIN SELECT 1", 0},
	{"EXPLAIN (ANALYZE, FORMAT json) INSERT INTO t VALUES (1)", Write},
	{"EXPLAIN ANALYZE VERBOSE DELETE FROM t", Write},
	{"EXPLAIN (SELECT 1)", 0},
	{"ANALYZE t", DDL},
	{"VACUUM (FULL, ANALYZE) t", DDL},
	{"CREATE EXTENSION postgis", DDL | Function},
	{"REFRESH MATERIALIZED VIEW v", DDL},
	{"ALTER SYSTEM SET work_mem = 1", DDL},
	{"ALTER ROLE bob SET work_mem = 1", DDL},
	{"GRANT SELECT ON t TO bob", DDL},
	{"WIBBLE", Unknown},
	{"1", Unknown},
	{"'x'", Unknown},
	{"EXPLAIN", Unknown},
	{"(", Unknown},
	{")", Unknown},
	{"EXPLAIN wibble", Unknown},
}

func TestEffects_queries_areFound(t *testing.T) { checkEffects(t, queriesStatements) }

func TestClassify_manyStatements_areTakenTogether(t *testing.T) {
	for sql, want := range map[string]Statement{
		"":                       {0, VerbNone, 0},
		" ; ;-- x\n;":            {0, VerbNone, 0},
		"SELECT 1":               {0, VerbSelect, 1},
		";;SELECT 1;;SELECT 2; ": {0, VerbSelect, 2},
		"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;": {
			AdvisoryUnlockAll | CloseAll | UnlistenAll | ResetAll, VerbSelect, 4,
		},
		"EXPLAIN ANALYZE UPDATE t SET a = 1":                                           {Write, VerbUpdate, 1},
		"CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO l VALUES (1); NOTIFY x)": {DDL | Write | Function, VerbCreate, 1},
		"CREATE FUNCTION f(a int) RETURNS int BEGIN ATOMIC SELECT CASE WHEN a > 1 THEN 2 END; SELECT 3; END; SELECT 1": {
			DDL | Function | Unknown, VerbCreate, 2,
		},
		"CREATE VIEW v AS SELECT begin atomic; SET a = 1": {DDL | Set, VerbCreate, 2},
		"CREATE FUNCTION f() RETURNS int RETURN (SELECT begin atomic FROM t); SET a = 1": {
			DDL | Function | Set, VerbCreate, 2,
		},
		"wibble; LISTEN x": {Unknown | Listen, VerbUnknown, 2},
	} {
		got := Classify([]byte(sql))
		require.Equal(t, want, got, "%s: %s", sql, names(got.Effects))
	}
}

func TestPing_emptyTexts_only(t *testing.T) {
	for sql, want := range map[string]bool{
		"": true, ";": true, " ; ;\n": true, "-- ping": true, "/* a /* b */ c */;": true, "--": true,
		"SELECT 1": false, "/* open": false, "'": false, "\x00": false, "--\x00": false, "-- ping\nSELECT 1": false, "-": false,
	} {
		require.Equal(t, want, Ping([]byte(sql)), sql)
	}
}

func TestPins_effectsThatStay_haveAReason(t *testing.T) {
	for sql, want := range map[string]string{
		"SET search_path TO a, b":                              "SET search_path",
		"SELECT set_config('App.User', 'b', false)":            "SET app.user",
		"SELECT set_config($1, 'b', false)":                    "SET",
		"RESET work_mem":                                       "RESET work_mem",
		`BEGIN; CREATE TEMP TABLE "T 1" (); COMMIT`:            `temp table "T 1"`,
		"LISTEN Jobs":                                          "LISTEN jobs",
		"SELECT pg_try_advisory_lock(1)":                       "advisory lock",
		"DECLARE c CURSOR WITH HOLD FOR SELECT 1":              `cursor "c" WITH HOLD`,
		"PREPARE p AS SELECT 1":                                "PREPARE p",
		"SELECT lastval()":                                     "lastval()",
		"SELECT setseed(1)":                                    "setseed()",
		"LOAD 'x'":                                             "LOAD",
		"SELECT pg_backup_start('x')":                          "pg_backup_start()",
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "SET default_transaction_read_only",
		"SELECT nextval('s')":                                  "",
		"SET LOCAL a = 1":                                      "",
		"CREATE TEMP TABLE t () ON COMMIT DROP":                "",
		"DISCARD ALL":                                          "",
		"SELECT f()":                                           "",
	} {
		text := []byte(sql)
		require.Equal(t, want, Reason(text, ^Effect(0)), sql)
		reason, ok := Pins(Effects(text))
		require.Equal(t, want != "", ok, sql)
		require.Equal(t, ok, reason != "", sql)
	}
}

func TestSuspicious_whatCouldHideAnything_isChecked(t *testing.T) {
	for sql, want := range map[string]bool{
		"SELECT f()": true, "CALL p()": true, "DO ''": true, "EXECUTE p": true, "wibble": true, "SELECT 'open": true, "SELECT 1\x00": true,
		"SELECT now()": false, "SET a = 1": false, "BEGIN": false, "": false,
	} {
		require.Equal(t, want, Suspicious(Effects([]byte(sql))), sql)
	}
}
