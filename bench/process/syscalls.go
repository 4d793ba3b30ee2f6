package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SyscallCounter counts the system calls of a process by the kernel's tracepoint raw_syscalls:sys_enter, which perf(1) uses too.
// Unlike strace it does not stop the process at each call, so that batching stays as it is without it. It belongs to
// one goroutine, which closes it.
type SyscallCounter struct {
	fds []int // one event a thread that lived at the start; threads made later count with the thread that made them
}

// CountSyscalls begins to count. It needs root or CAP_PERFMON, and tracefs.
func CountSyscalls(pid int) (*SyscallCounter, error) {
	id, err := tracepointID("raw_syscalls/sys_enter")
	if err != nil {
		return nil, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return nil, fmt.Errorf("list threads: %w", err)
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
	attr.Size = uint32(unsafe.Sizeof(attr))
	c := &SyscallCounter{}
	for _, thread := range threads {
		tid, err := strconv.Atoi(filepath.Base(thread))
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("parse thread id: %w", err)
		}
		fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
		if errors.Is(err, unix.ESRCH) {
			continue // The thread has ended since it was listed.
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("open perf event: %w", err)
		}
		c.fds = append(c.fds, fd)
	}
	return c, nil
}

// tracepointID asks tracefs, wherever it is mounted, for the number of an event.
func tracepointID(event string) (uint64, error) {
	var errs error
	for _, root := range []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"} {
		text, err := os.ReadFile(filepath.Join(root, "events", event, "id"))
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("parse tracepoint id: %w", err)
		}
		return id, nil
	}
	return 0, fmt.Errorf("find tracepoint: %w", errs)
}

// Count returns the number of system calls since the counter was made.
func (c *SyscallCounter) Count() (uint64, error) {
	var sum uint64
	var value [8]byte
	for _, fd := range c.fds {
		if _, err := unix.Read(fd, value[:]); err != nil {
			return 0, fmt.Errorf("read perf event: %w", err)
		}
		sum += binary.NativeEndian.Uint64(value[:])
	}
	return sum, nil
}

// Close ends the counting.
func (c *SyscallCounter) Close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
	c.fds = nil
}
