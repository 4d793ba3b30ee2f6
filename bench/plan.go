package main

import (
	"context"
	"fmt"
	"strconv"

	"pgsidecar/bench/contender"
	"pgsidecar/bench/load"
	"pgsidecar/bench/report"
)

// The contenders.
const (
	direct         = "direct"
	pgbouncer      = "pgbouncer"
	pgsidecar      = "pgsidecar"
	pgsidecarLoops = "pgsidecar-2-loops"
)

// runnable is a load of package load.
type runnable interface {
	Run(ctx context.Context, r load.Runner, target *contender.Contender) (load.Sample, error)
}

// entry is one load of the plan.
type entry struct {
	name, title string
	load        runnable
	contenders  []string // in the order of a round
	base        string   // what pgsidecar, the last contender, is compared with
	goals       []report.Goal
	restarts    bool // it measures fresh processes, and no work whose system calls could be counted
}

// plan lists all loads. Goals are those that the project has set itself against PgBouncer in the same rounds, at 32 and 1,000
// clients; one client alone measures the round trip, of which a proxy is a small part. The loads for which memory is
// measured come last, since they restart the proxies.
func plan(idleClients int) []entry {
	all := []string{direct, pgbouncer, pgsidecar}
	proxies := []string{pgbouncer, pgsidecar}
	var entries []entry
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for _, clients := range []int{1, 32, 1000} {
			entries = append(entries, entry{
				name:       fmt.Sprintf("%s-%d", protocol, clients),
				title:      fmt.Sprintf("%s protocol, %s", protocol, plural(clients)),
				load:       load.Pgbench{Protocol: protocol, Clients: clients},
				contenders: all, base: pgbouncer, goals: transactionGoals(protocol, clients),
			})
		}
	}
	for _, protocol := range []string{"simple", "prepared"} {
		entries = append(entries,
			entry{
				name: "tls-" + protocol, title: protocol + " protocol over client TLS, 32 clients",
				load:       load.Pgbench{Protocol: protocol, Clients: 32, TLS: true},
				contenders: all, base: pgbouncer,
			},
			entry{
				name: "loops-" + protocol, title: protocol + " protocol, 32 clients, two loops on one pool",
				load:       load.Pgbench{Protocol: protocol, Clients: 32},
				contenders: []string{pgsidecar, pgsidecarLoops}, base: pgsidecar,
				// Without loss, but for the noise of two runs of the same program.
				goals: []report.Goal{{Metric: load.TPS, Ratio: true, AtLeast: true, Limit: 0.95}},
			})
	}
	for _, settings := range []struct {
		name, title string
		sets        int
	}{
		{"settings-none", "32 clients that set nothing", 0},
		{"settings-same", "32 clients that have all set the same four settings", 1},
		{"settings-four", "32 clients that have set four different sets of settings", 4},
	} {
		entries = append(entries, entry{
			name: settings.name, title: settings.title,
			load:       load.Settings{Clients: 32, Sets: settings.sets},
			contenders: []string{direct, pgsidecar}, base: direct, // PgBouncer would not keep them apart
		})
	}
	return append(entries,
		entry{
			name: "connect", title: "a connection for each transaction, 8 clients",
			load:       load.Pgbench{Protocol: "simple", Clients: 8, Reconnect: true},
			contenders: all, base: pgbouncer,
		},
		entry{
			name: "result", title: "100 MB result, rows of 1,000 bytes",
			load: load.Result{RowBytes: 1000}, contenders: all, base: pgbouncer,
		},
		entry{
			name: "result-small-rows", title: "100 MB result, rows of 100 bytes",
			load: load.Result{RowBytes: 100}, contenders: all, base: pgbouncer,
		},
		entry{
			name: "copy-in", title: "100 MB of COPY in, rows of 1,000 bytes",
			load: load.CopyIn{RowBytes: 1000}, contenders: all, base: pgbouncer,
		},
		entry{
			name: "idle", title: plural(idleClients) + ", idle after one query each",
			load: load.Idle{Clients: idleClients}, contenders: proxies, base: pgbouncer,
			goals: []report.Goal{{Metric: load.Memory, Limit: 700}}, restarts: true,
		},
		entry{
			name: "idle-tls", title: plural(idleClients) + " over TLS, idle after one query each",
			load: load.Idle{Clients: idleClients, TLS: true}, contenders: proxies, base: pgbouncer,
			restarts: true,
		},
		entry{
			name: "listeners", title: "1000 clients, idle after LISTEN",
			load:       load.Idle{Clients: 1000, Listen: true},
			contenders: []string{pgsidecar}, base: pgsidecar, // the others need a server connection for each
			restarts: true,
		},
	)
}

func plural(clients int) string {
	if clients == 1 {
		return "1 client"
	}
	return strconv.Itoa(clients) + " clients"
}

// transactionGoals are the goals of the select-only loads.
func transactionGoals(protocol string, clients int) []report.Goal {
	// An allocation for each message would be at least one for each transaction; what the process allocates in the background,
	// whatever the load, stays below this.
	goals := []report.Goal{{Metric: load.Mallocs, Limit: 0.1}}
	if clients == 1 {
		return goals
	}
	cpu := map[string]float64{"simple": 0.9, "prepared": 0.7, "extended": 1.0}[protocol]
	goals = append(goals,
		report.Goal{Metric: load.TPS, Ratio: true, AtLeast: true, Limit: 1.15},
		report.Goal{Metric: load.P99, Ratio: true, Limit: 0.8},
		report.Goal{Metric: load.CPU, Ratio: true, Limit: cpu})
	if clients == 32 {
		goals = append(goals, report.Goal{Metric: load.Syscalls, Limit: 4.5})
	}
	return goals
}
