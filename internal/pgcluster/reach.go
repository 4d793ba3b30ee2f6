package pgcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// reachable is the installation where the owner can run it. PostgreSQL looks for its own programs by access(2), which asks what
// the account itself may do and ignores capabilities; so an installation in a directory where only root can go (.local of a
// checkout below /root, say) is copied, once, into the temporary directory. It must then be of one piece: bin, lib and share
// in one directory, as the npm packages are.
func (o owner) reachable(ctx context.Context, inst Installation) (Installation, error) {
	bin, err := filepath.EvalSymlinks(inst.Bin)
	if err != nil {
		return inst, fmt.Errorf("resolve directory: %w", err)
	}
	if !o.other || anybodyMayGo(bin) {
		return inst, nil
	}
	sum := sha256.Sum256([]byte(bin + inst.Version))
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("pgsidecar-postgresql-%d-%x", inst.Major, sum[:6]))
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return inst, err
	}
	defer unlock()
	if !isOurs(dir) {
		if err := copyInstallation(ctx, filepath.Dir(bin), dir); err != nil {
			return inst, err
		}
	}
	inst.Bin = filepath.Join(dir, filepath.Base(bin))
	return inst, nil
}

// copyInstallation makes the copy appear whole.
func copyInstallation(ctx context.Context, from, to string) error {
	unfinished, err := os.MkdirTemp(filepath.Dir(to), "pgsidecar-postgresql-new-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "cp", "-a", from+"/.", unfinished).CombinedOutput(); err != nil {
		return fmt.Errorf("copy PostgreSQL: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Chmod(unfinished, 0o755); err != nil {
		return fmt.Errorf("open copy of PostgreSQL: %w", err)
	}
	if err := os.Rename(unfinished, to); err != nil {
		return fmt.Errorf("keep copy of PostgreSQL: %w", err)
	}
	return nil
}

// anybodyMayGo tells whether every account can pass through all directories of a path.
func anybodyMayGo(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// isOurs tells whether a directory is there and was made by this account: others can write to the temporary directory too.
func isOurs(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}
