package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Usage is what the kernel has accounted to a process since it started.
type Usage struct {
	User, System time.Duration // CPU time of all its threads, those that have ended included
	Switches     uint64        // context switches, voluntary or not, of the threads that live
}

// CPU returns the sum of both kinds of CPU time.
func (u Usage) CPU() time.Duration { return u.User + u.System }

// ReadUsage reads the accounting of a process.
func ReadUsage(pid int) (Usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("read usage: %w", err)
	}
	usage, err := parseStat(stat)
	if err != nil {
		return Usage{}, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		return Usage{}, fmt.Errorf("list threads: %w", err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil {
			continue // The thread has ended since it was listed.
		}
		for _, key := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
			n, err := parseField(status, key)
			if err != nil {
				return Usage{}, err
			}
			usage.Switches += n
		}
	}
	return usage, nil
}

// parseStat reads utime and stime, fields 14 and 15 of /proc/PID/stat (proc_pid_stat(5)). The second field is the program's
// name in parentheses and may hold anything, so fields are counted from the last parenthesis.
func parseStat(stat []byte) (Usage, error) {
	_, rest, _ := bytes.Cut(stat[max(bytes.LastIndexByte(stat, ')'), 0):], []byte(" "))
	const first = 3 // the number of the first field in rest
	fields := bytes.Fields(rest)
	if len(fields) <= 15-first {
		return Usage{}, errors.New("parse stat: too few fields")
	}
	user, err := strconv.ParseInt(string(fields[14-first]), 10, 64)
	if err != nil {
		return Usage{}, fmt.Errorf("parse utime: %w", err)
	}
	system, err := strconv.ParseInt(string(fields[15-first]), 10, 64)
	if err != nil {
		return Usage{}, fmt.Errorf("parse stime: %w", err)
	}
	return Usage{User: time.Duration(user) * tick, System: time.Duration(system) * tick}, nil
}

// ReadMemory returns the process's proportional set size in bytes: pages that it shares with other processes count in part.
// What the kernel holds for its sockets is not in it.
func ReadMemory(pid int) (uint64, error) {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	kib, err := parseField(rollup, "Pss")
	return kib << 10, err
}

// parseField finds the number on the line "key: number" of a file of /proc.
func parseField(file []byte, key string) (uint64, error) {
	for line := range bytes.Lines(file) {
		name, value, found := bytes.Cut(line, []byte(":"))
		if !found || string(name) != key {
			continue
		}
		number, _, _ := bytes.Cut(bytes.TrimSpace(value), []byte(" "))
		n, err := strconv.ParseUint(string(number), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse %s: %w", key, err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("find %s: no such line", key)
}
