package state

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestParse_actions_haveNamesAndValues(t *testing.T) {
	for sql, want := range map[string][]Action{
		"":                                nil,
		"SELECT now()":                    nil,
		"INSERT INTO t VALUES (1)":        nil,
		"SET search_path TO a, \"B\"":     {{Set, 0, "search_path", `a, "B"`}},
		"SET SESSION \"App\".User = 'x' ": {{Set, 0, "app.user", "'x'"}},
		"SET sort_mem = 64":               {{Set, 0, "work_mem", "64"}},
		"SET LOCAL a TO DEFAULT":          {{SetLocal | Reset, 0, "a", "DEFAULT"}},
		"SET a TO DEFAULT":                {{Reset, 0, "a", "DEFAULT"}},
		"SET TIME ZONE 'UTC'":             {{Set, 0, "timezone", "'UTC'"}},
		"SET NAMES 'LATIN1'":              {{Set, 0, "client_encoding", "'LATIN1'"}},
		"SET SCHEMA 'x'":                  {{Set, 0, "search_path", "'x'"}},
		"SET ROLE \"R\"":                  {{Set, 0, "role", `"R"`}},
		"SET SESSION AUTHORIZATION bob":   {{Set, 0, "session_authorization", "bob"}},
		"RESET ROLE":                      {{ResetUser, 0, "role", ""}},
		"RESET ALL":                       {{ResetAll, 0, "", ""}},
		"SET TRANSACTION READ ONLY":       {{SetLocal, 0, "transaction", "READ ONLY"}},
		"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL Repeatable  Read, READ WRITE, NOT DEFERRABLE": {
			{Set, 0, "default_transaction_isolation", "repeatable read"},
			{Set, 0, "default_transaction_read_only", "off"},
			{Set, 0, "default_transaction_deferrable", "off"},
		},
		"SET SESSION CHARACTERISTICS AS TRANSACTION DEFERRABLE, ISOLATION LEVEL SERIALIZABLE": {
			{Set, 0, "default_transaction_deferrable", "on"},
			{Set, 0, "default_transaction_isolation", "serializable"},
		},
		"SELECT set_config('Search_Path', '', false)": {{Set, 0, "search_path", "''"}},
		"SELECT set_config('a', $1, true)":            {{SetLocal, 0, "a", "$1"}},
		"SELECT set_config($1, 'b', false), f()":      {{Set, 0, "", ""}, {Function, 0, "f", ""}},
		"SELECT set_config(a, 'b', false) FROM t":     {{Set, 0, "", ""}},
		"UPDATE pg_settings SET setting = 1":          {{Set, 0, "", ""}},
		"LISTEN Jobs; UNLISTEN \"Jobs\"; UNLISTEN *; NOTIFY x": {
			{Listen, 0, "jobs", ""},
			{Unlisten, 1, "Jobs", ""},
			{UnlistenAll, 2, "", ""},
			{Notify, 3, "x", ""},
		},
		"PREPARE p (int) AS SELECT pg_advisory_lock($1)": {{Prepare, 0, "p", "SELECT pg_advisory_lock($1)"}},
		"EXECUTE \"P\" (1)":                             {{Execute, 0, "P", ""}},
		"DEALLOCATE PREPARE p; DEALLOCATE ALL":          {{Deallocate, 0, "p", ""}, {DeallocateAll, 1, "", ""}},
		"DEALLOCATE prepare":                            {{Deallocate, 0, "prepare", ""}},
		"DECLARE c CURSOR WITH HOLD FOR SELECT f()":     {{HoldCursor, 0, "c", ""}, {Function, 0, "f", ""}},
		"CLOSE c; CLOSE ALL":                            {{CloseCursor, 0, "c", ""}, {CloseAll, 1, "", ""}},
		"CREATE TEMP TABLE IF NOT EXISTS \"T\" (a int)": {{Temp, 0, "T", ""}},
		"CREATE TEMP TABLE t () ON COMMIT DROP":         {{TempLocal, 0, "t", ""}},
		"SELECT 1 INTO TEMP t":                          {{Temp, 0, "", ""}},
		"DROP TABLE t":                                  {{Drop, 0, "", "TABLE t"}},
		"LOAD 'auto_explain'":                           {{Load, 0, "", "'auto_explain'"}},
		"SELECT pg_advisory_lock(1), PG_ADVISORY_UNLOCK(2)": {
			{AdvisoryLock, 0, "pg_advisory_lock", ""},
			{AdvisoryUnlock, 0, "pg_advisory_unlock", ""},
		},
		"BEGIN READ ONLY; SAVEPOINT \"S\"; ROLLBACK TO a; RELEASE SAVEPOINT b; COMMIT AND CHAIN": {
			{Begin | ReadOnlyBegin, 0, "", ""},
			{Savepoint, 1, "S", ""},
			{RollbackTo, 2, "a", ""},
			{ReleaseSavepoint, 3, "b", ""},
			{Commit | Begin, 4, "", ""},
		},
		";;SELECT 1;; SET a = 1;":       {{Set, 1, "a", "1"}},
		"DISCARD ALL":                   {{DiscardAll, 0, "", ""}},
		"CALL p(1)":                     {{Call, 0, "", ""}, {Function, 0, "p", ""}},
		"DO ''":                         {{Do, 0, "", ""}},
		"wibble":                        {{Unknown, 1, "", ""}},
		`SELECT '\'; SET a = 1; --'`:    {{Set, 1, "a", "1"}, {Unknown, 2, "", ""}},
		`SELECT 'a\'b'; LISTEN x`:       {{Listen, 1, "x", ""}},
		`SELECT a ESCAPE '\'; LISTEN x`: {{Listen, 1, "x", ""}},
		"SET \"" + strings.Repeat("x", 70) + "\" = 1": {{Set, 0, strings.Repeat("x", 63), "1"}},
	} {
		require.Equal(t, want, Parse([]byte(sql)), sql)
	}
}

