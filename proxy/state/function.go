package state

import "bytes"

// functionEffect is the effect of a call by the folded name of the function, without a schema or in pg_catalog. A name
// that no list has is Function. A function of the same name and other argument types in the user's own schema would be
// taken for the built-in one: what it leaves behind is found by the check of released servers, not here.
func functionEffect(folded []byte) Effect {
	if effect := sessionFunction(folded); effect != 0 {
		return effect
	}
	if actsOnServer(folded) {
		return Local
	}
	if syntaxWord(folded) || everydayFunction(folded) || catalogFunction(folded) || harmlessVolatile(folded) {
		return 0
	}
	if bytes.HasPrefix(folded, []byte("pg_stat_get_")) {
		return 0
	}
	return writingFunction(folded)
}

// sessionFunction knows the built-in functions that change their session. set_config is Set here whatever its
// third argument.
func sessionFunction(folded []byte) Effect {
	switch string(folded) {
	case "set_config":
		return Set
	case "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared":
		return AdvisoryLock
	case "pg_advisory_unlock", "pg_advisory_unlock_shared":
		return AdvisoryUnlock
	case "pg_advisory_unlock_all":
		return AdvisoryUnlockAll
	case "nextval", "setval":
		return Sequence
	case "currval", "lastval":
		return SequenceRead
	case "setseed":
		return Seed
	case "pg_notify":
		return Notify
	case "pg_backup_start", "pg_start_backup", "pg_replication_origin_session_setup", "pg_replication_origin_session_reset",
		"dblink_connect", "dblink_connect_u":
		return Opaque
	}
	return 0
}

// sessionBuiltins are the built-in functions that change their session in a way that another session on the same server would
// notice, by themselves or by the text that they run.
func sessionBuiltins() []string {
	return []string{
		"set_config", "pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared",
		"setseed", "pg_backup_start", "pg_replication_origin_session_setup", "pg_replication_origin_session_reset",
		"query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
		"table_to_xml", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema", "database_to_xml",
		"database_to_xml_and_xmlschema", "ts_stat", "ts_rewrite",
	}
}

// runsText tells whether a function, as its name is written, runs a text that it is given, or reads whatever it is told to.
func runsText(name []byte) bool {
	var buffer [maxNameLength]byte
	if name[0] == '"' {
		name = name[1 : len(name)-1]
	}
	switch string(foldInto(&buffer, name)) {
	case "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema", "cursor_to_xml", "cursor_to_xmlschema",
		"table_to_xml", "table_to_xml_and_xmlschema", "schema_to_xml", "schema_to_xml_and_xmlschema", "database_to_xml",
		"database_to_xml_and_xmlschema", "ts_stat", "ts_rewrite", "crosstab", "crosstab2", "crosstab3", "crosstab4",
		"crosstabn", "connectby", "xpath_table":
		return true
	}
	return false
}

// writingFunction knows volatile built-in functions that leave nothing in the session but that a standby refuses. All
// that no list has is Function.
func writingFunction(folded []byte) Effect {
	switch string(folded) {
	case "lo_create", "lo_creat", "lo_export", "lo_from_bytea", "lo_import", "lo_put", "lo_truncate", "lo_truncate64",
		"lo_unlink", "lowrite", "pg_create_restore_point", "pg_current_xact_id", "pg_logical_emit_message", "pg_switch_wal",
		"txid_current":
		return Write
	}
	return Function
}

