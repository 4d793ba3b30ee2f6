// Package process starts the programs that a benchmark compares and reads what the kernel accounts to them: CPU time, context
// switches, memory and system calls. It knows nothing of PostgreSQL. Linux only. Every process started here dies with
// the benchmark and is ended by its own id.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// stopGrace is how long a process has to end after SIGTERM before it is killed.
const stopGrace = 5 * time.Second

// Command prepares a program that ends when ctx does and when the benchmark dies. It gets a process group of its own, so that
// an interrupt at the terminal reaches only the benchmark, which then ends its processes in order.
//
// The kernel ties Pdeathsig to the thread that forked. Go ends a thread only when a goroutine that has locked it returns,
// which nothing in the benchmark does.
func Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.WaitDelay = stopGrace
	return cmd
}

// Process is a running server program. Start starts it, Stop ends it; the goroutine wait reaps it and ends with it.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed by wait once the process has been reaped
	err  error         // written by wait before done is closed
}

// Start runs a program whose output goes to the file log, with env added to the benchmark's own environment.
func Start(log string, env []string, path string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer out.Close()

	// The process outlives any one context of the benchmark: Stop ends it.
	cmd := Command(context.Background(), path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &Process{cmd: cmd, log: log, done: make(chan struct{})}
	go p.wait()
	return p, nil
}

func (p *Process) wait() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// PID returns the id of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Failure describes a process that has ended by itself, with the end of its log. It may be called after Exited is closed.
func (p *Process) Failure() error {
	const tail = 2000
	log, err := os.ReadFile(p.log)
	if err != nil {
		return errors.Join(p.err, fmt.Errorf("read log: %w", err))
	}
	if len(log) > tail {
		log = log[len(log)-tail:]
	}
	return fmt.Errorf("%s ended (%w), its log says:\n%s", p.cmd.Path, exitError(p.err), log)
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// Stop asks the process to end, kills it when it has not done so in time, and waits until it has gone. The exit status of
// a stopped process is nobody's concern.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.done:
	case <-grace.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
