package state

import "bytes"

// Reads tells whether a text does nothing but read tables, as far as it shows: it may be run on a standby, and asks for nothing that is
// the server's own. What a view, an operator or the like does behind it is not seen.
func Reads(sql []byte) bool {
	statement := Classify(sql)
	switch statement.Verb {
	case VerbSelect, VerbValues, VerbTable, VerbWith:
		return statement.Effects == 0 && !tellsOfServer(sql)
	}
	return false
}

// tellsOfServer tells whether a text names what is about one server and its sessions.
func tellsOfServer(sql []byte) bool {
	l := lexer{src: sql}
	for {
		switch l.next() {
		case end, broken:
			return false
		case word, quoted:
			var buffer [maxNameLength]byte
			if isOfServer(bytes.TrimPrefix(foldInto(&buffer, l.bytes()), []byte(`"`))) {
				return true
			}
		}
	}
}

func isOfServer(folded []byte) bool {
	for _, prefix := range []string{
		"pg_stat_", "pg_locks", "pg_replication", "pg_prepared_", "pg_cursors", "pg_settings", "pg_file_settings", "pg_hba_", "pg_ident_", "pg_backend_", "pg_shmem_",
	} {
		if bytes.HasPrefix(folded, []byte(prefix)) {
			return true
		}
	}
	return false
}

// actsOnServer knows the built-in functions that act on the server they run on, or take a lock there, and that a standby
// runs as the primary does: what they are for happens on the primary only.
func actsOnServer(folded []byte) bool {
	switch string(folded) {
	case "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_try_advisory_xact_lock", "pg_try_advisory_xact_lock_shared",
		"pg_cancel_backend", "pg_terminate_backend", "pg_reload_conf", "pg_rotate_logfile", "pg_export_snapshot",
		"pg_blocking_pids", "pg_safe_snapshot_blocking_pids", "pg_lock_status", "pg_notification_queue_usage", "pg_stat_clear_snapshot",
		"pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn", "pg_last_committed_xact", "pg_xact_commit_timestamp",
		"pg_xact_status", "txid_status", "pg_sequence_last_value":
		return true
	}
	return false
}
