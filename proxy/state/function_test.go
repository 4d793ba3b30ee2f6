package state

import (
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// Every name that is taken for harmless has to be a function that only computes, by the server's own word: immutable or
// stable. Those of harmlessVolatile and writingFunction are chosen by hand and have to be volatile.
func TestFunctions_harmlessNames_areBuiltInAndNotVolatile(t *testing.T) {
	seen := map[string]bool{}
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for _, row := range c.Query(t, `SELECT proname, pg_catalog.bool_or(provolatile = 'v') FROM pg_catalog.pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY 1`) {
			name, volatile := row[0], row[1] == "t"
			seen[name] = true
			folded := []byte(name)
			switch {
			case everydayFunction(folded), catalogFunction(folded):
				require.False(t, volatile, name)
			case harmlessVolatile(folded):
				require.True(t, volatile, name)
			case volatile && functionEffect(folded) == 0:
				require.Truef(t, syntaxWord(folded) || name[:min(len(name), 12)] == "pg_stat_get_", "%s is volatile and taken for harmless", name)
			}
		}
	})
	if !seen["uuidv7"] {
		t.Skip("the names of PostgreSQL 18 cannot be looked up")
	}
	for _, name := range []string{
		"set_config", "pg_advisory_lock", "pg_try_advisory_lock_shared", "pg_advisory_unlock_all", "nextval", "setval", "currval",
		"lastval", "setseed", "pg_notify", "pg_backup_start", "pg_replication_origin_session_setup",
	} {
		require.True(t, seen[name], name)
	}
}

// What is executed when it is called must not be on a list, however it is classified by the server.
func TestFunctions_namesThatRunAnything_areNotHarmless(t *testing.T) {
	for _, name := range []string{
		"query_to_xml", "query_to_xml_and_xmlschema", "cursor_to_xml", "table_to_xml", "schema_to_xml", "database_to_xml",
		"ts_stat", "ts_rewrite", "pg_create_physical_replication_slot", "pg_create_logical_replication_slot",
		"dblink", "dblink_exec", "crosstab", "", "count2", "f", "my_function",
	} {
		require.Equal(t, Function, functionEffect([]byte(name)), name)
	}
}
