package verify

import (
	"context"
	"errors"
	"os/exec"
	"strings"
)

// refusedConfig is the exit code of `pgsidecar check` for a configuration with faults.
const refusedConfig = 2

// Binary checks that a binary, the one to roll back to, accepts a configuration: the file, or with "" what the environment
// says.
func Binary(ctx context.Context, binary, file string, environ []string, report *Report) {
	args := []string{"check"}
	if file != "" {
		args = append(args, "--config", file)
	}
	check := exec.CommandContext(ctx, binary, args...)
	check.Env = environ
	var faults strings.Builder
	check.Stderr = &faults
	err := check.Run()
	exit, ended := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		report.pass(CheckBinary, binary, "accepts the configuration")
	case ended && exit.ExitCode() == refusedConfig:
		report.fail(CheckBinary, binary, "take the keys that it does not know out of the configuration before you roll back", "%s",
			oneLine(errors.New(faults.String())))
	default:
		report.unknown(CheckBinary, binary, "name a pgsidecar that runs on this machine", "%v", err)
	}
}
