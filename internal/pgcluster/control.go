package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// StopMode is a way to stop a server, in pg_ctl's words.
type StopMode int

// The ways to stop a server.
const (
	// Fast disconnects the clients and shuts down cleanly.
	Fast StopMode = iota
	// Smart waits until the clients have gone; new ones are refused meanwhile.
	Smart
	// Immediate ends without a checkpoint; the next start recovers.
	Immediate
)

// pollInterval is how often states that PostgreSQL only publishes in files or catalogues are looked at.
const pollInterval = 10 * time.Millisecond

// Start starts the server and waits until it accepts connections (read-only ones on a standby).
func (c *Cluster) Start(ctx context.Context) error {
	if c.Running() {
		return errors.New("start PostgreSQL: it is running")
	}
	program, err := c.cfg.Installation.Program("postgres")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = log.Close() }() // The server has its own descriptor.
	// Its life is not the context's: Stop, Kill or our own end ends it.
	cmd := c.owner.command(context.WithoutCancel(ctx), c.cfg.Dir, program, "-D", c.DataDir())
	cmd.Stdout, cmd.Stderr = log, log
	// SIGQUIT is the immediate shutdown: the postmaster takes its children with it.
	c.process, err = Spawn(cmd, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	if err := c.awaitReady(ctx); err != nil {
		return errors.Join(fmt.Errorf("start PostgreSQL %d: %w: %s", c.Major(), err, c.LogTail(20)), c.Kill())
	}
	return nil
}

// awaitReady waits for the status line of postmaster.pid, as pg_ctl does.
func (c *Cluster) awaitReady(ctx context.Context) error {
	return poll(ctx, func() (bool, error) {
		if !c.Running() {
			return false, fmt.Errorf("it ended: %w", c.process.Err())
		}
		content, err := os.ReadFile(filepath.Join(c.DataDir(), "postmaster.pid"))
		if err != nil {
			return false, ignoreVanished(err)
		}
		lines := strings.Split(string(content), "\n")
		if len(lines) < 8 || strings.TrimSpace(lines[0]) != strconv.Itoa(c.process.Pid()) {
			return false, nil // Not written yet, or the file of a server that was killed.
		}
		status := strings.TrimSpace(lines[7])
		return status == "ready", nil
	})
}

// Running tells whether the server's postmaster lives.
func (c *Cluster) Running() bool { return c.process != nil && c.process.Running() }

// Stop stops the server and waits for its end. If ctx ends first, the server is killed and ctx's error returned.
func (c *Cluster) Stop(ctx context.Context, mode StopMode) error {
	if !c.Running() {
		return nil
	}
	sig := map[StopMode]syscall.Signal{Fast: syscall.SIGINT, Smart: syscall.SIGTERM, Immediate: syscall.SIGQUIT}[mode]
	if err := c.process.Signal(sig); err != nil {
		return err
	}
	select {
	case <-c.process.Done():
		return nil
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("stop PostgreSQL: %w", ctx.Err()), c.Kill())
	}
}

// Restart stops the server in fast mode and starts it again, on the same port.
func (c *Cluster) Restart(ctx context.Context) error {
	if err := c.Stop(ctx, Fast); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Kill ends every process of the server with SIGKILL, as if the machine had failed, and waits until they have gone.
func (c *Cluster) Kill() error {
	if !c.Running() {
		return nil
	}
	// A stopped postmaster starts no new children while the others are being killed.
	if err := c.process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(c.process.Pid())
	if err != nil {
		return err
	}
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL) // It may just have ended.
	}
	if err := c.process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-c.process.Done()
	return awaitEnd(children)
}

// awaitEnd waits until none of some killed processes is left: they hold the shared memory that a restart wants.
func awaitEnd(pids []int) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for slices.ContainsFunc(pids, alive) {
		select {
		case <-ticker.C:
		case <-limit.C:
			return errors.New("kill PostgreSQL: a process is still there 10 s after SIGKILL")
		}
	}
	return nil
}

// Freeze stops every process of the server, as a machine that hangs: connections stay open, and nothing answers. If this
// process is killed meanwhile the frozen processes stay; Close and Kill end them.
func (c *Cluster) Freeze() error { return c.signalAll(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (c *Cluster) Thaw() error { return c.signalAll(syscall.SIGCONT) }

// signalAll signals the postmaster, first, and then all its children.
func (c *Cluster) signalAll(sig syscall.Signal) error {
	if !c.Running() {
		return errors.New("signal PostgreSQL: it is not running")
	}
	if err := c.process.Signal(sig); err != nil {
		return err
	}
	children, err := childrenOf(c.process.Pid())
	if err != nil {
		return err
	}
	for _, pid := range children {
		_ = syscall.Kill(pid, sig) // It may just have ended.
	}
	return nil
}

// Reload makes the server read its configuration files again.
func (c *Cluster) Reload() error {
	if !c.Running() {
		return errors.New("reload PostgreSQL: it is not running")
	}
	return c.process.Signal(syscall.SIGHUP)
}

// LogTail is the last n lines of the server's log, or why it could not be read.
func (c *Cluster) LogTail(n int) string {
	content, err := os.ReadFile(c.LogFile())
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var children []int
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := processState(child); ok && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// alive tells whether a process exists and is no zombie.
func alive(pid int) bool {
	state, _, ok := processState(pid)
	return ok && state != "Z" && state != "X"
}

// processState reads the state letter and the parent of a process from /proc/<pid>/stat. The fields follow the command's name,
// which stands in parentheses and may itself hold any character.
func processState(pid int) (state string, parent int, ok bool) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(content[bytes.LastIndexByte(content, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// poll calls check until it answers true or an error, or until ctx ends.
func poll(ctx context.Context, check func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		if done, err := check(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}