// syntaxWord tells whether a word before a parenthesis is grammar and not a function, wherever it stands. All of them are
// keywords by whose name no function can be called without quotes, or that nobody calls one by (JOIN, LIKE, OPERATOR).
func syntaxWord(folded []byte) bool {
	switch string(folded) {
	case "all", "and", "any", "array", "as", "asc", "both", "case", "cast", "check", "collate", "constraint", "default",
		"desc", "distinct", "do", "else", "end", "except", "fetch", "for", "foreign", "from", "group", "having", "in",
		"intersect", "into", "is", "isnull", "lateral", "leading", "limit", "not", "notnull", "null", "offset", "on", "only", "or",
		"order", "primary", "references", "returning", "select", "some", "symmetric", "table", "then", "to", "trailing",
		"union", "unique", "user", "using", "variadic", "when", "where", "window", "with",
		"between", "exists", "setof", "values",
		"ilike", "join", "like", "operator", "similar",
		"bit", "boolean", "char", "character", "dec", "decimal", "float", "int", "integer", "interval", "national", "nchar",
		"numeric", "precision", "real", "smallint", "time", "timestamp", "varchar",
		"coalesce", "extract", "greatest", "grouping", "least", "normalize", "nullif", "overlay", "position", "row",
		"substring", "treat", "trim",
		"xmlattributes", "xmlconcat", "xmlelement", "xmlexists", "xmlforest", "xmlparse", "xmlpi", "xmlroot",
		"xmlserialize", "xmltable", "xmlnamespaces",
		"json", "json_array", "json_arrayagg", "json_exists", "json_objectagg", "json_query", "json_scalar",
		"json_serialize", "json_table", "json_value", "merge_action":
		return true
	}
	return false
}

// everydayFunction knows the built-in functions of ordinary queries that only compute (immutable or stable ones).
func everydayFunction(folded []byte) bool {
	switch string(folded) {
	case // aggregates and window functions
		"array_agg", "avg", "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "count", "corr", "covar_pop", "covar_samp",
		"cume_dist", "dense_rank", "every", "first_value", "json_agg", "json_object_agg", "jsonb_agg", "jsonb_object_agg",
		"lag", "last_value", "lead", "max", "min", "mode", "nth_value", "ntile", "percent_rank", "percentile_cont",
		"percentile_disc", "range_agg", "rank", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2",
		"regr_slope", "row_number", "stddev", "stddev_pop", "stddev_samp", "string_agg", "sum", "var_pop", "var_samp",
		"variance", "xmlagg",
		// numbers
		"abs", "acos", "asin", "atan", "atan2", "cbrt", "ceil", "ceiling", "cos", "cot", "degrees", "div", "exp", "factorial",
		"float4", "float8", "floor", "gcd", "int2", "int4", "int8", "lcm", "ln", "log", "log10", "min_scale", "mod", "pi", "pow",
		"power", "radians", "round", "scale", "sign", "sin", "sqrt", "tan", "to_hex", "trim_scale", "trunc", "width_bucket",
		// strings and bytes
		"ascii", "bit_count", "bit_length", "bpchar", "btrim", "char_length", "character_length", "chr", "concat", "concat_ws",
		"convert", "convert_from", "convert_to", "decode", "encode", "format", "get_bit", "get_byte", "initcap", "left",
		"length", "lower", "lpad", "ltrim", "md5", "name", "octet_length", "parse_ident", "quote_ident", "quote_literal",
		"quote_nullable", "regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_matches", "regexp_replace",
		"regexp_split_to_array", "regexp_split_to_table", "regexp_substr", "repeat", "replace", "reverse", "right", "rpad",
		"rtrim", "set_bit", "set_byte", "sha224", "sha256", "sha384", "sha512", "split_part", "starts_with",
		"string_to_array", "string_to_table", "strpos", "substr", "text", "to_ascii", "translate", "unistr",
		// times
		"age", "date", "date_add", "date_bin", "date_part", "date_subtract", "date_trunc", "isfinite", "justify_days",
		"justify_hours", "justify_interval", "make_date", "make_interval", "make_time", "make_timestamp",
		"make_timestamptz", "now", "overlaps", "statement_timestamp", "timestamptz", "timetz", "timezone", "to_char",
		"to_date", "to_number", "to_timestamp", "transaction_timestamp",
		// arrays, ranges, sets
		"array_append", "array_cat", "array_dims", "array_fill", "array_length", "array_lower", "array_ndims",
		"array_position", "array_positions", "array_prepend", "array_remove", "array_replace", "array_to_string",
		"array_upper", "cardinality", "daterange", "enum_first", "enum_last", "enum_range", "generate_series",
		"generate_subscripts", "int4multirange", "int4range", "int8range", "isempty", "lower_inc", "lower_inf",
		"multirange", "num_nonnulls", "num_nulls", "numrange", "range_merge", "trim_array", "tsrange", "tstzrange",
		"unnest", "upper", "upper_inc", "upper_inf",
		// JSON and XML
		"array_to_json", "json_array_elements", "json_array_elements_text", "json_array_length", "json_build_array",
		"json_build_object", "json_each", "json_each_text", "json_extract_path", "json_extract_path_text", "json_object",
		"json_object_keys", "json_populate_record", "json_populate_recordset", "json_strip_nulls", "json_to_record",
		"json_to_recordset", "json_typeof", "jsonb_array_elements", "jsonb_array_elements_text", "jsonb_array_length",
		"jsonb_build_array", "jsonb_build_object", "jsonb_each", "jsonb_each_text", "jsonb_extract_path",
		"jsonb_extract_path_text", "jsonb_insert", "jsonb_object", "jsonb_object_keys", "jsonb_path_exists",
		"jsonb_path_match", "jsonb_path_query", "jsonb_path_query_array", "jsonb_path_query_first",
		"jsonb_populate_record", "jsonb_populate_recordset", "jsonb_pretty", "jsonb_set", "jsonb_set_lax",
		"jsonb_strip_nulls", "jsonb_to_record", "jsonb_to_recordset", "jsonb_typeof", "row_to_json", "to_json", "to_jsonb",
		"xml_is_well_formed", "xmlcomment", "xpath", "xpath_exists",
		// text search, geometry, networks
		"abbrev", "area", "box", "broadcast", "center", "circle", "cidr", "family", "height", "host", "hostmask",
		"inet_merge", "inet_same_family", "masklen", "netmask", "network", "phraseto_tsquery", "plainto_tsquery", "point",
		"polygon", "setweight", "to_tsquery", "to_tsvector", "ts_headline", "ts_rank", "ts_rank_cd",
		"websearch_to_tsquery", "width":
		return true
	}
	return false
}

