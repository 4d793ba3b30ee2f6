package main

// known are the tests that may fail in transaction mode although they pass directly, and why. In session mode there are none.
// docs/compatibility.md says more.
func known() map[string]string {
	return map[string]string{
		"stats":        "statistics: a server reports what it has counted up to a second later, and \\connect begins no session on it",
		"sequence":     "the first currval() of a session may meet another server, and then is an error",
		"temp":         "PREPARE TRANSACTION is refused after the first use of pg_temp only, which an earlier client of the server may have made",
		"guc":          "an earlier client of the server has loaded plpgsql, whose prefix then allows no other settings",
		"foreign_data": "plpgsql, when it is loaded, warns of a setting that guc has made on the same server",
		"triggers":     "the test's library in C keeps a variable of its own in the server's process",
	}
}

// knownDifference says why a test may fail through the proxy.
func knownDifference(l leg, test string) (reason string, ok bool) {
	if l.mode != "transaction" {
		return "", false
	}
	reason, ok = known()[test]
	return reason, ok
}
