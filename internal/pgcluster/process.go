package pgcluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a child process that cannot outlive this one: the kernel signals it when this process ends for any reason.
// Spawn starts it, run alone waits for it, and its end closes Done.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // written by run before it closes done
}

// Spawn starts cmd, in a process group of its own, so that a Ctrl-C at the terminal reaches this process alone. When this process
// dies, the child gets the signal orphaned (SIGKILL when it is zero).
func Spawn(cmd *exec.Cmd, orphaned syscall.Signal) (*Process, error) {
	if orphaned == 0 {
		orphaned = syscall.SIGKILL
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid // The leader of a session leads a group too.
	cmd.SysProcAttr.Pdeathsig = orphaned
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// run starts the child and waits for it, on one thread that it keeps all the while: the kernel counts the end of the
// *thread* that forked as the death of the parent, and Go ends threads (those whose goroutine returned while locked to them).
func (p *Process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil for exit code 0. It is to be called after Done has been closed.
func (p *Process) Err() error { return p.err }

// Running tells whether the child has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends a signal to the child. A child that has already ended is no error.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal process: %w", err)
	}
	return nil
}
