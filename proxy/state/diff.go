package state

import (
	"encoding/hex"
	"slices"
	"strings"
)

// Diff returns the SQL that turns a server session whose settings are have into one whose settings are want, as one
// simple-protocol string, or nil if there is nothing to do. Settings that are only in have are RESET, that is they go
// back to what the server connection started with.
//
// The text is right whatever the server session is set to at that moment. It is ASCII throughout, so client_encoding
// cannot misread it; literals with a backslash are E'...', so standard_conforming_strings does not matter; names and
// functions are qualified, so search_path does not matter. Values are applied as set_config does: a list as a list.
//
// It answers with a CommandComplete per statement, perhaps with a row, and one ReadyForQuery. The string is one
// implicit transaction: after an error nothing of it has happened. The caller sees to it that every name is Replayable.
func Diff(have, want *Settings) []byte {
	if have == want {
		return nil
	}
	d := compare(have, want)
	if d.none() {
		return nil
	}
	return d.appendSQL(nil)
}

// difference is what has to be done, in this order; each list is in canonical order.
type difference struct {
	leave []string  // role and user to RESET, so that the others are set with the rights of the user who logged in
	reset []string  // settings to RESET
	set   []Setting // settings to SET, which costs the server half of what a SELECT does
	call  []Setting // settings for which SET would not do: set_config
	enter []Setting // user and role

	userDiffers bool
}

func compare(have, want *Settings) difference {
	var d difference
	for _, one := range have.List() {
		value, wanted := want.find(one.Name)
		switch {
		case applyRank(one.Name) > 1:
			d.leave = append(d.leave, one.Name)
			d.userDiffers = d.userDiffers || !wanted || value != one.Value
		case !wanted:
			d.reset = append(d.reset, one.Name)
		case one.Name == dateStyle && value != one.Value:
			// A value such as ISO keeps the other half of what it replaces.
			d.reset = append(d.reset, one.Name)
		}
	}
	for _, one := range want.List() {
		value, had := have.find(one.Name)
		same := had && value == one.Value
		switch {
		case applyRank(one.Name) > 1:
			d.enter = append(d.enter, one)
			d.userDiffers = d.userDiffers || !same
		case same:
		case quotesList(one.Name) || !isASCII(one.Value):
			d.call = append(d.call, one)
		default:
			d.set = append(d.set, one)
		}
	}
	return d
}

func (d *difference) none() bool {
	return len(d.reset)+len(d.set)+len(d.call) == 0 && !d.userDiffers
}

func (d *difference) appendSQL(sql []byte) []byte {
	// RESET ROLE before RESET SESSION AUTHORIZATION: the reverse of the order in which they are applied.
	for _, name := range slices.Backward(d.leave) {
		sql = appendReset(sql, name)
	}
	for _, name := range d.reset {
		sql = appendReset(sql, name)
	}
	for _, one := range d.set {
		sql = appendSet(sql, one)
	}
	sql = appendSetConfig(sql, d.call)
	for i, one := range d.enter {
		if isASCII(one.Value) {
			sql = appendSet(sql, one)
		} else {
			sql = appendSetConfig(sql, d.enter[i:i+1])
		}
	}
	return sql
}

func appendReset(sql []byte, name string) []byte {
	sql = append(sql, "RESET "...)
	sql = appendName(sql, name)
	return append(sql, ';')
}

func appendSet(sql []byte, one Setting) []byte {
	sql = append(sql, "SET "...)
	sql = appendName(sql, one.Name)
	sql = append(sql, " TO "...)
	sql = appendLiteral(sql, one.Value)
	return append(sql, ';')
}

// appendSetConfig writes one SELECT for all of a list, or nothing for none. Its calls run in the order of the list.
func appendSetConfig(sql []byte, list []Setting) []byte {
	if len(list) == 0 {
		return sql
	}
	sql = append(sql, "SELECT "...)
	for i, one := range list {
		if i > 0 {
			sql = append(sql, ',')
		}
		sql = append(sql, "pg_catalog.set_config("...)
		sql = appendLiteral(sql, one.Name)
		sql = append(sql, ',')
		sql = appendText(sql, one.Value)
		sql = append(sql, ",false)"...)
	}
	return append(sql, ';')
}

// AssignSQL is a query that makes a setting have this value, for the transaction only if local.
func AssignSQL(one Setting, local bool) []byte {
	sql := appendSetConfig(nil, []Setting{one})
	if local {
		sql = append(sql[:len(sql)-len(",false);")], ",true);"...)
	}
	return sql
}

// appendName writes a setting's name as quoted identifiers; a custom one has two parts or more.
func appendName(sql []byte, name string) []byte {
	for i, part := range strings.Split(name, ".") {
		if i > 0 {
			sql = append(sql, '.')
		}
		sql = append(sql, '"')
		sql = append(sql, strings.ReplaceAll(part, `"`, `""`)...)
		sql = append(sql, '"')
	}
	return sql
}

// appendLiteral writes an ASCII string constant that means the same under either standard_conforming_strings.
func appendLiteral(sql []byte, value string) []byte {
	if strings.IndexByte(value, '\\') >= 0 {
		sql = append(sql, 'E')
	}
	sql = append(sql, '\'')
	for i := range len(value) {
		if value[i] == '\'' || value[i] == '\\' {
			sql = append(sql, value[i])
		}
		sql = append(sql, value[i])
	}
	return append(sql, '\'')
}

// appendText writes an expression for any bytes in the session's client_encoding. PostgreSQL converts a whole message by
// the encoding that is in force when it arrives, which may be another one than this string has set by the time the
// expression runs; so bytes beyond ASCII go in hex and are converted then.
func appendText(sql []byte, value string) []byte {
	if isASCII(value) {
		return appendLiteral(sql, value)
	}
	sql = append(sql, "pg_catalog.convert_from(pg_catalog.decode('"...)
	sql = hex.AppendEncode(sql, []byte(value))
	return append(sql, "','hex'),pg_catalog.current_setting('client_encoding'))"...)
}
