package compat_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// programTimeout bounds a program. Its situations are bounded by itself.
const programTimeout = 5 * time.Minute

// runProgram runs a program of another language, in the directory of these tests, and returns what it printed.
func runProgram(t *testing.T, at target, situations, env []string, name string, args ...string) []step {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), programTimeout)
	defer cancel()
	list, err := json.Marshal(situations)
	require.NoError(t, err)
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(append(os.Environ(), env...), at.environ()...)
	cmd.Env = append(cmd.Env, "COMPAT_SITUATIONS="+string(list))
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	steps, bad := readSteps(&out)
	if err != nil || bad != nil {
		t.Errorf("%s %v: %v, %v\n%s", name, args, err, bad, complaints.String())
	}
	return steps
}

// succeeds tells whether a command can be run.
func succeeds(t *testing.T, name string, args ...string) bool {
	t.Helper()
	return exec.CommandContext(t.Context(), name, args...).Run() == nil
}
