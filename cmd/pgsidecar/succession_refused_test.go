package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// TestSuccession_successorFails_nothingHasChanged starts successors that cannot be.
func TestSuccession_successorFails_nothingHasChanged(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "fails")
	c, _ := p.raw()
	c.Query("set my.own = 'mine'")
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, bad := range map[string]struct {
		environ []string
		code    int
		want    string
		limit   string
	}{
		"a configuration that cannot be used": {[]string{"PGSIDECAR_POOL_MAX_CONNECTIONS=-1"}, exitUsage, "PGSIDECAR_POOL_MAX_CONNECTIONS: -1 is out of range", ""},
		"no socket":                           {[]string{"PGSIDECAR_TAKEOVER_SOCKET="}, exitUsage, "takeover.socket: is not set", ""},
		"too few descriptors":                 {[]string{"PGSIDECAR_POOL_MAX_CONNECTIONS=1000"}, exitFailure, "RLIMIT_NOFILE", "ulimit -n 256; "},
		"an address that is taken":            {[]string{"PGSIDECAR_LISTEN=[" + p.dir + ", " + taken.Addr().String() + "]"}, exitFailure, "address already in use", ""},
	} {
		t.Run(name, func(t *testing.T) {
			next := p.limitedSuccessor(bad.limit, bad.environ...)
			<-next.exited
			require.Equal(t, bad.code, next.cmd.ProcessState.ExitCode(), "%s", next.stderr)
			require.Contains(t, next.stderr.String(), bad.want)
			require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
			another, _ := p.raw()
			require.Contains(t, pgtest.Strings(another.Query("select 1")), "D 1")
			require.NoError(t, another.Conn.Close())
			require.Equal(t, "serving", p.phase())
		})
	}
	p.end(cluster)
}

// TestSuccession_held_waitsForTheOperator: a successor would let transactions go.
func TestSuccession_held_waitsForTheOperator(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "held")
	post := func(path string) {
		code, body, err := newClient(p.http()).ask(t.Context(), http.MethodPost, path)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, code, "%s", body)
	}
	post("/hold")
	next := p.successor()
	<-next.exited
	require.Equal(t, exitFailure, next.cmd.ProcessState.ExitCode())
	require.Contains(t, next.stderr.String(), "the other process refuses: transactions are held (an operator holds them); try again when they go on")
	post("/resume")
	next = p.successor()
	p.awaitSuccession(next)
	next.end(cluster)
}

// TestSuccession_garbageOnTheSocket_disturbsNobody writes to the takeover socket what no successor would.
func TestSuccession_garbageOnTheSocket_disturbsNobody(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "garbage")
	c, _ := p.raw()
	for _, garbage := range []string{"GET / HTTP/1.0\r\n\r\n", "pgsc\x01\xff\x00\x00", strings.Repeat("\x00", 100_000), "pgsc\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02[]"} {
		stranger := pgtest.Dial(t, filepath.Join(p.dir, "takeover"))
		_, _ = stranger.Conn.Write([]byte(garbage)) // It may be cut off before it has written all.
		stranger.CloseWrite()
		stranger.ExpectEnd()
		require.Contains(t, pgtest.Strings(c.Query("select 1")), "D 1")
	}
	require.Contains(t, p.stderr.String(), "no handover, everything stays as it was")
	next := p.successor()
	p.awaitSuccession(next)
	next.end(cluster)
}

// TestSuccession_otherVersion_isRefused is about processes that hand over by another protocol: what each hears of the other is
// changed on the way.
func TestSuccession_otherVersion_isRefused(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "version")
	c, _ := p.raw()
	c.Query("set my.own = 'mine'")
	for theirs, shift := range map[string]float64{"older": -1, "newer": 1} { // What the successor is.
		ours := map[string]string{"older": "newer", "newer": "older"}[theirs]
		b := newBetween(t, filepath.Join(p.dir, theirs), moment{})
		b.rewrite = func(message string, body []byte) []byte {
			switch message {
			case "hello":
				return shifted(t, body, "v0", shift)
			case "welcome":
				return shifted(t, body, "v9", -shift)
			}
			return body
		}
		next := b.start(p, filepath.Join(p.dir, "takeover"))
		<-next.exited
		require.Equal(t, exitFailure, next.cmd.ProcessState.ExitCode())
		require.Contains(t, next.stderr.String(), "the other process (version v9) is "+ours)
		require.Contains(t, next.stderr.String(), "restart instead")
		p.awaitLog("the other process (version v0) is " + theirs)
		require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
		require.Equal(t, "serving", p.phase())
	}
	next := p.successor()
	p.awaitSuccession(next)
	require.Contains(t, pgtest.Strings(c.Query("show my.own")), "D mine")
	next.end(cluster)
}

