package metrics_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/metrics"
	"pgsidecar/proxy/stats"
)

// fixed is a Source and a ConfigSource that always tells the same.
type fixed struct {
	snapshot stats.Snapshot
	config   metrics.ConfigState
}

func (f fixed) Snapshot() stats.Snapshot         { return f.snapshot }
func (f fixed) ConfigState() metrics.ConfigState { return f.config }

// full returns a snapshot in which every number is another one.
func full() fixed {
	var wait, transaction stats.Histogram
	for _, d := range []time.Duration{50 * time.Microsecond, 300 * time.Microsecond, 2 * time.Second, time.Minute} {
		wait.Observe(d)
	}
	transaction.Observe(time.Millisecond)
	totals := stats.Totals{
		StatementsSimple: 11, StatementsExtended: 12, BytesFromClients: 13, BytesToClients: 14, BytesFromServers: 15, BytesToServers: 16,
		ReparsesNamed: 17, ReparsesUnnamed: 18, StateReplays: 19, StateResets: 20, StateLeaks: 21,
		DrainedIdle: 22, DrainedFinished: 23, DrainedCut: 24, TakenOver: 25, HandedOver: 26, Reruns: 27,
		ReadsNone: 81, ReadsBehind: 82, ReadsByChance: 83, ReadsRefused: 84, ReadsConflict: 85, ReadsLost: 86,
	}
	wait.AddTo(&totals.Wait)
	transaction.AddTo(&totals.Transaction)
	return fixed{
		snapshot: stats.Snapshot{
			Phase: stats.Draining, Clients: stats.Clients{Idle: 1, Active: 2, Waiting: 3}, Logins: stats.LoginCounts{4, 5, 6, 7, 8, 9}, Limit: 10,
			Totals: totals,
			Pools: []stats.PoolSnapshot{
				{Database: "app", User: "alice", Idle: 31, Active: 32, Dialing: 33, Closing: 34, Waiting: 35, OldestWait: 1500 * time.Millisecond, Transactions: 36},
				{Database: "a/b", User: "100%\xff"},
			},
			Standbys: []stats.StandbySnapshot{{Name: "b", Open: true, Idle: 71, Active: 72, Dialing: 73, Closing: 74, Waiting: 75, Transactions: 76}},
			Errors: []stats.ErrorCount{
				{SQLState: "23505", Origin: stats.FromServer, Count: 41}, {SQLState: "57P03", Origin: stats.FromProxy, Count: 42},
			},
			Prepared: stats.Prepared{Clients: 51, Shared: 52, Servers: 53},
			Held:     "b is a standby", Topology: stats.Topology{
				Known: true, Alarms: []string{"look"}, Switched: 58,
				Targets: []stats.Target{
					{Name: "a", Role: "primary", Health: "ok", Accepted: true, Timeline: 59},
					{Name: "b", Role: "standby", Health: "ok", Timeline: 60, LagBytes: 61, LagTime: 62 * time.Second},
				},
				Switches: []stats.Switch{{Took: 7 * time.Second}, {Took: 63 * time.Second, Lost: 64}},
			},
			ServerConnects: 54, ServersClosed: []stats.Count{{Label: "idle", Count: 55}}, Pinned: []stats.Count{{Label: "temp table", Count: 56}},
			Pins: []stats.Count{{Label: "temp table", Count: 57}},
		},
		config: metrics.ConfigState{Hash: "abc", Failed: true, LoadedAt: time.Unix(1_700_000_000, 0)},
	}
}

