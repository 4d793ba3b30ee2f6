package verify_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/internal/verify"
)

// data compares two servers as their superuser.
func data(t *testing.T, from, to *pgtest.Cluster, wait time.Duration, skip ...verify.Check) *verify.Report {
	t.Helper()
	report := verify.NewReport(skip)
	verify.Data(t.Context(), verify.DataConfig{
		From: from.SocketURL("postgres", pgtest.Superuser), To: to.SocketURL("postgres", pgtest.Superuser), Tables: true, Wait: wait,
	}, report)
	return report
}

func TestData_standbyThenPromoted(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table t (n int); insert into t select generate_series(1, 1000)")
	report := data(t, primary, standby, time.Minute)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	requireResult(t, report, verify.CheckTables, verify.Passed, "^1 tables with 1000 rows are the same$")

	report = data(t, primary, primary, time.Minute)
	requireResult(t, report, verify.CheckTimeline, verify.Failed, "both write on timeline 1")

	// A clean switchover: the old primary ends, the standby has all of it, the old one follows.
	primary.Stop(t, pgtest.Fast)
	standby.Promote(t)
	require.NoError(t, primary.Follow(standby.Cluster))
	primary.StartAgain(t)
	standby.Exec(t, "insert into t values (1001)")
	report = data(t, standby, primary, time.Minute)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	requireResult(t, report, verify.CheckLSN, verify.Passed, "on timeline 2$")
	report = data(t, primary, standby, time.Minute)
	require.Equal(t, verify.Passed, report.Outcome(), "the other way about: %v", report.Results)
}

func TestData_oldPrimaryWentOn_whatIsMissingIsTold(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table t (n int)")
	primary.WaitForStandby(t, standby)
	standby.Promote(t)
	primary.Exec(t, "insert into t values (1)") // Acknowledged, and on no other server.
	report := data(t, primary, standby, time.Minute)
	requireResult(t, report, verify.CheckLSN, verify.Failed, "^it left timeline 1 at [0-9A-F/]+, and from has [0-9]+ bytes more$")
	requireResult(t, report, verify.CheckTables, verify.Failed, "^1 rows in from, 0 in to$")
	report = data(t, standby, primary, time.Minute, verify.CheckTables)
	requireResult(t, report, verify.CheckTimeline, verify.Failed, "timeline 1, from is on 2")

	role := standby.Role(t)
	report = verify.NewReport([]verify.Check{verify.CheckSystem})
	verify.Data(t.Context(), verify.DataConfig{
		From: primary.SocketURL("postgres", pgtest.Superuser), To: standby.SocketURL("postgres", role), Wait: time.Minute,
	}, report)
	requireResult(t, report, verify.CheckLSN, verify.Unknown, "permission denied")
}

func TestData_laggingStandby_isTold(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, map[string]string{"recovery_min_apply_delay": "1h"})
	primary.Exec(t, "create table t (n int)")
	report := data(t, primary, standby, time.Second)
	requireResult(t, report, verify.CheckLSN, verify.Failed, "^[0-9]+ bytes are missing after 1s")
	requireResult(t, report, verify.CheckTables, verify.Failed, "is missing in to")
}

// TestData_copiedByOtherMeans_rowsAreCompared compares two versions, as an upgrade by logical replication has them.
func TestData_copiedByOtherMeans_rowsAreCompared(t *testing.T) {
	versions := pgtest.Versions(t)
	if len(versions) < 2 {
		t.Skip("only one version of PostgreSQL is here: run `make deps`")
	}
	from, to := pgtest.Start(t, pgtest.Config{Major: versions[0]}), pgtest.Start(t, pgtest.Config{})
	for _, c := range []*pgtest.Cluster{from, to} {
		c.Exec(t, `create schema "My Schema"; create table "My Schema"."t" (t text, n float8); create table same (t numeric, at timestamptz default '2026-01-01 00:00:00+00'); create table parted (n int) partition by list (n);
			create table part partition of parted for values in (1); create unlogged table scratch (n int); create view v as select 1`)
	}
	from.Exec(t, "alter role postgres set timezone to 'Asia/Tokyo'") // Does not make rows differ.
	from.Exec(t, `insert into "My Schema".t values ('a', 0.1), ('b', 2), ('b', 2); insert into same values (1.50), (null), (2); insert into part values (1)`)
	to.Exec(t, `insert into same values (2), (null), (1.50); insert into "My Schema".t values ('b', 2), ('a', 0.1), ('c', 2); create table more (); insert into scratch values (1)`)
	report := data(t, from, to, time.Minute)
	requireResult(t, report, verify.CheckSystem, verify.Failed, "system identifiers")
	report = data(t, from, to, time.Minute, verify.CheckSystem)
	var told []string
	for _, r := range report.Results {
		require.Equal(t, verify.Failed, r.Outcome)
		told = append(told, r.Subject+" "+r.Found)
	}
	require.Equal(t, []string{`"My Schema".t 3 rows in both, with other contents`, "public.more is missing in from", "public.part 1 rows in from, 0 in to"}, told)

	to.Exec(t, `update "My Schema".t set t = 'b' where t = 'c'; drop table more; insert into parted values (1)`)
	report = data(t, from, to, time.Minute, verify.CheckSystem)
	require.Equal(t, verify.Passed, report.Outcome(), "%v", report.Results)
	requireResult(t, report, verify.CheckTables, verify.Passed, "^3 tables with 7 rows are the same$")
}

func TestData_serverGone_isUnknown(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	for _, target := range [][2]string{
		{"postgres://x:secret@127.0.0.1:1/x", cluster.SocketURL("postgres", pgtest.Superuser)},
		{cluster.SocketURL("postgres", pgtest.Superuser), "postgres://x:secret@127.0.0.1:1/x"},
		{"postgres://x:secret@%zz", ""},
	} {
		report := verify.NewReport(nil)
		verify.Data(t.Context(), verify.DataConfig{From: target[0], To: target[1], Wait: time.Minute}, report)
		requireResult(t, report, verify.CheckLSN, verify.Unknown, "")
		require.NotContains(t, only(t, report, verify.CheckLSN).Found, "secret")
	}
}
