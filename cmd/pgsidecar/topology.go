package main

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"pgsidecar/internal/admin"
)

// printTopology shows the servers to people, and what they have to do about them.
func printTopology(w io.Writer, t *admin.Topology) {
	if t == nil {
		return
	}
	for _, alarm := range t.Alarms {
		fmt.Fprintf(w, "ATTENTION: %s\n", printable(alarm))
	}
	if len(t.Targets) == 0 {
		return
	}
	fmt.Fprintln(w)
	rows := [][]string{{"SERVER", "ROLE", "HEALTH", "TIMELINE", "LSN", "LAG", "READ FROM", "NOT THE PRIMARY BECAUSE"}}
	for _, o := range t.Targets {
		lag := "-"
		if o.Role == "standby" {
			lag = fmt.Sprintf("%d B, %.1f s", o.LagBytes, o.LagTime)
		}
		read := "-"
		switch {
		case o.Behind != "":
			read = "no: " + o.Behind
		case o.Readable:
			read = "yes"
		}
		rows = append(rows, []string{
			printable(o.Name), o.Role, o.Health, strconv.FormatUint(uint64(o.Timeline), 10), o.LSN, lag, printable(read), printable(o.Refusal),
		})
	}
	printTable(w, rows)
	for _, s := range t.Switches {
		fmt.Fprintf(w, "%s: %s took over from %s on timeline %d after %.3f s without a primary, %d bytes of WAL known to be lost\n",
			s.At.UTC().Format(time.RFC3339), printable(s.To), printable(s.From), s.Timeline, s.Took, s.Lost)
	}
}
