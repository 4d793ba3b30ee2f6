package state

import (
	"slices"
	"strings"
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

// reviewed are volatile built-in functions that no list of the package has, since nobody calls them often: a text that does is
// audited. They leave nothing in the session that another one would notice, so that the body of a routine may call them.
var reviewed = strings.Fields(`
	amvalidate bernoulli brin_desummarize_range brin_summarize_new_values brin_summarize_range brinhandler bthandler
	current_query currtid2 gin_clean_pending_list ginhandler gisthandler hashhandler heap_tableam_handler
	pg_available_wal_summaries pg_backup_stop pg_clear_attribute_stats pg_clear_relation_stats
	pg_collation_actual_version pg_copy_logical_replication_slot pg_copy_physical_replication_slot
	pg_create_logical_replication_slot pg_create_physical_replication_slot pg_database_collation_actual_version
	pg_drop_replication_slot pg_extension_config_dump pg_get_aios pg_get_backend_memory_contexts pg_get_loaded_modules
	pg_get_multixact_members pg_get_sequence_data pg_get_shmem_allocations pg_get_shmem_allocations_numa
	pg_get_wait_events pg_get_wal_replay_pause_state pg_get_wal_resource_managers pg_get_wal_summarizer_state
	pg_hba_file_rules pg_ident_file_mappings pg_import_system_collations pg_isolation_test_session_is_blocked
	pg_jit_available pg_log_backend_memory_contexts pg_log_standby_snapshot pg_logical_slot_get_binary_changes
	pg_logical_slot_get_changes pg_logical_slot_peek_binary_changes pg_logical_slot_peek_changes pg_ls_archive_statusdir
	pg_ls_dir pg_ls_logdir pg_ls_logicalmapdir pg_ls_logicalsnapdir pg_ls_replslotdir pg_ls_summariesdir pg_ls_tmpdir
	pg_ls_waldir pg_nextoid pg_prepared_xact pg_promote pg_read_binary_file pg_read_file pg_read_file_old
	pg_replication_origin_advance pg_replication_origin_create pg_replication_origin_drop pg_replication_origin_progress
	pg_replication_origin_session_is_setup pg_replication_origin_session_progress pg_replication_origin_xact_reset
	pg_replication_origin_xact_setup pg_replication_slot_advance pg_restore_attribute_stats pg_restore_relation_stats
	pg_rotate_logfile pg_rotate_logfile_old pg_show_all_file_settings pg_show_replication_origin_status
	pg_stat_force_next_flush pg_stat_have_stats pg_stat_reset pg_stat_reset_backend_stats pg_stat_reset_replication_slot
	pg_stat_reset_shared pg_stat_reset_single_function_counters pg_stat_reset_single_table_counters pg_stat_reset_slru
	pg_stat_reset_subscription_stats pg_stop_making_pinned_objects pg_sync_replication_slots pg_wal_replay_pause
	pg_wal_replay_resume pg_wal_summary_contents pg_xact_commit_timestamp_origin plpgsql_call_handler
	plpgsql_inline_handler plpgsql_validator spghandler system
`)

// Bodies of routines are read with the lists of this package, so a volatile function that a new version of PostgreSQL brings
// has to be put on one of them.
func TestFunctions_everyVolatileBuiltin_isOnAList(t *testing.T) {
	session := sessionBuiltins()
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		var missing []string
		names := map[string]bool{}
		for _, row := range c.Query(t, `SELECT DISTINCT proname, provolatile = 'v' FROM pg_catalog.pg_proc
			WHERE pronamespace = 'pg_catalog'::regnamespace AND oid < 16384 AND prorettype <> 'trigger'::regtype
			AND prorettype <> 'internal'::regtype AND proname !~ '^binary_upgrade_' ORDER BY 1`) {
			names[row[0]] = true
			if row[1] == "t" && functionEffect([]byte(row[0])) == Function && !slices.Contains(session, row[0]) && !slices.Contains(reviewed, row[0]) {
				missing = append(missing, row[0])
			}
		}
		require.Empty(t, missing, "look at what they do to the session: %s", strings.Join(missing, " "))
		for _, name := range session {
			require.NotZero(t, functionEffect([]byte(name)), name)
		}
	})
}
