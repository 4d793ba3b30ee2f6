package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"pgsidecar/internal/admin"
	"pgsidecar/internal/config"
	"pgsidecar/internal/metrics"
)

func runCommand() command {
	return command{
		name: "run", summary: "Run the proxy; this is what pgsidecar does without a command.",
		usage: `
Runs the proxy until it is told to end.

  SIGTERM, SIGINT  let transactions end within drain.timeout, then end with exit code 0; a second one cuts them.
                   With lifecycle: classic new clients are still welcome for a while before.
  SIGHUP           reads the configuration again; what needs a restart is told and left as it is

With --takeover it succeeds a running proxy of the same configuration without a client noticing: it takes the listening
sockets over, and then each client between two of its transactions. takeover.socket says where the two meet. Clients that
cannot move (TLS, pinned sessions, pool mode session) stay with the other process, for drain.timeout at most before it
drains. If anything goes wrong the other process serves on. If there is none, this one just starts.

Every key of the configuration can be set by a variable as well, pool.max_connections by
PGSIDECAR_POOL_MAX_CONNECTIONS; variables come before the file. DATABASE_URL and MAX_CONNECTIONS are understood.
configs/reference.yaml lists all of them.

Examples:
  DATABASE_URL=postgres://app@db:5432/app pgsidecar
  pgsidecar run --config /etc/pgsidecar.yaml
  pgsidecar run --config /etc/pgsidecar.yaml --takeover`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			file := configFlag(flags)
			takeover := flags.Bool("takeover", false, "take over from the proxy that runs")
			detached := flags.Bool("detach", false, "with --takeover: start the new proxy as a process of its own, and return when it serves")
			ready := flags.Int("ready-fd", -1, "a descriptor `N` on which to tell that it serves, or its exit code; --detach uses it")
			return func(ctx context.Context, in invocation) error {
				if *detached && !*takeover {
					return &usageError{"--detach is for --takeover: whoever starts the first proxy waits for its end"}
				}
				if *detached {
					return detach(ctx, in, file(in))
				}
				how := launch{file: file(in), takeover: *takeover}
				if *ready >= 0 {
					how.ready = os.NewFile(uintptr(*ready), "ready")
				}
				err := runProxy(ctx, in, how)
				announceEnd(how.ready, err)
				return err
			}
		},
	}
}

// launch is how the proxy is started.
type launch struct {
	file     string   // The configuration; "" without.
	takeover bool     // Succeed the process that runs.
	ready    *os.File // Where it is told when it serves; nil: nowhere.
}

// runProxy runs the proxy and HTTP until they have ended.
func runProxy(ctx context.Context, in invocation, how launch) error {
	file := how.file
	c, _, err := config.Load(file, in.environ)
	if err != nil {
		return &configError{err}
	}
	log, level := newLog(in.stderr, c.Log)
	limitGarbage(in)
	limitMemory(ctx, in, c.Memory.Limit, log)
	if err := bindCPUs(c.CPUs); err != nil {
		return err
	}
	opened, err := in.open(c, log)
	if err != nil {
		return err
	}
	p := newProcess(opened, c, func() (config.Config, error) {
		c, _, err := config.Load(file, in.environ)
		return c, err
	}, systemd(in.getenv("NOTIFY_SOCKET")), log, level)
	passed, err := activation(in)
	if err != nil {
		return err
	}
	p.succession = newSuccession(p, c.Takeover.Socket, passed)
	p.ready = how.ready
	if how.takeover {
		if err := p.succession.join(ctx, c); err != nil {
			return err
		}
	}
	collector := metrics.NewCollector(opened.observed, p, build())
	handler, err := metrics.Handler(collector)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	http := admin.New(admin.Config{
		Listen: c.HTTP.Listen, Version: build().Version, About: p, Metrics: handler, Holder: opened.holder, Switcher: opened.switcher, Targets: opened.targets,
		PodTerminating: c.HTTP.PodTerminating, QuitQuitQuit: c.HTTP.QuitQuitQuit,
		ListenBy: p.succession.listenHTTP,
	}, opened.observed, p, log)
	if err := http.Listen(ctx); err != nil {
		p.succession.giveUp()
		return fmt.Errorf("%w; set http.listen to another address", err)
	}
	log.InfoContext(ctx, "starting", slog.String("version", build().Version), slog.String("config", c.Hash()),
		slog.String("upstream", c.Upstream.URL.String()), slog.String("http", strings.Join(c.HTTP.Listen, ",")))
	return p.run(ctx, http, in.signals)
}
