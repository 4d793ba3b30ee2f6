package compat_test

import (
	"maps"
	"slices"
)

func drivers() []driver {
	all := slices.Concat(pgxDrivers(), sqlDrivers(), pythonDrivers(), jsDrivers(), javaDrivers(), otherDrivers(), []driver{psqlDriver()})
	for i := range all {
		if d := &all[i]; slices.Contains(d.situations, "terminated") && !slices.Contains(reconnecting, d.name) {
			known := map[string]string{}
			maps.Copy(known, d.differs)
			maps.Copy(known, outlived)
			d.differs = known
		}
	}
	return all
}

// oldColumns concerns drivers that read rows by the columns that were described when they prepared the statement.
var oldColumns = map[string]string{
	"schema change by another": "the server refuses an outdated statement once, not once a client: " +
		"another client's is prepared anew without an error, and that client does not learn of the new columns",
}

// outlived concerns drivers that tell whether the connection is still there.
var outlived = map[string]string{
	"terminated": "a client that had nothing but a transaction on a server that ends gets its last words as an ERROR, and stays connected",
}

// reconnecting are drivers of which the program cannot tell whether it still has the connection that got the error.
var reconnecting = []string{"pgx stdlib", "node-postgres", "PHP"}
