package pgcluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// initdb makes a data directory: a copy of the template of that version if templates are kept, else by running initdb.
func (o owner) initdb(ctx context.Context, inst Installation, templates, dataDir string) error {
	if templates == "" {
		return o.runInitdb(ctx, inst, dataDir)
	}
	template, err := o.template(ctx, inst, templates)
	if err != nil {
		return err
	}
	return o.copyTree(template, dataDir, nil)
}

// template returns the data directory to copy, made by whoever comes first. The lock is held while it is made, and the rename
// makes it appear whole, so processes may share the directory and may die at any point.
func (o owner) template(ctx context.Context, inst Installation, templates string) (string, error) {
	if err := os.MkdirAll(templates, 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	// The version and the place make the name: an upgrade of the package must not meet an older catalogue.
	sum := sha256.Sum256([]byte(inst.Version + inst.Bin))
	dir := filepath.Join(templates, fmt.Sprintf("%d-%d-%x", inst.Major, o.uid, sum[:6]))

	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished := dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", fmt.Errorf("remove unfinished template: %w", err)
	}
	if err := o.runInitdb(ctx, inst, unfinished); err != nil {
		return "", err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return "", fmt.Errorf("keep template: %w", err)
	}
	return dir, nil
}

// runInitdb makes the data directory of a cluster whose superuser has its conventional password, as a SCRAM secret.
func (o owner) runInitdb(ctx context.Context, inst Installation, dataDir string) error {
	program, err := inst.Program("initdb")
	if err != nil {
		return err
	}
	if err := o.mkdir(dataDir); err != nil {
		return err
	}
	passwordFile := dataDir + ".password"
	if err := o.write(passwordFile, []byte(Password(Superuser))); err != nil {
		return err
	}
	defer func() { _ = os.Remove(passwordFile) }() // It holds no secret.
	cmd := o.command(ctx, dataDir, program, "-D", dataDir, "-U", Superuser, "--pwfile="+passwordFile,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// hashPasswordWithMD5 replaces the superuser's SCRAM secret, before the server has ever run: with a SCRAM secret in the
// catalogue the method md5 would ask for SCRAM.
func (c *Cluster) hashPasswordWithMD5(ctx context.Context) error {
	program, err := c.cfg.Installation.Program("postgres")
	if err != nil {
		return err
	}
	cmd := c.owner.command(ctx, c.cfg.Dir, program, "--single", "-D", c.DataDir(), "-c", "password_encryption=md5", "postgres")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'\n", Superuser, Password(Superuser)))
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("ERROR")) {
		return fmt.Errorf("set md5 password: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// copyTree copies a data directory, whose files may come and go while it runs. Entries for which skip answers true (it gets the
// path relative to from) are left out; a directory that is skipped is made, but stays empty.
func (o owner) copyTree(from, to string, skip func(rel string) bool) error {
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return ignoreVanished(err)
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if entry.IsDir() {
			if err := o.mkdir(target); err != nil {
				return err
			}
			if skip != nil && skip(rel) {
				return fs.SkipDir
			}
			return nil
		}
		if skip != nil && skip(rel) {
			return nil
		}
		return ignoreVanished(o.copyFile(path, target))
	})
	if err != nil {
		return fmt.Errorf("copy data directory: %w", err)
	}
	return nil
}

func ignoreVanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (o owner) copyFile(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // Only read.
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close(), o.chown(to))
}

// lockFile takes an exclusive lock and waits for it; the lock ends with unlock or with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock file: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}