// The actions and the effects of a text come from the same place, and must not tell different stories.
func TestParse_anyText_saysWhatEffectsSays(t *testing.T) {
	for _, sql := range corpus() {
		requireSameStory(t, sql)
	}
}

func requireSameStory(t *testing.T, sql string) {
	t.Helper()
	var said Effect
	for _, action := range Parse([]byte(sql)) {
		require.NotZero(t, action.Effect, sql)
		said |= action.Effect
	}
	effects := Effects([]byte(sql))
	if _, ambiguous := reading([]byte(sql)); ambiguous {
		require.True(t, said.Has(Unknown), sql)
		return
	}
	require.Equal(t, names(effects&^(DDL|Write|Copy)), names(said), sql)
}

func TestLiteral_plainValues_areDecoded(t *testing.T) {
	for value, want := range map[string]string{
		"'a''b'": "a'b", "on": "on", "UTF8": "utf8", `"Ab"`: "Ab", "64": "64", "-1.5": "-1.5", "+ 3": "3", "''": "",
	} {
		got, ok := Literal(value)
		require.True(t, ok, value)
		require.Equal(t, want, got, value)
	}
	for _, value := range []string{"", "a, b", "'a', 'b'", `'a\b'`, "E'a'", "DEFAULT", "default", "$1", "-a", "'a", `U&"a"`, "INTERVAL '1'"} {
		_, ok := Literal(value)
		require.False(t, ok, value)
	}
}

// A value that Literal decodes is the one that SET would have set.
func TestLiteral_setByTheServer_isTheSame(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		s := dial(t, c, "postgres", pgtest.Superuser)
		for _, value := range []string{"'a''b'", "on", "TRUE", "Word", `"Qu oted"`, "64", "-1.5", "+3", "''", "'é'", "'a' -- x"} {
			s.run("SET app.literal TO " + value)
			literal, ok := Literal(value)
			require.True(t, ok, value)
			require.Equal(t, s.value("SHOW app.literal"), literal, value)
		}
	})
}