// catalogFunction knows the built-in functions by which drivers, ORMs and psql look at the server and its catalogs (immutable
// or stable ones).
func catalogFunction(folded []byte) bool {
	switch string(folded) {
	case "acldefault", "aclexplode", "col_description", "current_database", "current_schema", "current_schemas",
		"current_setting", "format_type", "get_current_ts_config", "getdatabaseencoding", "has_any_column_privilege",
		"has_column_privilege", "has_database_privilege", "has_foreign_data_wrapper_privilege",
		"has_function_privilege", "has_language_privilege", "has_schema_privilege", "has_sequence_privilege",
		"has_server_privilege", "has_table_privilege", "has_tablespace_privilege", "has_type_privilege",
		"inet_client_addr", "inet_client_port", "inet_server_addr", "inet_server_port", "mxid_age", "obj_description", "oid",
		"pg_available_extension_versions", "pg_available_extensions", "pg_backend_pid", "pg_char_to_encoding",
		"pg_client_encoding", "pg_collation_for", "pg_collation_is_visible", "pg_column_is_updatable", "pg_column_size",
		"pg_conf_load_time", "pg_conversion_is_visible", "pg_current_snapshot", "pg_cursor", "pg_describe_object",
		"pg_encoding_max_length", "pg_encoding_to_char", "pg_filenode_relation", "pg_function_is_visible",
		"pg_get_constraintdef", "pg_get_expr", "pg_get_function_arg_default", "pg_get_function_arguments",
		"pg_get_function_identity_arguments", "pg_get_function_result", "pg_get_function_sqlbody", "pg_get_functiondef",
		"pg_get_indexdef", "pg_get_keywords", "pg_get_object_address", "pg_get_partition_constraintdef",
		"pg_get_partkeydef", "pg_get_publication_tables", "pg_get_replica_identity_index", "pg_get_replication_slots",
		"pg_get_ruledef", "pg_get_serial_sequence", "pg_get_statisticsobjdef", "pg_get_statisticsobjdef_columns",
		"pg_get_statisticsobjdef_expressions", "pg_get_triggerdef", "pg_get_userbyid", "pg_get_viewdef", "pg_has_role",
		"pg_identify_object", "pg_identify_object_as_address", "pg_index_column_has_property", "pg_index_has_property",
		"pg_indexam_has_property", "pg_is_other_temp_schema", "pg_listening_channels", "pg_my_temp_schema",
		"pg_opclass_is_visible", "pg_operator_is_visible", "pg_opfamily_is_visible", "pg_options_to_table",
		"pg_partition_root", "pg_postmaster_start_time", "pg_prepared_statement", "pg_relation_filenode",
		"pg_relation_filepath", "pg_relation_is_publishable", "pg_relation_is_updatable", "pg_replication_origin_oid",
		"pg_sequence_parameters", "pg_settings_get_flags", "pg_show_all_settings", "pg_size_bytes", "pg_size_pretty",
		"pg_snapshot_xip", "pg_snapshot_xmax", "pg_snapshot_xmin", "pg_statistics_obj_is_visible", "pg_table_is_visible",
		"pg_tablespace_databases", "pg_tablespace_location", "pg_timezone_abbrevs", "pg_timezone_names",
		"pg_trigger_depth", "pg_ts_config_is_visible", "pg_ts_dict_is_visible", "pg_ts_parser_is_visible",
		"pg_ts_template_is_visible", "pg_type_is_visible", "pg_typeof", "pg_visible_in_snapshot", "pg_wal_lsn_diff",
		"pg_walfile_name", "pg_walfile_name_offset", "regclass", "row_security_active", "shobj_description",
		"to_regclass", "to_regcollation", "to_regnamespace", "to_regoper", "to_regoperator", "to_regproc",
		"to_regprocedure", "to_regrole", "to_regtype", "version":
		return true
	}
	return false
}

