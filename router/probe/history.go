package probe

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// history reads where the timelines before this one ended, by whatever way the role is permitted; nil if there is none.
func (c *connection) history(ctx context.Context, timeline uint32) []TimelineSwitch {
	l := c.link
	if l.server.mayReadFiles {
		a := l.ask(ctx, fmt.Sprintf("SELECT pg_catalog.pg_read_file('pg_wal/%08X.history', 0, %d, true)", timeline, allowance/4))
		if a.err == nil && len(a.results) == 1 && len(a.results[0]) == 1 {
			return parseHistory(a.results[0][0][0])
		}
		if a.err != nil && !isError(a.err) {
			return nil // The link is broken, which the next probe finds.
		}
	}
	if !l.server.mayReplicate {
		return nil
	}
	return c.historyByReplication(ctx, timeline)
}

// historyByReplication asks over a connection of its own, as the command exists on a replication connection only.
func (c *connection) historyByReplication(ctx context.Context, timeline uint32) []TimelineSwitch {
	l, err := c.config.open(ctx, map[string]string{"replication": "true"})
	if err != nil {
		return nil
	}
	a := l.ask(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", timeline))
	l.close(a.err == nil)
	if a.err != nil || len(a.results) != 1 || len(a.results[0]) != 1 || len(a.results[0][0]) != 2 {
		return nil
	}
	content := a.results[0][0][1]
	if bytes, err := hex.DecodeString(strings.TrimPrefix(content, `\x`)); err == nil && strings.HasPrefix(content, `\x`) {
		content = string(bytes)
	}
	return parseHistory(content)
}

// parseHistory reads a timeline history file: a line for each timeline that ended, with its number and the position. A file that
// is not like that tells nothing.
func parseHistory(content string) []TimelineSwitch {
	var switches []TimelineSwitch
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil
		}
		timeline, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil
		}
		at, err := ParseLSN(fields[1])
		if err != nil {
			return nil
		}
		switches = append(switches, TimelineSwitch{Timeline: uint32(timeline), At: at})
	}
	return switches
}
