package main

import (
	"context"
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
//
// The successor is a child of whoever runs this command, not of the command: systemd waits for the end of a main process, at
// a stop, only if that was its own child when it was named.
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
	successor.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_PARENT}
	err = successor.Start()
	_ = tell.Close()
	if err != nil {
		return fmt.Errorf("start successor: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.Close() })
	defer stop()
	switch code, _ := io.ReadAll(ready); {
	case len(code) == 0: // It was killed.
		return &exitError{exitFailure}
	case code[0] != exitOK:
		return &exitError{int(code[0])}
	}
	return successor.Process.Release()
}

// announce tells whoever has started the process that it serves; ready is nil if nobody has asked for that.
func announce(ready *os.File, log *slog.Logger) {
	if ready == nil {
		return
	}
	defer func() { _ = ready.Close() }()
	if _, err := ready.Write([]byte{exitOK}); err != nil {
		log.Warn("whoever has started this process is not told that it serves", slog.Any("error", err))
	}
}

// announceEnd tells the exit code of a process that has not come to serve. Its end closes ready, when it has said why. After
// announce it does nothing.
func announceEnd(ready *os.File, err error) {
	if ready != nil && err != nil {
		_, _ = ready.Write([]byte{byte(codeOf(err))})
	}
}
