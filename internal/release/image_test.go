package main

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// TestImage_readOnlyRootOfTheBinaryAlone takes the stages of the Dockerfile by hand. The first one builds what .dockerignore lets
// through. What runs in the second has nothing but the binary: no /proc, no /etc, no /tmp, a root that nobody can write
// to, a network of its own, a number of its own as the first process, and the image's user.
func TestImage_readOnlyRootOfTheBinaryAlone(t *testing.T) {
	root := t.TempDir()
	buildAsDockerfile(t, root)
	cluster := pgtest.Start(t, pgtest.Config{})
	require.NoError(t, os.Chmod(cluster.SocketDir(), 0o755)) // Of another user than the container's.
	c := startContainer(t, root, cluster)
	require.Eventually(t, func() bool {
		_, err := c.exec("health")
		return err == nil || c.ended()
	}, time.Minute, 50*time.Millisecond)
	require.False(t, c.ended(), "%s", c.said())

	out, err := c.exec("verify", "--leftover-age", "1h") // Logs in and commits a transaction.
	require.NoError(t, err, "%s\n%s", out, c.said())
	require.Regexp(t, `(?m)^ok +transaction +127\.0\.0\.1:6433 +committed on system`, out)
	out, err = c.exec("check")
	require.NoError(t, err, out)
	out, err = c.exec("version")
	require.NoError(t, err, out)
	require.Contains(t, out, "test-of-the-image")
	out, err = c.exec("run", "--config", "/nowhere")
	require.Error(t, err)
	require.Contains(t, out, "/nowhere")

	require.NoError(t, c.cmd.Process.Signal(syscall.SIGTERM)) // As the first process of its world it gets only what it asks for.
	<-c.exited
	require.Zero(t, c.cmd.ProcessState.ExitCode(), "%s", c.said())
	require.Contains(t, c.said(), "msg=ended")
	require.NotRegexp(t, "level=(WARN|ERROR)", c.said(), "nothing is missed")
}

// buildAsDockerfile runs the Dockerfile's own command on the files of its context.
func buildAsDockerfile(t *testing.T, root string) {
	t.Helper()
	dockerfile, err := os.ReadFile("../../Dockerfile")
	require.NoError(t, err)
	found := regexp.MustCompile(`(?m)^ +CGO_ENABLED=0 (?:.*\\\n)*.*$`).Find(dockerfile)
	require.NotNil(t, found)
	command := strings.Replace(string(found), "-o /pgsidecar", "-o "+filepath.Join(root, "pgsidecar"), 1)
	require.Contains(t, command, root)
	build := exec.CommandContext(t.Context(), "sh", "-c", command)
	build.Dir = dockerContext(t)
	build.Env = append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=test-of-the-image")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// dockerContext copies the files that .dockerignore lets through.
func dockerContext(t *testing.T) string {
	t.Helper()
	ignore, err := os.ReadFile("../../.dockerignore")
	require.NoError(t, err)
	list := exec.CommandContext(t.Context(), "git", "ls-files", "--cached", "--others", "--exclude-standard")
	list.Dir = "../.."
	files, err := list.Output()
	require.NoError(t, err)
	dir := t.TempDir()
	for file := range strings.Lines(string(files)) {
		file = strings.TrimSpace(file)
		if ignored(string(ignore), file) {
			continue
		}
		content, err := os.ReadFile(filepath.Join("../..", file))
		if os.IsNotExist(err) {
			continue // Removed, and not committed yet.
		}
		require.NoError(t, err)
		require.NoError(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, file), content, 0o644))
	}
	return dir
}

// ignored tells whether the last pattern that fits a file, or a directory above it, keeps it out.
func ignored(patterns, file string) (out bool) {
	for pattern := range strings.Lines(patterns) {
		pattern, exception := strings.CutPrefix(strings.TrimSpace(pattern), "!")
		if pattern == "" || pattern[0] == '#' {
			continue
		}
		anywhere, deep := strings.CutPrefix(pattern, "**/")
		for dir := file; dir != "."; dir = path.Dir(dir) {
			fits, _ := path.Match(pattern, dir)
			if deep {
				fits, _ = path.Match(anywhere, path.Base(dir))
			}
			if fits {
				out = !exception
			}
		}
	}
	return out
}

// container is a process that has nothing of this machine but what the root has.
type container struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    string // The file that has its output.
	exited chan struct{}
}

// startContainer starts the binary as the image does. The server's socket comes as a volume.
func startContainer(t *testing.T, root string, cluster *pgtest.Cluster) *container {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a process a root of its own")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip of iproute2, which makes network namespaces usable, was not found")
	}
	require.NoError(t, os.Mkdir(filepath.Join(root, "pg"), 0o755))
	for dir := root; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	c := &container{t: t, log: filepath.Join(t.TempDir(), "log"), exited: make(chan struct{})}
	log, err := os.Create(c.log)
	require.NoError(t, err)
	defer log.Close()
	c.cmd = exec.Command("sh", "-euc", `
		mount --make-rprivate /
		ip link set lo up
		mount --bind "$1" "$1"
		mount --bind "$2" "$1/pg"
		mount -o remount,bind,ro "$1"
		cd "$1"
		exec chroot --userspec 65532:65532 . /pgsidecar`, "sh", root, cluster.SocketDir())
	c.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DATABASE_URL=" + cluster.SocketURL("postgres", pgtest.Superuser, "host=/pg", "port="+strconv.Itoa(cluster.Port()))}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	if err := c.cmd.Start(); err != nil {
		t.Skipf("namespaces are not permitted: %v", err)
	}
	go c.wait()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.exited
	})
	return c
}

// wait is the goroutine that notes the end.
func (c *container) wait() {
	_ = c.cmd.Wait() // ProcessState says how it ended.
	close(c.exited)
}

// said returns what it has printed.
func (c *container) said() string {
	c.t.Helper()
	text, err := os.ReadFile(c.log)
	require.NoError(c.t, err)
	return string(text)
}

func (c *container) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

// exec runs the binary beside the one that runs, as `docker exec` does.
func (c *container) exec(args ...string) (string, error) {
	c.t.Helper()
	enter := []string{"--target", strconv.Itoa(c.cmd.Process.Pid), "--mount", "--net", "--pid", "--root", "--wd", "--setuid", "65532", "--setgid", "65532", "/pgsidecar"}
	cmd := exec.CommandContext(c.t.Context(), "nsenter", append(enter, args...)...)
	cmd.Env = c.cmd.Env
	out, err := cmd.CombinedOutput()
	return string(out), err
}
