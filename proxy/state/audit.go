package state

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
)

// Audit is what a server's session holds beyond what its connection began with, as far as the server shows it.
type Audit struct {
	Settings []Setting // set in the session and still in force
	Empty    []string  // custom settings that are there but empty: they are never gone again, whoever has made them
	Temp     int       // temporary objects
	TempName string    // one of them: table t; "" if there is none that has a name of that kind
	Locks    int       // advisory locks of the session
	Channels []string  // that it listens to
	Cursors  []string  // WITH HOLD
	Prepared []string  // by PREPARE
}

// auditSQL asks for an Audit, as rows of kind, name and value. Everything in it is qualified, so that no search_path
// changes its meaning, and any role may run it. It costs the server about half a millisecond, most of it for pg_settings.
//
// Objects of the temporary schema are found by their dependency on it, for which there is an index. The role and the
// session's user are settings that pg_settings does not list, nor does it list custom ones: names are those that clients
// have been seen to set. Once a library that knows such a name is loaded, it is like any other setting. It does list what SET TRANSACTION has set, for ever after, although that ends with the
// transaction.
const auditSQL = `SELECT 's' AS k, name AS n, pg_catalog.current_setting(name) AS v FROM pg_catalog.pg_settings` +
	` WHERE source OPERATOR(pg_catalog.=) 'session'` +
	` AND name OPERATOR(pg_catalog.<>) ALL` +
	` (ARRAY['transaction_isolation', 'transaction_read_only', 'transaction_deferrable'])` +
	` UNION ALL SELECT 's', 'role', pg_catalog.current_setting('role')` +
	` WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'` +
	` UNION ALL SELECT 's', 'session_authorization', SESSION_USER::pg_catalog.text` +
	` WHERE SESSION_USER OPERATOR(pg_catalog.<>) %user%` +
	` UNION ALL SELECT 't', COALESCE(pg_catalog.max(CASE WHEN relkind OPERATOR(pg_catalog.=) 'S' THEN 'sequence'` +
	` WHEN relkind OPERATOR(pg_catalog.=) 'v' THEN 'view' ELSE 'table' END` +
	` OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) relname::pg_catalog.text), ''), pg_catalog.count(*)::pg_catalog.text` +
	` FROM pg_catalog.pg_depend LEFT JOIN pg_catalog.pg_class AS t` +
	` ON t.oid OPERATOR(pg_catalog.=) objid AND classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass` +
	` WHERE refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass` +
	` AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()` +
	` AND refobjid OPERATOR(pg_catalog.<>) 0 HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0` +
	` UNION ALL SELECT 'a', '', pg_catalog.count(*)::pg_catalog.text FROM pg_catalog.pg_locks` +
	` WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()` +
	` HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0` +
	` UNION ALL SELECT 'l', c, '' FROM pg_catalog.pg_listening_channels() AS l(c)` +
	` UNION ALL SELECT 'c', name, '' FROM pg_catalog.pg_cursors WHERE is_holdable` +
	` UNION ALL SELECT 'p', name, '' FROM pg_catalog.pg_prepared_statements WHERE from_sql`

// AuditSQL returns the query whose rows DecodeAudit reads, for a connection that was logged in as user. custom are the
// names of custom settings to ask for.
func AuditSQL(user string, custom []string) []byte {
	literal := string(appendText(nil, user)) + "::pg_catalog.name"
	sql := []byte(strings.Replace(auditSQL, "%user%", literal, 1))
	if len(custom) == 0 {
		return sql
	}
	sql = append(sql, " UNION ALL SELECT CASE WHEN pg_catalog.current_setting(c, true) OPERATOR(pg_catalog.=) '' THEN 'e' ELSE 's' END,"+
		" c, pg_catalog.current_setting(c, true) FROM pg_catalog.unnest(ARRAY["...)
	for i, name := range custom {
		if i > 0 {
			sql = append(sql, ',')
		}
		sql = appendText(sql, name)
	}
	return append(sql, "]) AS custom(c) WHERE pg_catalog.current_setting(c, true) IS NOT NULL"+
		" AND NOT EXISTS (SELECT FROM pg_catalog.pg_settings"+
		" WHERE pg_catalog.lower(name) OPERATOR(pg_catalog.=) pg_catalog.lower(c))"...)
}

