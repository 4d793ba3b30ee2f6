package state

import (
	"cmp"
	"strings"
)

// Settings that are handled apart from the others.
const (
	clientEncoding       = "client_encoding"
	dateStyle            = "datestyle"
	timeZone             = "timezone"
	searchPath           = "search_path"
	sessionAuthorization = "session_authorization"
	role                 = "role"
	maxNameLength        = 63 // bytes of an identifier that PostgreSQL keeps (NAMEDATALEN - 1)
)

// canonicalName folds a setting's name as PostgreSQL compares them (ASCII letters without case) and replaces the names
// that it still accepts for settings renamed long ago.
func canonicalName(name string) string {
	name = foldString(name)
	switch name {
	case "sort_mem":
		return "work_mem"
	case "vacuum_mem":
		return "maintenance_work_mem"
	}
	return name
}

// compareNames orders settings as they have to be applied: client_encoding first, because values are read in it; the
// user and then the role last, because setting the user resets the role and either may lose the right to set others.
func compareNames(a, b string) int {
	return cmp.Or(cmp.Compare(applyRank(a), applyRank(b)), cmp.Compare(a, b))
}

func applyRank(name string) int {
	switch name {
	case clientEncoding:
		return 0
	case sessionAuthorization:
		return 2
	case role:
		return 3
	}
	return 1
}

// Replayable tells whether a setting may be held for a client and given to a server with Diff. It may not if PostgreSQL
// takes it only while a connection starts, if it is the state of a transaction or of the server rather than a setting,
// or if SQL cannot spell its name independently of the encoding and of the length of an identifier.
func Replayable(name string) bool {
	name = canonicalName(name)
	switch name {
	case "ignore_system_indexes", "post_auth_delay", "log_connections", "log_disconnections",
		"jit_debugging_support", "jit_profiling_support", // only while the connection starts
		"transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed", "is_superuser",
		"temp_buffers": // refused once the server has touched a temporary table, for whomever
		return false
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || len(part) > maxNameLength || !isASCII(part) {
			return false
		}
	}
	return true
}

// quotesList tells whether SET turns the elements it is given into quoted ones for this setting (GUC_LIST_QUOTE), so
// that SET search_path TO 'a, b' means one schema with a comma in its name. Extensions cannot define such settings.
func quotesList(name string) bool {
	switch name {
	case searchPath, "temp_tablespaces", "local_preload_libraries", "session_preload_libraries",
		"shared_preload_libraries", "unix_socket_directories":
		return true
	}
	return false
}

// foldString lower-cases ASCII letters and nothing else, whatever the encoding.
func foldString(s string) string {
	for i := range len(s) {
		if 'A' <= s[i] && s[i] <= 'Z' {
			folded := []byte(s)
			for j := i; j < len(folded); j++ {
				folded[j] = fold(folded[j])
			}
			return string(folded)
		}
	}
	return s
}

func fold(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