// harmlessVolatile knows volatile built-in functions that leave nothing in the session and that a standby allows: clocks,
// random values, sizes and figures of the server, locks of the transaction.
func harmlessVolatile(folded []byte) bool {
	switch string(folded) {
	case "array_sample", "array_shuffle", "clock_timestamp", "gen_random_uuid", "lo_close", "lo_get", "lo_lseek", "lo_lseek64", "lo_open", "lo_tell", "lo_tell64",
		"loread", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared", "pg_blocking_pids", "pg_cancel_backend",
		"pg_control_checkpoint", "pg_control_init", "pg_control_recovery", "pg_control_system",
		"pg_current_logfile", "pg_current_wal_flush_lsn", "pg_current_wal_insert_lsn", "pg_current_wal_lsn",
		"pg_database_size", "pg_export_snapshot", "pg_indexes_size", "pg_is_in_recovery", "pg_is_wal_replay_paused",
		"pg_last_committed_xact", "pg_last_wal_receive_lsn", "pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp",
		"pg_lock_status", "pg_notification_queue_usage", "pg_partition_ancestors", "pg_partition_tree",
		"pg_relation_size", "pg_reload_conf", "pg_safe_snapshot_blocking_pids", "pg_sequence_last_value", "pg_sleep",
		"pg_sleep_for", "pg_sleep_until", "pg_stat_clear_snapshot", "pg_stat_file", "pg_table_size",
		"pg_tablespace_size", "pg_terminate_backend", "pg_total_relation_size", "pg_try_advisory_xact_lock",
		"pg_try_advisory_xact_lock_shared", "pg_xact_commit_timestamp", "pg_xact_status", "random", "random_normal", "timeofday",
		"txid_status", "uuidv4", "uuidv7":
		return true
	}
	return false
}
