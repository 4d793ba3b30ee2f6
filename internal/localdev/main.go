// Command localdev is what `make run` runs: it starts a throwaway PostgreSQL primary and a streaming standby, and pgsidecar in
// front of them, until it is told to stop. With DATABASE_URL set it starts pgsidecar alone, in front of that server.
//
// The invariant: however it ends, nothing that it started goes on, and after an orderly end no file of it is left.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A make that is killed cannot tell us; the kernel can.
	err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0)
	if err == nil {
		err = run(ctx, config{dir: ".local/run", proxy: "bin/pgsidecar", environ: os.Environ(), out: os.Stdout})
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "make run:", err)
		os.Exit(1) //nolint:forbidigo // Only here.
	}
}

// config is what differs between `make run` and a test of it.
type config struct {
	dir     string   // everything is written below it; beside it is a lock
	proxy   string   // path of pgsidecar
	environ []string // pgsidecar gets it, as a container would; DATABASE_URL in it is what to front
	out     io.Writer
}

// run starts everything, and ends everything when ctx ends or pgsidecar does.
func run(ctx context.Context, cfg config) error {
	e, err := newEnvironment(cfg)
	if err != nil {
		return err
	}
	defer e.close()
	err = e.run(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil // It was told to stop; what that interrupted is no fault.
	}
	return err
}
