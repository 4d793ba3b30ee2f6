package verify_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/admin"
	"pgsidecar/internal/pgtest"
	"pgsidecar/internal/verify"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fakeProxy answers with one status after the other; the last one stays.
type fakeProxy struct {
	address  string
	statuses []admin.Status
	err      error
}

func (p *fakeProxy) Address() string { return p.address }

func (p *fakeProxy) Status(context.Context) (admin.Status, error) {
	s := p.statuses[0]
	if len(p.statuses) > 1 {
		p.statuses = p.statuses[1:]
	}
	return s, p.err
}

// proxyOf returns a proxy whose clients reach the server itself: what is checked behind it is then certain.
func proxyOf(c *pgtest.Cluster, change ...func(*admin.Status)) *fakeProxy {
	s := admin.Status{
		Version: "1.4", Config: "abc", Phase: "serving", Uptime: 60, Listen: []string{c.SocketFile()},
		Pools: []admin.Pool{{Database: "postgres", User: pgtest.Superuser}},
	}
	for _, f := range change {
		f(&s)
	}
	return &fakeProxy{address: "127.0.0.1:1", statuses: []admin.Status{s}}
}

// config is what is checked unless a test says something else.
func config(proxies ...verify.Proxy) verify.Config {
	return verify.Config{Proxies: proxies, Login: "user=" + pgtest.Superuser + " dbname=postgres", Wait: 30 * time.Second, Age: time.Hour}
}

func check(t *testing.T, cfg verify.Config, skip ...verify.Check) (*verify.Report, verify.Baseline) {
	t.Helper()
	report := verify.NewReport(skip)
	base := verify.Proxies(t.Context(), cfg, report)
	return report, base
}

// only requires one result of the check, and returns it.
func only(t *testing.T, r *verify.Report, c verify.Check) verify.Result {
	t.Helper()
	var found []verify.Result
	for _, result := range r.Results {
		if result.Check == c {
			found = append(found, result)
		}
	}
	require.Len(t, found, 1, "%v", r.Results)
	return found[0]
}

func requireResult(t *testing.T, r *verify.Report, c verify.Check, outcome verify.Outcome, text string) {
	t.Helper()
	result := only(t, r, c)
	require.Equal(t, outcome, result.Outcome, "%v", result)
	require.Regexp(t, text, result.Found)
	if outcome != verify.Passed {
		require.NotEmpty(t, result.Cure)
	}
}

func TestProxies_allIsWell_passesAndMakesABaseLine(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	primary.Standby(t, nil)
	require.Eventually(t, func() bool {
		return pgtest.Value[int](t, primary, "select count(*)::int from pg_stat_replication") == 1
	}, time.Minute, 10*time.Millisecond)
	report, base := check(t, config(proxyOf(primary)))
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	require.Equal(t, pgtest.Value[string](t, primary, "select system_identifier::text from pg_control_system()"), base.System)
	require.EqualValues(t, 1, base.Timeline)
	require.Equal(t, 1, base.Standbys)
	requireResult(t, report, verify.CheckReplication, verify.Passed, "has replayed everything")
	requireResult(t, report, verify.CheckTransaction, verify.Passed, "committed on system [0-9]+ at a unix socket in ")

	file := t.TempDir() + "/base.json"
	require.NoError(t, base.Save(file))
	cfg := config(proxyOf(primary))
	var err error
	cfg.Base, err = verify.Load(file)
	require.NoError(t, err)
	require.Equal(t, base, *cfg.Base)
	report, _ = check(t, cfg)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)

	// Another cluster, another timeline, a standby that is gone.
	cfg.Base.System, cfg.Base.Standbys = "1", 2
	report, _ = check(t, cfg)
	requireResult(t, report, verify.CheckSystem, verify.Failed, "system identifier [0-9]+ instead of 1$")
	cfg.Want.System = base.System
	cfg.Want.Timeline = 2
	report, _ = check(t, cfg, verify.CheckReplication)
	requireResult(t, report, verify.CheckTimeline, verify.Failed, "timeline 1 instead of 2")
	report, _ = check(t, cfg)
	require.Equal(t, verify.Failed, report.Results[len(report.Results)-3].Outcome)
	require.Equal(t, "1 standbys follow instead of 2", report.Results[len(report.Results)-3].Found)
}

