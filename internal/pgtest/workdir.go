package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// workDirPrefix begins the name of every test binary's directory.
const workDirPrefix = "pgs-"

// workDir makes, once, the directory of this test binary: everything its clusters write is below it. A lock that lasts
// as long as the process marks it as in use; the directories of binaries that were killed are removed on the way.
//
//nolint:gochecknoglobals // One directory a process; made on first use.
var workDir = sync.OnceValues(func() (string, error) {
	parent := os.TempDir()
	if len(parent) > 30 {
		parent = "/tmp" // Paths of unix sockets must stay below 108 bytes.
	}
	removeAbandoned(parent)
	dir, err := os.MkdirTemp(parent, workDirPrefix)
	if err != nil {
		return "", fmt.Errorf("make work directory: %w", err)
	}
	// The servers may run under another account, which has to pass.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // See above.
		return "", fmt.Errorf("open work directory: %w", err)
	}
	if !lock(dir) {
		return "", fmt.Errorf("lock work directory %s", dir)
	}
	return dir, nil
})

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
