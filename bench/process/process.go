// Package process runs the programs that a benchmark compares and reads what the kernel accounts to them: CPU time, context
// switches, memory and system calls. Linux only.
//
// Every program started here dies with the benchmark and is ended by its own id.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgsidecar/internal/pgcluster"
)

// stopGrace is how long a process has to end after SIGTERM before it is killed.
const stopGrace = 5 * time.Second

// Process is a running program. Start starts it; Stop, or the end of the benchmark, ends it.
type Process struct {
	spawned *pgcluster.Process
	log     string
}

// Program says what to run.
type Program struct {
	Path string
	Args []string
	Env  []string // added to the benchmark's own environment, of which nothing that concerns PostgreSQL or a proxy is passed on
	Log  string   // file to which its output is appended
	// Account is the user to run it as; empty means our own. The account is entered before the program begins: a program that
	// changes it by itself loses the kernel's promise to end it when we die.
	Account string
}

// Start runs a program. Its life is not the context's: Stop ends it.
func Start(ctx context.Context, program Program) (*Process, error) {
	out, err := os.OpenFile(program.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = out.Close() }() // The program has its own descriptor.

	cmd := exec.CommandContext(context.WithoutCancel(ctx), program.Path, program.Args...)
	cmd.Env = append(slices.DeleteFunc(os.Environ(), concernsPostgreSQL), program.Env...)
	cmd.Stdout, cmd.Stderr = out, out
	// In a session of its own an interrupt at the terminal does not reach it: the benchmark ends it in its turn. And the kernel
	// shares the processors fairly among sessions first (sched_autogroup), as it does among the containers of a pod: a
	// contender should compete neither with its load nor with whoever runs the benchmark.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if program.Account != "" {
		if cmd.SysProcAttr.Credential, err = credential(program.Account); err != nil {
			return nil, err
		}
	}
	spawned, err := pgcluster.Spawn(cmd, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return &Process{spawned: spawned, log: program.Log}, nil
}

// concernsPostgreSQL tells whether a variable may change what libpq, pgbench or a proxy does: PGOPTIONS, PGSIDECAR_LOOPS ...
func concernsPostgreSQL(variable string) bool {
	return strings.HasPrefix(variable, "PG") || strings.HasPrefix(variable, "MAX_CONNECTIONS=")
}

func credential(name string) (*syscall.Credential, error) {
	account, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("look up account: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("parse user id: %w", err)
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("parse group id: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// PID is the id of the process.
func (p *Process) PID() int { return p.spawned.Pid() }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.spawned.Done() }

// Wait waits for the end of a program that ends by itself, and kills it when ctx ends first. A program that failed is
// described with the end of its log.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.Exited():
		if p.spawned.Err() == nil {
			return nil
		}
		return p.Failure()
	case <-ctx.Done():
		p.kill()
		return ctx.Err()
	}
}

// Failure describes a process that has ended though it should not have, with the end of its log. It is to be called after
// Exited has been closed.
func (p *Process) Failure() error {
	const tail = 2000
	log, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	text := strings.TrimSpace(string(log[max(0, len(log)-tail):]))
	status := p.spawned.Err()
	if status == nil {
		status = errors.New("exit status 0")
	}
	return fmt.Errorf("run program: %w; its log ends:\n%s", status, text)
}

// Signal sends a signal to the process; one that has ended is no error.
func (p *Process) Signal(sig syscall.Signal) error { return p.spawned.Signal(sig) }

// Stop asks the process to end, kills it when it has not done so in time, and waits until it has gone. The exit status of
// a stopped process is nobody's concern.
func (p *Process) Stop() {
	_ = p.spawned.Signal(syscall.SIGTERM)
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-p.Exited():
	case <-grace.C:
		p.kill()
	}
}

func (p *Process) kill() {
	_ = p.spawned.Signal(syscall.SIGKILL)
	<-p.Exited()
}
