package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// readyDescriptor is where a process that was started by detach tells that it serves: the first of exec.Cmd.ExtraFiles.
const readyDescriptor = 3

// exitError is the exit code of a process that was started by this one, which has said why itself.
type exitError struct{ code int }

func (e *exitError) Error() string {
	return "the new process has ended with exit code " + strconv.Itoa(e.code)
}

// detach starts the successor as a process of its own, and returns when that serves or has failed. It is for those who ask by a
// command that has to end, as systemd does.
func detach(ctx context.Context, in invocation, file string) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start successor: %w", err)
	}
	defer func() { _ = ready.Close() }()
	args := []string{"run", "--takeover", "--ready-fd", strconv.Itoa(readyDescriptor)}
	if file != "" {
		args = append(args, "--config", file)
	}
	successor := exec.Command(program, args...) //nolint:noctx,gosec // It outlives this process, and is the same program.
	successor.Env, successor.ExtraFiles = in.environ, []*os.File{tell}
	successor.Stdout, successor.Stderr = os.Stdout, os.Stderr
	successor.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = successor.Start()
	_ = tell.Close()
	if err != nil {
		return fmt.Errorf("start successor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.Close() })
	defer stop()
	if _, err := io.ReadFull(ready, make([]byte, 1)); err == nil {
		return successor.Process.Release()
	}
	err = successor.Wait() // It has closed the pipe by its end.
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return &exitError{e.ExitCode()}
	}
	return fmt.Errorf("the new process has not come up: %w", err)
}

// announce tells whoever has started the process that it serves; fd is negative if nobody has asked for that.
func announce(fd int, log *slog.Logger) {
	if fd < 0 {
		return
	}
	file := os.NewFile(uintptr(fd), "ready")
	if file == nil {
		return
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Write([]byte{'\n'}); err != nil {
		log.Warn("whoever has started this process is not told that it serves", slog.Any("error", err))
	}
}