func TestProxies_whatTheyTell_isCompared(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	other := func(s *admin.Status) { s.Version, s.Config, s.Leaks = "1.3", "", 2 }
	ending := func(s *admin.Status) { s.NotReady = "the proxy is draining" }
	gone := &fakeProxy{address: "127.0.0.1:2", statuses: make([]admin.Status, 1), err: errors.New("connection refused")}
	report, _ := check(t, config(proxyOf(cluster), proxyOf(cluster, other), proxyOf(cluster), proxyOf(cluster, ending), gone))
	var told []string
	for _, r := range report.Results {
		if r.Outcome != verify.Passed {
			told = append(told, string(r.Outcome)+" "+string(r.Check)+": "+r.Found)
			require.NotEmpty(t, r.Cure)
		}
	}
	require.Equal(t, []string{
		"failed proxy: new clients are not welcome: the proxy is draining", "failed proxy: connection refused",
		"failed version: 1.3 instead of 1.4", "unknown config: not told", "failed leaks: 2 servers had a client's state after their release",
	}, told)

	cfg := config(proxyOf(cluster))
	cfg.Want = verify.Want{Version: "1.5", ConfigHash: "def"}
	report, _ = check(t, cfg)
	requireResult(t, report, verify.CheckVersion, verify.Failed, "1.4 instead of 1.5")
	requireResult(t, report, verify.CheckConfig, verify.Failed, "abc instead of def")
	report, _ = check(t, cfg, verify.CheckVersion, verify.CheckConfig)
	require.Equal(t, verify.Passed, report.Outcome(), "what is skipped does not count")
}

// TestProxies_servers_asTheProxySeesThem is about what a proxy tells of its servers.
func TestProxies_servers_asTheProxySeesThem(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	for name, test := range map[string]struct {
		change  func(*admin.Status)
		outcome verify.Outcome
		found   string
	}{
		"all there":   {func(*admin.Status) {}, verify.Passed, "^primary b, standby a$"},
		"held":        {func(s *admin.Status) { s.Held = "an operator holds them" }, verify.Failed, "^transactions are held: an operator holds them$"},
		"no primary":  {func(s *admin.Status) { s.Held, s.Topology.Why = "none", "none" }, verify.Failed, "^transactions are held: none$"},
		"alarm":       {func(s *admin.Status) { s.Topology.Alarms = []string{"two write"} }, verify.Failed, "^two write$"},
		"one is away": {func(s *admin.Status) { s.Topology.Targets[0].Health = "timeout" }, verify.Failed, "^a: timeout$"},
	} {
		t.Run(name, func(t *testing.T) {
			see := func(s *admin.Status) {
				s.Topology = &admin.Topology{Targets: []admin.Target{
					{Name: "a", Role: "standby", Health: "ok"}, {Name: "b", Role: "primary", Health: "ok", Accepted: true},
				}}
			}
			p := proxyOf(cluster, see, test.change)
			cfg := config(p)
			cfg.Wait = 0
			report := verify.NewReport([]verify.Check{verify.CheckTransaction})
			verify.Proxies(t.Context(), cfg, report)
			requireResult(t, report, verify.CheckServers, test.outcome, test.found)

			p.statuses = append(p.statuses, proxyOf(cluster, see).statuses...) // What is so for a moment only is no fault.
			report, _ = check(t, config(p))
			requireResult(t, report, verify.CheckServers, verify.Passed, "^primary b, standby a$")
		})
	}
}

// TestProxies_fromOutside_leadWhereTheySay: a pod's clients cannot be played from elsewhere, but the proxy tells where it leads.
func TestProxies_fromOutside_leadWhereTheySay(t *testing.T) {
	lead := func(system string, timeline uint32) *fakeProxy {
		return &fakeProxy{address: "10.0.0.4:6433", statuses: []admin.Status{{
			Version: "1", Config: "a",
			Topology: &admin.Topology{SystemID: system, Timeline: timeline, Targets: []admin.Target{{Name: "pg", Role: "primary", Health: "ok", Accepted: true}}},
		}}}
	}
	cfg := config(lead("7", 2))
	cfg.Want = verify.Want{System: "7", Timeline: 2}
	report, base := check(t, cfg, verify.CheckTransaction)
	requireResult(t, report, verify.CheckSystem, verify.Passed, "7$")
	requireResult(t, report, verify.CheckTimeline, verify.Passed, "2")
	require.Equal(t, "7", base.System)
	cfg.Proxies = []verify.Proxy{lead("7", 1)}
	report, _ = check(t, cfg, verify.CheckTransaction)
	requireResult(t, report, verify.CheckTimeline, verify.Failed, "timeline 1 instead of 2")
	require.Contains(t, only(t, report, verify.CheckTimeline).Cure, "primary of before a failover")
	cfg.Proxies = []verify.Proxy{lead("8", 2)}
	report, _ = check(t, cfg, verify.CheckTransaction)
	requireResult(t, report, verify.CheckSystem, verify.Failed, "8 instead of 7")
}

