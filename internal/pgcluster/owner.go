package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// owner is the account that owns a cluster's files and runs its programs: ourselves, or, since PostgreSQL refuses to run as
// root, an unprivileged account when we are root.
type owner struct {
	uid, gid int
	other    bool // not ourselves
}

// findOwner chooses postgres, which a packaged PostgreSQL brings along, or nobody.
func findOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(account.Uid)
		if err != nil {
			return owner{}, fmt.Errorf("parse user id: %w", err)
		}
		gid, err := strconv.Atoi(account.Gid)
		if err != nil {
			return owner{}, fmt.Errorf("parse group id: %w", err)
		}
		return owner{uid: uid, gid: gid, other: true}, nil
	}
	return owner{}, errors.New("find an unprivileged user: PostgreSQL refuses to run as root, and there is neither postgres nor nobody")
}

// command is a command of PostgreSQL that runs as the owner in dir.
func (o owner) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	// A shell goes to the directory and becomes the program, with the same process id. It is there for its account's
	// sake: a checkout may lie where only root can go (/root, a private temporary directory), the capability that lets the account
	// in takes effect with the first program that it runs, and so that one must be where anybody can go.
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `cd "$0" && exec "$@"`, dir, program}, args...)...)
	cmd.Dir = "/"
	// The locale of messages is part of what tests read; libpq's variables must not leak into servers.
	cmd.Env = []string{"PATH=" + filepath.Dir(program) + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if !o.other {
		return cmd
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)},
	}
	if mayOverridePermissions() {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_DAC_OVERRIDE}
	}
	return cmd
}

// mayOverridePermissions tells whether this process has a capability to pass on: root in a container need not.
func mayOverridePermissions() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[0].Permitted&data[0].Effective&(1<<unix.CAP_DAC_OVERRIDE) != 0
}

// mkdir makes a directory, and any parents, that belongs to the owner.
func (o owner) mkdir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return o.chown(dir)
}

// write makes a file that belongs to the owner, which alone can read it.
func (o owner) write(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return o.chown(path)
}

func (o owner) chown(path string) error {
	if !o.other {
		return nil
	}
	if err := os.Lchown(path, o.uid, o.gid); err != nil {
		return fmt.Errorf("change owner: %w", err)
	}
	return nil
}
