package load

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/bench/contender"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func TestRowReader_anyReadSize_yieldsWholeRows(t *testing.T) {
	rows := newRows(10)
	rows.left = 1000
	var text bytes.Buffer
	for {
		var chunk [7]byte
		n, err := rows.Read(chunk[:])
		text.Write(chunk[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
	}
	require.Equal(t, bytes.Repeat([]byte("xxxxxxxxx\n"), 100), text.Bytes())
}

func TestScrapeMetric_severalThatBeginAlike_takesTheWholeName(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "# TYPE go_memstats_mallocs_total counter\ngo_memstats_mallocs_total_x 1\ngo_memstats_mallocs_total 1.25e+06\n")
	}))
	defer server.Close()
	value, err := scrapeMetric(t.Context(), server.URL, mallocsTotal)
	require.NoError(t, err)
	require.InEpsilon(t, 1.25e6, value, 1e-9)

	_, err = scrapeMetric(t.Context(), server.URL, heapInuse)
	require.ErrorIs(t, err, errNoMetric)
}

// The loads are tried on PostgreSQL itself, which is always there, and on PgBouncer where it is installed.
func TestLoads_realServers_measureWhatTheyShould(t *testing.T) {
	dir := enterableDir(t)
	postgres, err := contender.StartPostgres(t.Context(), dir, 50, 1, []string{"direct", "pgbouncer"})
	if errors.Is(err, contender.ErrMissing) {
		t.Skip(err)
	}
	require.NoError(t, err)
	defer func() { require.NoError(t, postgres.Close()) }()
	targets := []*contender.Contender{contender.Direct(postgres)}
	bouncer, err := contender.NewPgBouncer(t.Context(), contender.Config{Dir: dir, PoolSize: 3, Clients: 300, Postgres: postgres})
	if errors.Is(err, contender.ErrMissing) {
		t.Log(err)
	} else {
		require.NoError(t, err)
		require.NoError(t, bouncer.Restart(t.Context()))
		defer bouncer.Stop()
		targets = append(targets, bouncer)
	}
	runner := Runner{Pgbench: postgres.Pgbench, Dir: dir, Duration: 500 * time.Millisecond}
	for _, target := range targets {
		t.Run(target.Name, func(t *testing.T) {
			for _, l := range []Pgbench{
				{Protocol: "prepared", Clients: 4}, {Protocol: "simple", Clients: 2, TLS: true}, {Protocol: "simple", Clients: 2, Reconnect: true},
			} {
				s, err := l.Run(t.Context(), runner, target)
				require.NoError(t, err)
				requirePositive(t, s, TPS, P50, P99)
				require.LessOrEqual(t, s[P50], s[P99])
				require.Equal(t, target.PID() != 0, s[CPU] > 0, "only a proxy has a cost")
			}
			s, err := CopyIn{RowBytes: 1000}.Run(t.Context(), runner, target)
			require.NoError(t, err)
			requirePositive(t, s, Throughput, P50)
			s, err = Result{RowBytes: 1000}.Run(t.Context(), runner, target)
			require.NoError(t, err)
			requirePositive(t, s, Throughput, P50)
			if target.PID() == 0 {
				s, err = Settings{Clients: 4, Sets: 2}.Run(t.Context(), runner, target)
				require.NoError(t, err)
				requirePositive(t, s, TPS, P50, P99)
				return
			}
			servers, err := postgres.ServerConnections(t.Context(), target)
			require.NoError(t, err)
			require.Equal(t, 3, servers)
			before := target.PID()
			s, err = Idle{Clients: 200, TLS: true}.Run(t.Context(), runner, target)
			require.NoError(t, err)
			requirePositive(t, s, Memory, Handshake)
			require.NotEqual(t, before, target.PID(), "memory is measured on a fresh process")
		})
	}
}

// enterableDir is a temporary directory that other accounts may enter; t.TempDir's parent is closed to them.
func enterableDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgsidecar-load-") //nolint:usetesting // As the comment says.
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func requirePositive(t *testing.T, s Sample, metrics ...Metric) {
	t.Helper()
	for _, metric := range metrics {
		require.Positive(t, s[metric], metric)
	}
}
