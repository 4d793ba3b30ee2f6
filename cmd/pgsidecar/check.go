package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"

	"pgsidecar/internal/config"
)

func checkCommand() command {
	return command{
		name: "check", summary: "Check the configuration and print it.",
		usage: `
Reads the configuration as run would, with the same environment, and prints what is in effect: YAML with secrets
masked, each value that is not a default with the place it comes from. Files that it names (users, certificates) are
read as well. Nothing is started and nothing is dialled.

If there are faults, all of them are told, and the exit code is 2.

Examples:
  pgsidecar check --config /etc/pgsidecar.yaml
  kubectl exec deploy/app -c pgsidecar -- /pgsidecar check`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			file := configFlag(flags)
			return func(_ context.Context, in invocation) error { return check(in, file(in)) }
		},
	}
}

func check(in invocation, file string) error {
	c, origins, err := config.Load(file, in.environ)
	if err != nil {
		return &configError{err}
	}
	if _, err := wire(c, slog.New(slog.NewTextHandler(in.stderr, nil))); err != nil {
		return &configError{err}
	}
	_, err = fmt.Fprintf(in.stdout, "# The configuration in effect, %s; secrets are masked.\n%s", c.Hash(), config.Print(c, origins))
	if err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	return nil
}
