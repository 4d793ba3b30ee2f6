// Release builds what is published into dist/: static binaries for each platform, their bills of materials, and checksums.
//
// It builds the commit, not the working tree, and it builds it twice: in two directories, the second time with an empty
// cache. Nothing is published unless both have the same bytes, so that anybody can check a release by building it.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := release(ctx, log, "dist"); err != nil {
		log.Error("no release", slog.Any("error", err))
		os.Exit(1) //nolint:forbidigo,gocritic // Only here; there is nothing left to defer.
	}
}

// platform is what one binary is built for.
type platform struct {
	arch  string // GOARCH.
	level string // GOAMD64; "" elsewhere.
}

// platforms are those that are published. v1 runs on every x86-64; v3 wants a processor of about 2013 or later.
func platforms() []platform {
	return []platform{{arch: "amd64", level: "v1"}, {arch: "amd64", level: "v3"}, {arch: "arm64"}}
}

// name is the file name of the platform's binary.
func (p platform) name(version string) string {
	return "pgsidecar_" + version + "_linux_" + p.arch + p.level
}

// release builds everything into the directory, which it empties first.
func release(ctx context.Context, log *slog.Logger, dist string) error {
	version, err := output(ctx, "git", "describe", "--tags", "--always")
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "pgsidecar-release-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer remove(log, work)
	// The second is a clone of the first: somebody may commit meanwhile.
	first, second := filepath.Join(work, "first"), filepath.Join(work, "second", "elsewhere")
	if err := buildAll(ctx, log, ".", first, version, nil); err != nil {
		return err
	}
	cache := filepath.Join(work, "cache")
	if err := buildAll(ctx, log, first, second, version, []string{"GOCACHE=" + cache}); err != nil {
		return err
	}
	if err := os.RemoveAll(dist); err != nil {
		return fmt.Errorf("empty directory: %w", err)
	}
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	for _, p := range platforms() {
		if err := publish(p.name(version), version, filepath.Join(first, "bin"), filepath.Join(second, "bin"), dist); err != nil {
			return err
		}
	}
	if err := writeSums(dist); err != nil {
		return err
	}
	log.InfoContext(ctx, "released", slog.String("version", version), slog.String("directory", dist))
	return nil
}

// remove removes what Go has made read-only, too.
func remove(log *slog.Logger, dir string) {
	if err := os.RemoveAll(dir); err != nil {
		log.Warn("directory left behind", slog.String("directory", dir), slog.Any("error", err))
	}
}

// buildAll clones a repository into dir and builds all platforms there, into bin.
func buildAll(ctx context.Context, log *slog.Logger, from, dir, version string, environ []string) error {
	if _, err := output(ctx, "git", "clone", "--quiet", from, dir); err != nil {
		return err
	}
	for _, p := range platforms() {
		log.InfoContext(ctx, "building", slog.String("binary", p.name(version)), slog.String("directory", dir))
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags", "-s -w -X main.version="+version,
			"-o", filepath.Join("bin", p.name(version)), "./cmd/pgsidecar")
		build.Dir = dir
		// Whatever the environment says about how to build would make another binary.
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOEXPERIMENT=", "GOOS=linux", "GOARCH="+p.arch, "GOAMD64="+p.level)
		build.Env = append(build.Env, environ...)
		if text, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", p.name(version), err, bytes.TrimSpace(text))
		}
	}
	return nil
}

// output runs a program and returns what it prints, without the line's end.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
		}
		return "", fmt.Errorf("run %s %s: %w", name, strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}

// publish puts a binary that is the same in both directories into dist, with its bill of materials.
func publish(name, version, first, second, dist string) error {
	binary, err := os.ReadFile(filepath.Join(first, name))
	if err != nil {
		return fmt.Errorf("read binary: %w", err)
	}
	again, err := os.ReadFile(filepath.Join(second, name))
	if err != nil {
		return fmt.Errorf("read binary: %w", err)
	}
	if !bytes.Equal(binary, again) {
		return fmt.Errorf("publish %s: the second build has other bytes (%s) than the first (%s)", name, sum(again), sum(binary))
	}
	if err := os.WriteFile(filepath.Join(dist, name), binary, 0o755); err != nil {
		return fmt.Errorf("write binary: %w", err)
	}
	bill, err := billOf(filepath.Join(dist, name), version)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dist, name+".cdx.json"), bill, 0o644); err != nil {
		return fmt.Errorf("write bill of materials: %w", err)
	}
	return nil
}

func sum(content []byte) string {
	hash := sha256.Sum256(content)
	return hex.EncodeToString(hash[:])
}

// writeSums writes SHA256SUMS of all files in the directory, in the form that sha256sum -c reads.
func writeSums(dist string) error {
	entries, err := os.ReadDir(dist)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	var lines strings.Builder
	for _, entry := range entries {
		content, err := os.ReadFile(filepath.Join(dist, entry.Name()))
		if err != nil {
			return fmt.Errorf("read file: %w", err)
		}
		fmt.Fprintf(&lines, "%s  %s\n", sum(content), entry.Name())
	}
	if err := os.WriteFile(filepath.Join(dist, "SHA256SUMS"), []byte(lines.String()), 0o644); err != nil {
		return fmt.Errorf("write checksums: %w", err)
	}
	return nil
}