const exposition = `
pgsidecar_build_info{goversion="go9",revision="r",version="v"} 1
pgsidecar_bytes_total{direction="from_client"} 13
pgsidecar_bytes_total{direction="from_server"} 15
pgsidecar_bytes_total{direction="to_client"} 14
pgsidecar_bytes_total{direction="to_server"} 16
pgsidecar_checkout_wait_seconds_bucket{le="0.0001"} 1
pgsidecar_checkout_wait_seconds_bucket{le="0.00025"} 1
pgsidecar_checkout_wait_seconds_bucket{le="0.0005"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.001"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.0025"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.005"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.01"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.025"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.05"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.1"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.25"} 2
pgsidecar_checkout_wait_seconds_bucket{le="0.5"} 2
pgsidecar_checkout_wait_seconds_bucket{le="1"} 2
pgsidecar_checkout_wait_seconds_bucket{le="2.5"} 3
pgsidecar_checkout_wait_seconds_bucket{le="5"} 3
pgsidecar_checkout_wait_seconds_bucket{le="10"} 3
pgsidecar_checkout_wait_seconds_bucket{le="+Inf"} 4
pgsidecar_checkout_wait_seconds_sum 62.00035
pgsidecar_checkout_wait_seconds_count 4
pgsidecar_client_connections{state="active"} 2
pgsidecar_client_connections{state="idle"} 1
pgsidecar_client_connections{state="waiting"} 3
pgsidecar_client_connections_total{outcome="auth_failed"} 5
pgsidecar_client_connections_total{outcome="broken"} 9
pgsidecar_client_connections_total{outcome="logged_in"} 4
pgsidecar_client_connections_total{outcome="timed_out"} 8
pgsidecar_client_connections_total{outcome="too_many"} 6
pgsidecar_client_connections_total{outcome="unavailable"} 7
pgsidecar_clients_per_busy_server 0.1875
pgsidecar_config_info{hash="abc"} 1
pgsidecar_config_last_reload_success 0
pgsidecar_config_loaded_timestamp_seconds 1.7e+09
pgsidecar_drain_clients_total{outcome="cut"} 24
pgsidecar_drain_clients_total{outcome="finished"} 23
pgsidecar_drain_clients_total{outcome="idle"} 22
pgsidecar_errors_total{origin="proxy",sqlstate="57P03"} 42
pgsidecar_errors_total{origin="server",sqlstate="23505"} 41
pgsidecar_held 1
pgsidecar_oldest_wait_seconds{pool="a%2Fb/100%25%FF"} 0
pgsidecar_oldest_wait_seconds{pool="app/alice"} 1.5
pgsidecar_phase{phase="closing"} 0
pgsidecar_phase{phase="done"} 0
pgsidecar_phase{phase="draining"} 1
pgsidecar_phase{phase="lingering"} 0
pgsidecar_phase{phase="noticed"} 0
pgsidecar_phase{phase="serving"} 0
pgsidecar_phase{phase="starting"} 0
pgsidecar_pinned_sessions{reason="temp table"} 56
pgsidecar_pins_total{reason="temp table"} 57
pgsidecar_pool_limit 10
pgsidecar_prepared_reparses_total{kind="named"} 17
pgsidecar_prepared_reparses_total{kind="unnamed"} 18
pgsidecar_prepared_statements{where="clients"} 51
pgsidecar_prepared_statements{where="servers"} 53
pgsidecar_prepared_statements{where="shared"} 52
pgsidecar_reads_total{reason="by_chance",target="primary"} 83
pgsidecar_reads_total{reason="no_standby",target="primary"} 81
pgsidecar_reads_total{reason="not_yet_shown",target="primary"} 82
pgsidecar_reads_total{reason="recovery_conflict",target="primary"} 85
pgsidecar_reads_total{reason="refused",target="primary"} 84
pgsidecar_reads_total{reason="standby",target="b"} 76
pgsidecar_reads_total{reason="standby_lost",target="primary"} 86
pgsidecar_requests_run_again_total 27
pgsidecar_server_closed_total{reason="idle"} 55
pgsidecar_server_connections{pool="a%2Fb/100%25%FF",state="active"} 0
pgsidecar_server_connections{pool="a%2Fb/100%25%FF",state="closing"} 0
pgsidecar_server_connections{pool="a%2Fb/100%25%FF",state="dialing"} 0
pgsidecar_server_connections{pool="a%2Fb/100%25%FF",state="idle"} 0
pgsidecar_server_connections{pool="app/alice",state="active"} 32
pgsidecar_server_connections{pool="app/alice",state="closing"} 34
pgsidecar_server_connections{pool="app/alice",state="dialing"} 33
pgsidecar_server_connections{pool="app/alice",state="idle"} 31
pgsidecar_server_connects_total 54
pgsidecar_standby_connections{state="active",target="b"} 72
pgsidecar_standby_connections{state="closing",target="b"} 74
pgsidecar_standby_connections{state="dialing",target="b"} 73
pgsidecar_standby_connections{state="idle",target="b"} 71
pgsidecar_state_leaks_total 21
pgsidecar_state_replays_total 19
pgsidecar_state_resets_total 20
pgsidecar_statements_total{protocol="extended"} 12
pgsidecar_statements_total{protocol="simple"} 11
pgsidecar_takeover_clients_total{direction="in"} 25
pgsidecar_takeover_clients_total{direction="out"} 26
pgsidecar_target_alarms 1
pgsidecar_target_lag_bytes{target="b"} 61
pgsidecar_target_lag_seconds{target="b"} 62
pgsidecar_target_last_switch_lost_wal_bytes 64
pgsidecar_target_last_switch_seconds 63
pgsidecar_target_role{role="accepted",target="a"} 1
pgsidecar_target_role{role="accepted",target="b"} 0
pgsidecar_target_role{role="primary",target="a"} 1
pgsidecar_target_role{role="primary",target="b"} 0
pgsidecar_target_role{role="standby",target="a"} 0
pgsidecar_target_role{role="standby",target="b"} 1
pgsidecar_target_switches_total 58
pgsidecar_target_timeline{target="a"} 59
pgsidecar_target_timeline{target="b"} 60
pgsidecar_target_up{target="a"} 1
pgsidecar_target_up{target="b"} 1
pgsidecar_transaction_seconds_sum 0.001
pgsidecar_transaction_seconds_count 1
pgsidecar_transactions_total{pool="a%2Fb/100%25%FF"} 0
pgsidecar_transactions_total{pool="app/alice"} 36
pgsidecar_waiting_clients{pool="a%2Fb/100%25%FF"} 0
pgsidecar_waiting_clients{pool="app/alice"} 35
`

