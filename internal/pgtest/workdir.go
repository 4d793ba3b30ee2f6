package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// workDirPrefix begins the name of every test binary's directory.
const workDirPrefix = "pgs-"

// work is the directory of this test binary, below which its clusters write everything: made on first use, removed by Main.
//
//nolint:gochecknoglobals // One directory a process.
var work struct {
	mu  sync.Mutex
	dir string
}

// workDir is the directory of this test binary.
func workDir() (string, error) {
	work.mu.Lock()
	defer work.mu.Unlock()
	if work.dir != "" {
		return work.dir, nil
	}
	parent := os.TempDir()
	if len(parent) > 30 {
		parent = "/tmp" // Paths of unix sockets must stay below 108 bytes.
	}
	removeAbandoned(parent)
	dir, err := makeWorkDir(parent)
	if err != nil {
		return "", err
	}
	work.dir = dir
	return dir, nil
}

// makeWorkDir makes a directory with a lock that lasts as long as the process and marks it as in use. It gets its name when it
// is locked, so that no other process takes it for an abandoned one.
func makeWorkDir(parent string) (string, error) {
	unnamed, err := os.MkdirTemp(parent, "new-"+workDirPrefix)
	if err != nil {
		return "", fmt.Errorf("make work directory: %w", err)
	}
	// The servers may run under another account, which has to pass.
	if err := os.Chmod(unnamed, 0o755); err != nil {
		return "", fmt.Errorf("open work directory: %w", err)
	}
	if !lock(unnamed) {
		return "", fmt.Errorf("lock work directory %s", unnamed)
	}
	dir := filepath.Join(parent, strings.TrimPrefix(filepath.Base(unnamed), "new-"))
	if err := os.Rename(unnamed, dir); err != nil {
		return "", fmt.Errorf("name work directory: %w", err)
	}
	return dir, nil
}

// removeWorkDir removes the directory if it was ever made.
func removeWorkDir() error {
	work.mu.Lock()
	defer work.mu.Unlock()
	if work.dir == "" {
		return nil
	}
	dir := work.dir
	work.dir = ""
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove work directory: %w", err)
	}
	return nil
}

// removeAbandoned removes the work directories whose test binaries have ended without doing so.
func removeAbandoned(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, workDirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil && lock(dir) {
			_ = os.RemoveAll(dir) // Another account's; not ours to remove.
		}
	}
}

// lock takes the lock of a work directory, for the rest of the process's life, unless another process holds it.
func lock(dir string) bool {
	fd, err := unix.Open(filepath.Join(dir, "lock"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return false
	}
	return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil
}

// newDir is a path for a cluster that does not exist yet.
func newDir() (string, error) {
	parent, err := workDir()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, "c")
	if err != nil {
		return "", fmt.Errorf("make cluster directory: %w", err)
	}
	return dir, os.Remove(dir) // The cluster makes it, with the owner that it needs.
}

// templateDir is where data directories to copy from are kept between runs: in the module's .local if there is a module.
func templateDir() string {
	if root := moduleRoot(); root != "" {
		return filepath.Join(root, ".local", "templates")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("pgsidecar-templates-%d", os.Geteuid()))
}
