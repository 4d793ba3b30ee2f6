package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"pgsidecar/internal/metrics"
)

// version is set by the linker (-X main.version=...), which can set nothing but a variable; without it the one that Go knows
// is told. Nothing else writes it.
var version string

func versionCommand() command {
	return command{
		name: "version", summary: "Tell which build this is.",
		usage: "Tells the version, the commit and the Go release that this binary was built from.",
		flags: func(*flag.FlagSet) func(context.Context, invocation) error { return printVersion },
	}
}

func printVersion(_ context.Context, in invocation) error {
	b := build()
	fmt.Fprintf(in.stdout, "pgsidecar %s (commit %s, %s, %s/%s)\n", b.Version, b.Revision, b.GoVersion, runtime.GOOS, runtime.GOARCH)
	return nil
}

// build returns what is known about this binary.
func build() metrics.Build {
	b := metrics.Build{Version: version, Revision: "unknown", GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	if b.Version == "" {
		b.Version = info.Main.Version
	}
	if b.Version == "" || b.Version == "(devel)" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.Revision = s.Value
		}
	}
	return b
}
