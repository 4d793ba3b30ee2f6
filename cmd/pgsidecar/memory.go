package main

import (
	"context"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is the part of the container's memory that Go may fill before it collects garbage at any price. The rest
// is for stacks of the kernel, buffers and what grows between two collections.
const memoryShare = 0.85

// garbageShare is how much garbage there may be before it is collected, in percent of what is in use. What carries traffic
// makes none, so that little is saved by Go's own 100, which would double what an idle client costs.
const garbageShare = 25

// limitGarbage makes Go collect garbage early, unless GOGC says something.
func limitGarbage(in invocation) {
	if in.getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}

// limitMemory tells Go the memory limit: the one that is configured, else, unless GOMEMLIMIT says something, that of the
// container, which Go does not look for itself. Without it a sidecar with a small limit is killed while it has garbage to
// collect.
func limitMemory(ctx context.Context, in invocation, limit int64, log *slog.Logger) {
	if limit == 0 {
		if in.getenv("GOMEMLIMIT") != "" {
			return
		}
		container, ok := cgroupMemory(os.DirFS("/"))
		if !ok {
			return
		}
		limit = int64(float64(container) * memoryShare)
	}
	debug.SetMemoryLimit(limit)
	log.DebugContext(ctx, "memory limited", slog.Int64("bytes", limit))
}

// cgroupMemory returns the least memory limit in bytes of this process' control group and those above it, if there is
// any. Both versions of control groups are understood; root is the file system.
func cgroupMemory(root fs.FS) (int64, bool) {
	groups, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	least := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		// Each line is id:controllers:path; version 2 has one, with id 0 and no controllers.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		switch {
		case fields[0] == "0" && fields[1] == "":
			least = min(least, leastLimit(root, "sys/fs/cgroup", fields[2], "memory.max"))
		case strings.Contains(","+fields[1]+",", ",memory,"):
			least = min(least, leastLimit(root, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"))
		}
	}
	const unlimited = 1 << 60 // Version 1 writes a huge number where there is no limit.
	return least, least < unlimited
}

// leastLimit returns the least number in the files called name from the group up to the mount. Within a container the
// group's path may be one of the host's, which is not there; the mount is then the container's own.
func leastLimit(root fs.FS, mount, group, name string) int64 {
	least := int64(math.MaxInt64)
	for dir := path.Join("/", group); ; dir = path.Dir(dir) {
		text, err := fs.ReadFile(root, path.Join(mount, dir, name))
		if err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
				least = min(least, n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}
