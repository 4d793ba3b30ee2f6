package pgcluster_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/internal/pgcluster"
)

// childEnv makes this test binary play the parent that is killed.
const childEnv = "PGCLUSTER_TEST_PARENT_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		playParent(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// keptTemplates is where the other tests keep their templates too.
const keptTemplates = "../../.local/templates"

// newest is an installation to test with.
func newest(t *testing.T) pgcluster.Installation {
	t.Helper()
	inst, ok := pgcluster.Newest(pgcluster.Installations("../.."))
	if !ok {
		t.Skip("no PostgreSQL server was found: run `make deps`")
	}
	return inst
}

// playParent starts a cluster, tells the process id of its postmaster and waits for its end.
func playParent(dir string) {
	inst, _ := pgcluster.Newest(pgcluster.Installations("../.."))
	c, err := pgcluster.Create(context.Background(), pgcluster.Config{Installation: inst, Dir: filepath.Join(dir, "c"), Templates: keptTemplates})
	if err == nil {
		err = c.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return
	}
	pid, _ := os.ReadFile(filepath.Join(c.DataDir(), "postmaster.pid"))
	fmt.Fprintln(os.Stdout, strings.SplitN(string(pid), "\n", 2)[0])
	select {}
}

func TestStart_serverDiesWithItsParent(t *testing.T) {
	newest(t)
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	out, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	postmaster, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err, line)
	require.NoError(t, syscall.Kill(postmaster, 0))
	t.Cleanup(func() { _ = syscall.Kill(postmaster, syscall.SIGQUIT) }) // Had it survived, it would stay.

	require.NoError(t, parent.Process.Kill())
	_ = parent.Wait() // It was killed.
	require.Eventually(t, func() bool { return !running(postmaster) }, 20*time.Second, 20*time.Millisecond)
}

// running is false for zombies too: in a container nobody may collect them.
func running(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestCreate_longPathStillHasASocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30), "cluster")
	c, err := pgcluster.Create(t.Context(), pgcluster.Config{Installation: newest(t), Dir: dir, Templates: keptTemplates})
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	require.FileExists(t, c.SocketFile()[:strings.LastIndex(c.SocketFile(), "/")+1]+".s.PGSQL."+strconv.Itoa(c.Port())+".lock")
	require.NoError(t, c.Close())
	require.NoDirExists(t, dir)
	require.NoDirExists(t, c.SocketDir())
}

func TestCreate_templateIsMadeOnceAndCopied(t *testing.T) {
	templates := filepath.Join(t.TempDir(), "templates")
	inst := newest(t)
	done := make(chan error, 3)
	for i := range 3 {
		dir := filepath.Join(t.TempDir(), strconv.Itoa(i))
		go func() {
			c, err := pgcluster.Create(context.Background(), pgcluster.Config{Installation: inst, Dir: dir, Templates: templates})
			if err == nil {
				err = c.Close()
			}
			done <- err
		}()
	}
	for range 3 {
		require.NoError(t, <-done)
	}
	made, err := filepath.Glob(filepath.Join(templates, "*", "PG_VERSION"))
	require.NoError(t, err)
	require.Len(t, made, 1)
}

func TestCreate_installationWhereOnlyRootCanGo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root runs servers as another user")
	}
	inst := newest(t)
	if strings.HasPrefix(inst.Bin, "/usr/lib/") {
		t.Skip("no installation of one piece was found: run `make deps`")
	}
	private := filepath.Join(t.TempDir(), "private")
	require.NoError(t, os.Mkdir(private, 0o700))
	prefix, err := filepath.EvalSymlinks(filepath.Dir(inst.Bin))
	require.NoError(t, err)
	out, err := exec.Command("cp", "-a", prefix, filepath.Join(private, "pg")).CombinedOutput()
	require.NoError(t, err, string(out))
	inst.Bin = filepath.Join(private, "pg", "bin")

	c, err := pgcluster.Create(t.Context(), pgcluster.Config{Installation: inst, Dir: filepath.Join(private, "c")})
	require.NoError(t, err)
	require.NoError(t, c.Start(t.Context()))
	require.NoError(t, c.Close())
	copied := filepath.Dir(c.Installation().Bin)
	require.NotEqual(t, filepath.Dir(inst.Bin), copied)
	require.NoError(t, os.RemoveAll(copied))
	require.NoError(t, os.Remove(copied+".lock"))
}

func TestStart_failureShowsTheLog(t *testing.T) {
	c, err := pgcluster.Create(t.Context(), pgcluster.Config{
		Installation: newest(t),
		Dir:          filepath.Join(t.TempDir(), "c"),
		Templates:    keptTemplates,
		Settings:     map[string]string{"shared_buffers": "nonsense"},
	})
	require.NoError(t, err)
	require.ErrorContains(t, c.Start(t.Context()), `invalid value for parameter "shared_buffers"`)
	require.NoError(t, c.Close())
}

func TestCreate_portsAreNotShared(t *testing.T) {
	inst := newest(t)
	seen := map[int]bool{}
	for i := range 2 {
		c, err := pgcluster.Create(t.Context(), pgcluster.Config{
			Installation: inst, Dir: filepath.Join(t.TempDir(), strconv.Itoa(i)), Templates: keptTemplates,
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, c.Close()) }()
		require.False(t, seen[c.Port()])
		seen[c.Port()] = true
	}
}

func TestSpawn_childOutlivesTheThreadThatAskedForIt(t *testing.T) {
	started := make(chan *pgcluster.Process, 1)
	go func() {
		runtime.LockOSThread() // A goroutine that ends while it is locked takes its thread with it.
		p, err := pgcluster.Spawn(exec.Command("sleep", "60"), 0)
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	p := <-started
	select {
	case <-p.Done():
		t.Fatalf("the child ended with the thread: %v", p.Err())
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, p.Signal(syscall.SIGKILL))
	<-p.Done()
	require.ErrorContains(t, p.Err(), "killed")
	require.False(t, p.Running())
}
