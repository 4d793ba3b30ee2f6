// Pgsidecar is a sidecar proxy for PostgreSQL. This package is its command line: flags, wiring and exit codes. What the
// proxy does is in the packages below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8) // Room for a few, so that none is lost while one is being seen to.
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	code := run(context.Background(), invocation{
		args: os.Args[1:], environ: os.Environ(), stdout: os.Stdout, stderr: os.Stderr, signals: signals, open: openProxy,
	})
	os.Exit(code) //nolint:forbidigo // Only here.
}
