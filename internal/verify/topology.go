package verify

import (
	"context"
	"slices"
	"strings"
	"time"

	"pgsidecar/internal/admin"
)

// servers checks what each proxy sees of its servers, within the time to wait: they answer, one is the primary, there is nothing
// to be alarmed about, and transactions are not held. A proxy whose URL asks for something else than the primary watches
// none.
func (r *Report) servers(ctx context.Context, all []seen, wait time.Duration) {
	limit := time.Now().Add(wait)
	for i := range all {
		address, s := all[i].proxy.Address(), all[i].status
		faults := faultsOf(&s)
		for len(faults) > 0 && time.Now().Before(limit) && pause(ctx, poll) {
			if now, err := all[i].proxy.Status(ctx); err == nil {
				s, faults = now, faultsOf(&now)
			}
		}
		switch {
		case len(faults) > 0:
			r.fail(CheckServers, address, "`pgsidecar status` shows the servers; docs/runbooks.md says what to do when the primary is lost", "%s", strings.Join(faults, "; "))
		case s.Topology != nil:
			r.pass(CheckServers, address, "%s", rolesOf(s.Topology.Targets))
		}
	}
}

func faultsOf(s *admin.Status) []string {
	var faults []string
	if s.Held != "" {
		faults = append(faults, "transactions are held: "+s.Held)
	}
	t := s.Topology
	if t == nil {
		return faults
	}
	if t.Why != "" && t.Why != s.Held {
		faults = append(faults, t.Why)
	}
	faults = append(faults, t.Alarms...)
	for i := range t.Targets {
		if one := &t.Targets[i]; one.Health != "ok" {
			faults = append(faults, one.Name+": "+one.Health)
		}
	}
	return faults
}

// rolesOf names the servers, the one that is used first.
func rolesOf(targets []admin.Target) string {
	said := make([]string, 0, len(targets))
	for i := range targets {
		text := targets[i].Role + " " + targets[i].Name
		if targets[i].Accepted {
			said = slices.Insert(said, 0, text)
		} else {
			said = append(said, text)
		}
	}
	return strings.Join(said, ", ")
}

// unknownSystem is what a proxy tells before a probe has been answered.
const unknownSystem = "0"

// watched returns where proxies lead by their own word, for those through which no transaction has told it.
func watched(all []seen, known []identity) []identity {
	var more []identity
	for i := range all {
		address, t := all[i].proxy.Address(), all[i].status.Topology
		if t == nil || t.SystemID == unknownSystem || slices.ContainsFunc(known, func(who identity) bool { return who.subject == address }) {
			continue
		}
		if slices.ContainsFunc(t.Targets, func(one admin.Target) bool { return one.Accepted }) {
			more = append(more, identity{subject: address, System: t.SystemID, Timeline: int64(t.Timeline)})
		}
	}
	return more
}