func collector(f fixed) *metrics.Collector {
	return metrics.NewCollector(f, f, metrics.Build{Version: "v", Revision: "r", GoVersion: "go9"})
}

func TestCollector_fullSnapshot_showsEveryNumberInItsPlace(t *testing.T) {
	served := scrape(t, collector(full()))
	var ours []string
	for line := range strings.Lines(served) {
		if strings.HasPrefix(line, "pgsidecar_") && !strings.HasPrefix(line, "pgsidecar_transaction_seconds_bucket") {
			ours = append(ours, line)
		}
	}
	require.Equal(t, strings.TrimSpace(exposition), strings.TrimSpace(strings.Join(ours, "")))
}

func TestCollector_names_passPromlint(t *testing.T) {
	problems, err := testutil.CollectAndLint(collector(full()))
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestHandler_alsoShowsTheRuntime(t *testing.T) {
	served := scrape(t, collector(fixed{}))
	require.Regexp(t, `(?m)^go_memstats_mallocs_total \d`, served)
	require.Regexp(t, `(?m)^process_cpu_seconds_total \d`, served)
}

func TestCollector_twoPoolsOfOneName_doNotSpoilTheScrape(t *testing.T) {
	f := full()
	f.snapshot.Pools = append(f.snapshot.Pools, f.snapshot.Pools[0])
	require.Contains(t, scrape(t, collector(f)), "pgsidecar_pool_limit 10")
}

// scrape returns what Prometheus would be served.
func scrape(t *testing.T, c *metrics.Collector) string {
	t.Helper()
	handler, err := metrics.Handler(c)
	require.NoError(t, err)
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, recorder.Code)
	body, err := io.ReadAll(recorder.Body)
	require.NoError(t, err)
	return string(body)
}
