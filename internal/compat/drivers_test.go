package compat_test

import "slices"

func drivers() []driver {
	return slices.Concat(pgxDrivers(), sqlDrivers(), pythonDrivers(), jsDrivers(), javaDrivers(), otherDrivers(), []driver{psqlDriver()})
}

// oldColumns concerns drivers that read rows by the columns that were described when they prepared the statement.
var oldColumns = map[string]string{
	"schema change by another": "the server refuses an outdated statement once, not once a client: " +
		"another client's is prepared anew without an error, and that client does not learn of the new columns",
}
