package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// TestActivation_socketsOfSystemd_areServed passes sockets as systemd does. A client that connects before there is a process waits.
func TestActivation_socketsOfSystemd_areServed(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	dir := t.TempDir()
	p := &pod{t: t, name: "activated", user: pgcluster.Superuser, dir: dir, grace: time.Minute}
	clients, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, ".s.PGSQL.6432")})
	require.NoError(t, err)
	status, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.http()})
	require.NoError(t, err)
	stray, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	p.cmd = exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=3 exec "$0"`, os.Args[0])
	for _, l := range []interface{ File() (*os.File, error) }{clients, status, stray} {
		file, err := l.File()
		require.NoError(t, err)
		defer file.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, file)
	}
	p.cmd.Env = []string{
		asProgram + "=1", "DATABASE_URL=" + cluster.URL("postgres", pgcluster.Superuser) + "&application_name=activated",
		"PGSIDECAR_LISTEN=" + dir, "PGSIDECAR_HTTP_LISTEN=" + p.http(),
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	early := make(chan error, 1)
	go func() {
		conn, err := p.connect(ctx)
		if err == nil {
			err = conn.Close(ctx)
		}
		early <- err
	}()
	p.start(func() bool { return p.probe("/readyz") == http.StatusOK })
	require.NoError(t, <-early, "it has waited")
	_, err = net.Dial("tcp", stray.Addr().String())
	require.NoError(t, err, "our own end is still open")
	p.signal()
	p.await(cluster, time.Now())
	require.Contains(t, p.stderr.String(), `msg="socket of systemd not used: neither listen nor http.listen has its address" address=`+stray.Addr().String())
	require.FileExists(t, filepath.Join(dir, ".s.PGSQL.6432"), "it is systemd's, for the next process")
}

func TestActivation_ofAnotherProcess_isLeftAlone(t *testing.T) {
	a, err := activation(invocation{environ: []string{"LISTEN_PID=1", "LISTEN_FDS=1"}})
	require.NoError(t, err)
	require.Empty(t, a.listeners)
}

func TestBoundTo_addressesThatMeanTheSame(t *testing.T) {
	tcp := func(ip string, port int) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: port} }
	for _, test := range []struct {
		have net.Addr
		want string
		same bool
	}{
		{tcp("127.0.0.1", 6432), "127.0.0.1:6432", true},
		{tcp("127.0.0.1", 6432), "127.0.0.1:6433", false},
		{tcp("127.0.0.1", 6432), "127.0.0.2:6432", false},
		{tcp("::", 6432), "0.0.0.0:6432", true},
		{tcp("::", 6432), ":6432", true},
		{tcp("127.0.0.1", 6432), ":6432", false},
		{tcp("::1", 6432), "[::1]:6432", true},
		{&net.UnixAddr{Name: "/run/x/.s.PGSQL.6432"}, "/run/x", true},
		{&net.UnixAddr{Name: "/run/x/http"}, "/run/x/http", true},
		{&net.UnixAddr{Name: "/run/x/http"}, "127.0.0.1:6432", false},
		{tcp("127.0.0.1", 6432), "/run/x", false},
	} {
		require.Equal(t, test.same, boundTo(test.have, test.want), "%s %s", test.have, test.want)
	}
}
