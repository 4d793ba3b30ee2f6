package router

import (
	"fmt"

	"pgsidecar/router/probe"
)

// What people are told, a function each: every refusal is one sentence that says which server, why, and what was expected.

func sentenceUnseen(name string) string { return name + " has not been probed yet" }

func sentenceUnwell(name string, o *probe.Observation) string {
	switch o.Reason {
	case probe.Timeout:
		return fmt.Sprintf("%s does not answer: %v", name, o.Err)
	case probe.Refused:
		return fmt.Sprintf("%s takes no connections at the moment: %v", name, o.Err)
	case probe.NotPostgres:
		return fmt.Sprintf("%s is not a PostgreSQL server: %v", name, o.Err)
	case probe.AuthFailed:
		return fmt.Sprintf("%s refuses the login of the probe: %v", name, o.Err)
	case probe.OK, probe.Unreachable, probe.Full, probe.TLSFailed, probe.Failed:
	}
	return fmt.Sprintf("%s cannot be probed: %v", name, o.Err)
}

func sentenceSame(name, other string) string { return name + " is another name of " + other }

func sentenceDrained(name string) string {
	return name + " has been taken out of service by an operator"
}

func sentenceStandby(name string) string { return name + " is a standby" }

func sentenceReadOnly(name string) string {
	return name + " has writes switched off (default_transaction_read_only)"
}

func sentenceForeign(name string, has, want uint64) string {
	return fmt.Sprintf("%s belongs to another database cluster (system identifier %d, not %d)", name, has, want)
}

func sentenceTwoClusters(a, b string) string {
	return fmt.Sprintf("%s and %s are primaries of different database clusters, and it is not known which one is meant", a, b)
}

func sentenceOld(name string, has, seen uint32) string {
	return fmt.Sprintf("%s is an old primary: it is on timeline %d, and timeline %d has been seen", name, has, seen)
}

func sentenceEstranged(name string, has, seen uint32) string {
	return fmt.Sprintf("%s is on timeline %d, whose history does not go through timeline %d, which has been seen", name, has, seen)
}

func sentenceVetoed(name, leader string) string {
	if leader == "" {
		return name + " is writable, but the authority says that nobody leads"
	}
	return fmt.Sprintf("%s is writable, but the authority says that %s leads", name, leader)
}

func sentenceTwins(a, b string, timeline uint32) string {
	return fmt.Sprintf("%s and %s are both writable on timeline %d: transactions are held until only one of them is", a, b, timeline)
}

func sentenceSplit(old string, oldTimeline uint32, top string, topTimeline uint32) string {
	return fmt.Sprintf("%s is still writable on timeline %d, although %s was promoted to timeline %d: what is written to it directly is lost",
		old, oldTimeline, top, topTimeline)
}

func sentenceStale(name, serving string, timeline uint32, lost uint64) string {
	return fmt.Sprintf("%s was promoted to timeline %d without %d bytes of WAL that %s has, which still works: it is not used",
		name, timeline, lost, serving)
}

func sentenceLost(name, old string, lost uint64) string {
	return fmt.Sprintf("%s took over without at least %d bytes of WAL that %s had on its disk: transactions that were committed are lost",
		name, lost, old)
}

func sentenceTooMuch(name, old string, lost, allowed uint64) string {
	return fmt.Sprintf("%s was promoted without at least %d bytes of WAL that %s had on its disk, more than failover.max_lost_wal (%d): "+
		"transactions are held until an authority confirms it or a server that has them is promoted", name, lost, old, allowed)
}

// whyNone says why nobody is the primary: what became of the last one, if there was one.
func whyNone(k known, all []candidate, refusals []string) string {
	if len(all) == 0 {
		return "no server is known"
	}
	for i := range all {
		if all[i].Name == k.primary {
			return "there is no primary: " + refusals[i]
		}
	}
	if len(all) == 1 {
		return "there is no primary: " + refusals[0]
	}
	return fmt.Sprintf("none of %d servers is a primary: %s, ...", len(all), refusals[0])
}
