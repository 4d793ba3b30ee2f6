package state

import "testing"

// What drivers, frameworks and tools send at connect, at checkout, and at return to their pools.
var driverStatements = []classified{
	// asyncpg returns a connection to its pool
	{"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;", AdvisoryUnlockAll | CloseAll | UnlistenAll | ResetAll},
	{
		"DO $$\nBEGIN\n    PERFORM * FROM pg_listening_channels() LIMIT 1;\n    IF FOUND THEN\n        UNLISTEN *;\n    END IF;\nEND;\n$$;\n" +
			"SET SESSION AUTHORIZATION DEFAULT;\nRESET ALL;\nCLOSE ALL;\nUNLISTEN *;\nSELECT pg_advisory_unlock_all();",
		Do | ResetUser | ResetAll | CloseAll | UnlistenAll | AdvisoryUnlockAll,
	},
	{"SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new", Set},
	// Npgsql
	{"DISCARD ALL", DiscardAll},
	{
		"SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP",
		ResetUser | ResetAll | CloseAll | UnlistenAll | AdvisoryUnlockAll | DiscardSequences | DiscardTemp,
	},
	// pgjdbc
	{"SET extra_float_digits = 3", Set},
	{"SET application_name = 'PostgreSQL JDBC Driver'", Set},
	{"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Set},
	{"SET SESSION search_path TO 'x'", Set},
	{"BEGIN READ ONLY", Begin | ReadOnlyBegin},
	{"SHOW TRANSACTION ISOLATION LEVEL", 0},
	{
		"SELECT result.A[1] FROM (SELECT ct.relname, (information_schema._pg_expandarray(i.indkey)).n AS A FROM pg_catalog.pg_class ct " +
			"JOIN pg_catalog.pg_index i ON (ct.oid = i.indrelid) WHERE pg_catalog.pg_table_is_visible(ct.oid)) result",
		0,
	},
	// ActiveRecord
	{"SET client_min_messages TO 'warning'", Set},
	{"SET standard_conforming_strings = on", Set},
	{"SET SESSION timezone TO 'UTC'", Set},
	{"SELECT pg_try_advisory_lock(2053462845780137580)", AdvisoryLock},
	{"SELECT pg_advisory_unlock(2053462845780137580)", AdvisoryUnlock},
	{"DEALLOCATE a1", Deallocate},
	{
		`SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.atttypid, a.atttypmod,
			c.collname, col_description(a.attrelid, a.attnum) AS comment FROM pg_attribute a
			LEFT JOIN pg_attrdef d ON a.attrelid = d.adrelid AND a.attnum = d.adnum
			WHERE a.attrelid = '"users"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
		0,
	},
	// Django
	{"SET TIME ZONE 'Europe/Berlin'", Set},
	{`DECLARE "_django_curs_140_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "a"."id" FROM "a"`, HoldCursor},
	{`DECLARE "_django_curs_140_sync_1" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT "a"."id" FROM "a"`, 0},
	{"SELECT set_config('TimeZone', 'UTC', false)", Set},
	{`SAVEPOINT "s140_x1"`, Savepoint},
	{`ROLLBACK TO SAVEPOINT "s140_x1"`, RollbackTo},
	{`RELEASE SAVEPOINT "s140_x1"`, ReleaseSavepoint},
	{"SELECT CASE WHEN pg_is_in_recovery() THEN 1 ELSE 0 END", 0},
	// SQLAlchemy, psycopg
	{"select pg_catalog.version()", 0},
	{"show standard_conforming_strings", 0},
	{"SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'", 0},
	{"DEALLOCATE _pg3_0", Deallocate},
	{"BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", Begin | ReadOnlyBegin},
	// lib/pq, pgx
	{"BEGIN READ WRITE", Begin},
	{"-- ping", 0},
	{";", 0},
	// Prisma, Ecto, PDO
	{"DEALLOCATE ALL", DeallocateAll},
	{"SAVEPOINT ecto_sandbox", Savepoint},
	{"DEALLOCATE pdo_stmt_00000001", Deallocate},
	// PostgREST
	{
		`select set_config('search_path', $1, true), set_config('role', $2, true), set_config('request.jwt.claims', $3, true)`,
		SetLocal,
	},
	// pg_dump
	{"SELECT pg_catalog.set_config('search_path', '', false);", Set},
	{"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", SetLocal},
	{"SET extra_float_digits TO 3; SET synchronize_seqscans TO off; SET row_security = off", Set},
	{"LOCK TABLE public.a IN ACCESS SHARE MODE", Write},
	{"COPY public.a (id, name) TO stdout;", Copy},
	{"PREPARE getColumnACLs(pg_catalog.oid) AS\nSELECT at.attname FROM pg_catalog.pg_attribute at WHERE at.attrelid = $1", Prepare},
	{"EXECUTE getColumnACLs('16385')", Execute},
	// psql \d
	{
		"SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace " +
			"WHERE c.relname OPERATOR(pg_catalog.~) '^(a)$' COLLATE pg_catalog.default AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3;",
		0,
	},
	// pgbench
	{"INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, 1, 1, CURRENT_TIMESTAMP);", Write},
	{"vacuum pgbench_branches", DDL},
}

func TestEffects_driversStatements_areFound(t *testing.T) { checkEffects(t, driverStatements) }