// shifted changes whom a hello or a welcome is from.
func shifted(t *testing.T, body []byte, version string, shift float64) []byte {
	t.Helper()
	var said map[string]any
	require.NoError(t, json.Unmarshal(body, &said))
	said["version"], said["protocol"] = version, said["protocol"].(float64)+shift
	body, err := json.Marshal(said)
	require.NoError(t, err)
	return body
}

// TestSuccession_anotherUser_isRefused runs one of the two processes as another user.
func TestSuccession_anotherUser_isRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process as another user")
	}
	const nobody, somebody = 65534, 65533
	cluster := pgtest.Start(t, pgtest.Config{})
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chown(dir, nobody, nobody))
	program := filepath.Join(dir, "pgsidecar") // The test's own is where nobody else may look.
	content, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, content, 0o755))
	as := func(uid uint32, args ...string) *exec.Cmd {
		cmd := exec.Command(program, args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd
	}
	socket := filepath.Join(dir, "takeover")
	p := describe(t, cluster, dir, "users", time.Minute, "PGSIDECAR_TAKEOVER_SOCKET="+socket)
	environ := p.cmd.Env
	p.cmd = as(nobody)
	p.cmd.Env = environ
	p.start(p.ready)

	require.Contains(t, p.refused(as(0, "run", "--takeover")),
		"belongs to a process of user 65534, and this one is of user 0: whoever takes over has to be the same user")
	require.Contains(t, p.refused(as(somebody, "run", "--takeover")), "belongs to a process of user 65534, and this one is of user 65533")
	pgtest.Dial(t, socket).ExpectEnd() // Root may open the socket, whatever its mode, and is not heard either.
	p.awaitLog("belongs to a process of user 0, and this one is of user 65534")
	c, _ := p.raw()
	require.Contains(t, pgtest.Strings(c.Query("select 1")), "D 1")
	require.NoError(t, c.Conn.Close())

	// A socket that somebody else owns is not replaced.
	foreign := filepath.Join(dir, "foreign")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", foreign)
	require.NoError(t, err)
	defer l.Close()
	said := p.refused(as(nobody), "PGSIDECAR_TAKEOVER_SOCKET="+foreign, "PGSIDECAR_LISTEN=127.0.0.1:0", "PGSIDECAR_HTTP_LISTEN="+filepath.Join(dir, "other"))
	require.Contains(t, said, "belongs to a process of user 0, and this one is of user 65534")
	require.Contains(t, said, "set takeover.socket to another path")
	require.FileExists(t, foreign)
	p.end(cluster)
}

// refused runs a command in the environment of p, which has to fail, and returns what it says.
func (p *pod) refused(cmd *exec.Cmd, environ ...string) string {
	p.t.Helper()
	stderr := new(buffer)
	cmd.Env, cmd.Stderr = append(append([]string(nil), p.cmd.Env...), environ...), stderr
	require.Error(p.t, cmd.Run())
	require.Equal(p.t, exitFailure, cmd.ProcessState.ExitCode(), "%s", stderr)
	return stderr.String()
}

// TestSuccession_nobodyThere_startsAsUsual is the first start of a service that always says --takeover.
func TestSuccession_nobodyThere_startsAsUsual(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	p := newGeneration(t, cluster, "first")
	p.end(cluster)
	socket := filepath.Join(p.dir, "takeover")
	require.NoFileExists(t, socket)
	p = p.successor()
	p.awaitLog("nobody to take over from")
	p.awaitLog("msg=serving")
	require.NoError(t, p.cmd.Process.Kill())
	<-p.exited
	require.FileExists(t, socket, "what a killed process leaves behind is nobody, too")
	next := p.successor()
	next.awaitLog("nobody to take over from")
	next.awaitLog("msg=serving")
	c, _ := next.raw()
	require.Contains(t, pgtest.Strings(c.Query("select 1")), "D 1")
	require.NoError(t, c.Conn.Close())
	next.end(cluster)
}
