package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// TestSuccession_detached_isWhatSystemdNeeds reloads as the unit does: a command that ends when the new process serves, and a new
// main process that systemd is told of.
func TestSuccession_detached_isWhatSystemdNeeds(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	notify := filepath.Join(t.TempDir(), "notify")
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: notify})
	require.NoError(t, err)
	defer told.Close()
	hear := func() string {
		require.NoError(t, told.SetReadDeadline(time.Now().Add(time.Minute)))
		buf := make([]byte, 100)
		n, err := told.Read(buf)
		require.NoError(t, err)
		return string(buf[:n])
	}
	p := newGeneration(t, cluster, "detached", "NOTIFY_SOCKET="+notify)
	require.Equal(t, "READY=1", hear())
	c, _ := p.raw()
	c.Query("set my.own = 'mine'")
	reload := func(environ ...string) (code int, stderr string) {
		file, err := os.CreateTemp(t.TempDir(), "stderr")
		require.NoError(t, err)
		defer file.Close()
		command := exec.Command(os.Args[0], "run", "--takeover", "--detach")
		command.Env, command.Stderr = append(append([]string(nil), p.cmd.Env...), environ...), file
		_ = command.Run() // The code says it.
		text, err := os.ReadFile(file.Name())
		require.NoError(t, err)
		return command.ProcessState.ExitCode(), string(text)
	}

	code, stderr := reload("PGSIDECAR_POOL_MAX_CONNECTIONS=none")
	require.Equal(t, exitUsage, code)
	require.Contains(t, stderr, "PGSIDECAR_POOL_MAX_CONNECTIONS")
	require.Equal(t, "serving", p.phase())

	code, stderr = reload()
	require.Equal(t, exitOK, code, stderr)
	mainPID, found := strings.CutPrefix(hear(), "MAINPID=")
	require.True(t, found)
	require.Equal(t, "READY=1", hear())
	pid, err := strconv.Atoi(mainPID)
	require.NoError(t, err)
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGKILL) })
	status, err := os.ReadFile("/proc/" + mainPID + "/status")
	require.NoError(t, err)
	require.Contains(t, string(status), "\nPPid:\t"+strconv.Itoa(os.Getpid())+"\n", "it is the child of whoever has asked for the reload")
	<-p.exited
	require.Zero(t, p.cmd.ProcessState.ExitCode())
	require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
	require.NoError(t, syscall.Kill(pid, syscall.SIGTERM))
	c.Expect("E 57P01")
	require.Equal(t, "STOPPING=1", hear())
	c.ExpectEnd()
}