func TestProxies_serverIsAStandby_transactionFails(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	report, _ := check(t, config(proxyOf(standby)))
	requireResult(t, report, verify.CheckTransaction, verify.Failed, "during recovery .SQLSTATE 25006")
	requireResult(t, report, verify.CheckReplication, verify.Unknown, "no server could be asked")
}

func TestProxies_laggingStandby_isTold(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	primary.Standby(t, map[string]string{"recovery_min_apply_delay": "1h"})
	primary.Exec(t, "create table t ()")
	cfg := config(proxyOf(primary))
	cfg.Wait = 2 * time.Second
	report, _ := check(t, cfg)
	requireResult(t, report, verify.CheckReplication, verify.Failed, "^streaming, [0-9]+ bytes behind after 2s$|^startup|^catchup")
}

func TestProxies_leftovers_areFound(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{Settings: map[string]string{"max_prepared_transactions": "3"}})
	cfg := config(proxyOf(cluster))
	cluster.Exec(t, "begin; create table t (); prepare transaction 'order''s 7'")
	idle := pgtest.Connect(t, cluster.URL("postgres", pgtest.Superuser, "application_name=batch"))
	_, err := idle.Exec(t.Context(), "begin")
	require.NoError(t, err)
	report, _ := check(t, cfg)
	require.Equal(t, verify.Passed, report.Outcome(), "an hour has not passed: %v", report.Results)

	cfg.Age = 0
	report, _ = check(t, cfg)
	requireResult(t, report, verify.CheckPrepared, verify.Failed, `^1 prepared transactions .*, "order's 7" of postgres`)
	requireResult(t, report, verify.CheckIdle, verify.Failed, `^1 sessions are idle .* that of postgres in postgres`)
	require.Contains(t, only(t, report, verify.CheckIdle).Cure, `"batch"`)

	_, err = idle.Exec(t.Context(), "rollback")
	require.NoError(t, err)
	cluster.Exec(t, "rollback prepared 'order''s 7'")
	report, _ = check(t, cfg)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
}

func TestProxies_userMaySeeTooLittle_isUnknownAndServerHelps(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	primary.Standby(t, nil)
	require.Eventually(t, func() bool {
		return pgtest.Value[int](t, primary, "select count(*)::int from pg_stat_replication") == 1
	}, time.Minute, 10*time.Millisecond)
	role := primary.Role(t)
	superuser := pgtest.Connect(t, primary.URL("postgres", pgtest.Superuser))
	require.NoError(t, superuser.Ping(t.Context()))
	cfg := config(proxyOf(primary))
	cfg.Login = "postgres://" + role + "@elsewhere/postgres?port=7"
	report, _ := check(t, cfg)
	requireResult(t, report, verify.CheckReplication, verify.Unknown, "hidden")
	requireResult(t, report, verify.CheckIdle, verify.Unknown, "what [1-9] sessions do is hidden")
	require.Equal(t, verify.Unknown, report.Outcome(), "%v", report.Results)

	cfg.Server = primary.SocketURL("postgres", pgtest.Superuser)
	report, _ = check(t, cfg)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)

	// From outside of the pod the server's identity is that of the server itself.
	cfg.Proxies = []verify.Proxy{proxyOf(primary, func(s *admin.Status) { s.Listen = nil })}
	report, base := check(t, cfg, verify.CheckTransaction)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	require.Equal(t, primary.SocketFile(), only(t, report, verify.CheckSystem).Subject)
	require.NotEmpty(t, base.System)
}

func TestProxies_podsOwnLoopback_isUnknownFromOutside(t *testing.T) {
	p := &fakeProxy{address: "10.0.0.4:6433", statuses: []admin.Status{{Version: "1", Config: "a", Listen: []string{"127.0.0.1:6432", "/run/.s.PGSQL.6432"}}}}
	report, _ := check(t, config(p))
	requireResult(t, report, verify.CheckTransaction, verify.Unknown, "clients reach it on its own machine only")
	require.Contains(t, only(t, report, verify.CheckTransaction).Cure, "kubectl exec")
}

func TestProxies_wildcardAddress_isThatOfHTTP(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	_, port, err := net.SplitHostPort(cluster.Addr())
	require.NoError(t, err)
	report, _ := check(t, config(proxyOf(cluster, func(s *admin.Status) { s.Listen = []string{"[::]:" + port} })))
	requireResult(t, report, verify.CheckTransaction, verify.Passed, "at 127.0.0.1:"+port)
}