// DecodeAudit reads the DataRow messages, with their headers, of an answer to AuditSQL. ok is false when they are not.
func DecodeAudit(rows []byte) (a Audit, ok bool) {
	for len(rows) > 0 {
		columns, rest, ok := nextRow(rows)
		if !ok || len(columns) != 3 {
			return a, false
		}
		a.add(columns[0], columns[1], columns[2])
		rows = rest
	}
	return a, true
}

func (a *Audit) add(kind, name, value string) {
	switch kind {
	case "s":
		a.Settings = append(a.Settings, Setting{Name: name, Value: value})
	case "e":
		a.Empty = append(a.Empty, name)
	case "t":
		a.Temp, a.TempName = atLeastOne(value), name
	case "a":
		a.Locks = atLeastOne(value)
	case "l":
		a.Channels = append(a.Channels, name)
	case "c":
		a.Cursors = append(a.Cursors, name)
	case "p":
		a.Prepared = append(a.Prepared, name)
	}
}

// atLeastOne reads a count that is sent only when it is not 0.
func atLeastOne(s string) int {
	n := 0
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return max(n, 1)
}

// SettingsOf returns what was found to be set. Of the custom settings that are empty those belong to the session that known
// has or that its own texts have set.
func (a *Audit) SettingsOf(known *Settings, set []string) []Setting {
	settings := a.Settings
	for _, name := range a.Empty {
		if _, has := known.find(name); has || slices.Contains(set, name) {
			settings = append(settings, Setting{Name: name})
		}
	}
	return settings
}

// nextRow reads the first of some DataRow messages, with their headers. NULL is the empty string.
func nextRow(rows []byte) (columns []string, rest []byte, ok bool) {
	if len(rows) < 7 || rows[0] != 'D' {
		return nil, nil, false
	}
	size := 1 + int(binary.BigEndian.Uint32(rows[1:]))
	if size < 7 || size > len(rows) {
		return nil, nil, false
	}
	columns, ok = decodeRow(rows[5:size])
	return columns, rows[size:], ok
}

func decodeRow(body []byte) (columns []string, ok bool) {
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	for range n {
		if len(body) < 4 {
			return nil, false
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if size > len(body) {
			return nil, false
		}
		if size < 0 {
			columns = append(columns, "")
			continue
		}
		columns = append(columns, string(body[:size]))
		body = body[size:]
	}
	return columns, len(body) == 0
}

// Pins says what keeps a session on its server: the effect that a text has which does such a thing, and all that was found, for
// people; 0 if nothing does. Settings do not, if they are Replayable: they can be set on any server.
func (a *Audit) Pins() (why Effect, reason string) {
	var reasons []string
	add := func(effect Effect, what string) {
		if why == 0 {
			why = effect
		}
		reasons = append(reasons, what)
	}
	if a.Temp > 0 {
		add(Temp, a.tempReason())
	}
	if a.Locks > 0 {
		add(AdvisoryLock, "advisory lock")
	}
	if len(a.Cursors) > 0 {
		add(HoldCursor, "cursor "+quoteNames(a.Cursors)+" WITH HOLD")
	}
	if len(a.Prepared) > 0 {
		add(Prepare, "PREPARE "+quoteNames(a.Prepared))
	}
	if len(a.Channels) > 0 {
		add(Listen, "LISTEN "+quoteNames(a.Channels))
	}
	if fixed := a.fixed(); len(fixed) > 0 {
		add(Set, "SET "+quoteNames(fixed))
	}
	return why, strings.Join(reasons, ", ")
}

// tempReason names the temporary objects, or one of them.
func (a *Audit) tempReason() string {
	kind, name, named := strings.Cut(a.TempName, " ")
	if !named {
		return "temporary object"
	}
	reason := "temp " + kind + ` "` + name + `"`
	if a.Temp > 1 {
		reason += " and " + strconv.Itoa(a.Temp-1) + " more"
	}
	return reason
}

// fixed are the names of settings that cannot be given to another server.
func (a *Audit) fixed() []string {
	var names []string
	for _, one := range a.Settings {
		if !Replayable(one.Name) {
			names = append(names, one.Name)
		}
	}
	return names
}

func quoteNames(names []string) string {
	slices.Sort(names)
	return `"` + strings.Join(names, `", "`) + `"`
}
