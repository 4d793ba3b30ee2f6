package router

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

const (
	cluster = 7000
	another = 7001
)

func primary(name string, timeline uint32, flushed probe.LSN, history ...probe.TimelineSwitch) candidate {
	return candidate{Target: at(name), seen: &probe.Observation{
		SystemID: cluster, Timeline: timeline, LSN: flushed, Flushed: flushed, History: history,
	}}
}

func standby(name string) candidate {
	return candidate{Target: at(name), seen: &probe.Observation{SystemID: cluster, Timeline: 1, Standby: true, LSN: 900, Received: 950}}
}

func unwell(name string, why probe.Reason) candidate {
	return candidate{Target: at(name), seen: &probe.Observation{Err: errors.New("it is " + why.String()), Reason: why}, timeouts: patience}
}

// out is a candidate that an operator has taken out of service.
func out(c candidate) candidate {
	c.drained = true
	return c
}

// running is a candidate that tells which running server it is.
func running(c candidate, instance string) candidate {
	c.seen.Instance = instance
	return c
}

func at(name string) discover.Target { return discover.Target{Name: name, Host: name, Port: 5432} }

func ended(timeline uint32, where probe.LSN) probe.TimelineSwitch {
	return probe.TimelineSwitch{Timeline: timeline, At: where}
}

// serving is what is known while a serves, on timeline 1.
func serving() known {
	return known{system: cluster, timeline: 1, primary: "a", addr: "a:5432", flushed: 1000, serving: true}
}

// lost is what is known after a has been lost.
func lost() known {
	k := serving()
	k.serving = false
	return k
}

func TestJudge(t *testing.T) {
	foreign := primary("b", 9, 5000)
	foreign.seen.SystemID = another
	readOnly := primary("a", 1, 1000)
	readOnly.seen.ReadOnly = true
	once := unwell("a", probe.Timeout)
	once.timeouts = 1
	says := func(leader string) authority { return authority{heard: true, leader: leader} }
	for name, test := range map[string]struct {
		rules     rules
		known     known
		authority authority
		all       []candidate
		want      string // the primary, or ""
		why       string // a part of why there is none
		refusal   string // a part of what is said of the last candidate
		alarm     string // a part of the alarm; "": none
		lost      uint64
	}{
		"the only one": {all: []candidate{primary("a", 1, 10)}, want: "a"},
		"nobody":       {why: "no server is known"},
		"not probed":   {all: []candidate{{Target: at("a")}}, why: "a has not been probed yet"},
		"the primary among standbys": {
			all: []candidate{standby("x"), primary("a", 1, 10), standby("b")}, want: "a", refusal: "b is a standby",
		},
		"two names of one server": {
			all: []candidate{running(primary("a", 1, 10), "x"), running(primary("b", 1, 10), "x")}, want: "a", refusal: "b is another name of a",
		},
		"two names of one server, the second of which serves": {
			known: known{system: cluster, timeline: 1, primary: "b", addr: "b:5432", serving: true},
			all:   []candidate{running(primary("b", 1, 10), "x"), running(primary("a", 1, 10), "x")}, want: "b", refusal: "a is another name of b",
		},
		"two names of one server, one probe of which was lost": {
			known: known{system: cluster, timeline: 1, primary: "a", instance: "7000/x", serving: true},
			all:   []candidate{once, running(primary("b", 1, 10), "x")}, want: "a", refusal: "b is another name of a",
		},
		"two names of one server, one of which leads nowhere now": {
			known: known{system: cluster, timeline: 1, primary: "a", instance: "7000/x", serving: true},
			all:   []candidate{unwell("a", probe.Unreachable), running(primary("b", 1, 10), "x")}, want: "b",
		},
		"two names of one server, the first of which has not been seen since it was promoted": {
			all: []candidate{running(standby("a"), "x"), running(primary("b", 2, 10), "x")}, want: "b",
		},
		"two names of one server, and the authority knows it by the second": {
			authority: says("b"), all: []candidate{running(primary("a", 1, 10), "x"), running(primary("b", 1, 10), "x")}, want: "a",
		},
		"taken out of service": {known: serving(), all: []candidate{out(primary("a", 1, 1000))}, why: "a has been taken out of service"},
		"taken out of service, and another one is promoted": {
			known: serving(), all: []candidate{primary("b", 2, 1100, ended(1, 1000)), out(primary("a", 1, 1000))}, want: "b", refusal: "a has been taken out",
		},
		"taken out of service under one of its names": {
			known: serving(), all: []candidate{running(primary("a", 1, 1000), "x"), out(running(primary("b", 1, 1000), "x"))},
			why: "a is another name of b", refusal: "b has been taken out",
		},
		"two servers that run": {
			all: []candidate{running(primary("a", 1, 10), "x"), running(primary("b", 1, 10), "y")}, why: "both writable",
			refusal: "both writable", alarm: "both writable",
		},
		"standbys only": {all: []candidate{standby("a"), standby("b")}, why: "none of 2 servers is a primary: a is a standby"},
		"it is gone":    {known: serving(), all: []candidate{unwell("a", probe.Unreachable), standby("b")}, why: "a cannot be probed"},
		"one lost probe says nothing": {
			known: serving(), all: []candidate{once, standby("b")}, want: "a",
		},
		"one lost probe does say something of another": {
			known: lost(), all: []candidate{once, standby("b")}, why: "a does not answer",
		},
		"frozen":                          {known: serving(), all: []candidate{unwell("a", probe.Timeout), standby("b")}, why: "a does not answer"},
		"full, but serving":               {known: serving(), all: []candidate{unwell("a", probe.Full), standby("b")}, want: "a"},
		"the probe's password is wrong":   {known: serving(), all: []candidate{unwell("a", probe.AuthFailed), standby("b")}, want: "a"},
		"something else listens there":    {known: serving(), all: []candidate{unwell("a", probe.NotPostgres)}, why: "a is not a PostgreSQL server"},
		"it shuts down":                   {known: serving(), all: []candidate{unwell("a", probe.Refused)}, why: "a takes no connections"},
		"demoted":                         {known: serving(), all: []candidate{standby("a"), standby("b")}, why: "there is no primary: a is a standby"},
		"writes switched off":             {known: serving(), all: []candidate{readOnly}, want: "a"},
		"writes switched off, and wanted": {rules: rules{writable: true}, known: serving(), all: []candidate{readOnly}, why: "a has writes switched off"},
		"promoted": {
			known: lost(), all: []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 1000))}, want: "b",
		},
		"another cluster": {
			known: lost(), all: []candidate{unwell("a", probe.Unreachable), foreign}, why: "there is no primary: a",
			refusal: "b belongs to another database cluster (system identifier 7001, not 7000)",
		},
		"two clusters at the beginning": {
			all: []candidate{primary("a", 1, 10), foreign}, why: "none of 2 servers is a primary",
			refusal: "different database clusters", alarm: "a and b are primaries of different database clusters",
		},
		"the old primary returns": {
			known: known{system: cluster, timeline: 2, primary: "b", flushed: 2000, serving: true},
			all:   []candidate{primary("b", 2, 2000), primary("a", 1, 5000)}, want: "b",
			refusal: "a is an old primary: it is on timeline 1, and timeline 2 has been seen",
		},
		"the old primary returns, and nobody else is there": {
			known: known{system: cluster, timeline: 2, primary: "b", flushed: 2000},
			all:   []candidate{unwell("b", probe.Unreachable), primary("a", 1, 5000)}, why: "b cannot be probed",
			refusal: "a is an old primary",
		},
		"another branch": {
			known: known{system: cluster, timeline: 3, primary: "a", flushed: 2000},
			all:   []candidate{unwell("a", probe.Unreachable), primary("b", 4, 3000, ended(1, 500))}, why: "a cannot be probed",
			refusal: "b is on timeline 4, whose history does not go through timeline 3",
		},
		"two writable on one timeline": {
			known: serving(), all: []candidate{primary("a", 1, 1000), primary("b", 1, 1000)},
			why: "a and b are both writable on timeline 1", refusal: "both writable", alarm: "both writable",
		},
		"two writable on one timeline, and one is named": {
			known: serving(), authority: says("a"), all: []candidate{primary("a", 1, 1000), primary("b", 1, 1000)},
			want: "a", refusal: "b is writable, but the authority says that a leads",
		},
		"a stale standby is promoted while the primary works": {
			known: serving(), all: []candidate{primary("a", 1, 1000), primary("b", 2, 700, ended(1, 600))},
			want: "a", refusal: "without 400 bytes of WAL that a has, which still works", alarm: "b was promoted to timeline 2",
		},
		"a complete standby is promoted while the primary works": {
			known: serving(), all: []candidate{primary("b", 2, 1100, ended(1, 1000)), primary("a", 1, 1000)},
			want: "b", refusal: "a is still writable on timeline 1", alarm: "a is still writable",
		},
		"a complete standby is promoted while the old primary is fenced": {
			known: serving(), all: []candidate{primary("b", 2, 1100, ended(1, 1000)), readOnly},
			want: "b", refusal: "a is an old primary: it is on timeline 1",
		},
		"WAL is lost": {
			known: lost(), all: []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 900))},
			want: "b", lost: 100, alarm: "b took over without at least 100 bytes of WAL that a had on its disk",
		},
		"WAL is lost, as far as a history that cannot be read lets know": {
			known: lost(), all: []candidate{unwell("a", probe.Unreachable), primary("b", 2, 950)},
			want: "b", lost: 50, alarm: "without at least 50 bytes",
		},
		"too much WAL is lost": {
			rules: rules{maxLost: 99}, known: lost(),
			all:  []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 900))},
			lost: 100, why: "more than failover.max_lost_wal (99)", refusal: "transactions are held until", alarm: "more than",
		},
		"too much WAL is lost, but confirmed": {
			rules: rules{maxLost: 99}, known: lost(), authority: says("b"),
			all:  []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 900))},
			want: "b", lost: 100, alarm: "without at least 100 bytes",
		},
		"restored from a backup under the same name": {
			known: lost(), all: []candidate{primary("a", 1, 400)}, want: "a", lost: 600, alarm: "without at least 600 bytes",
		},
		"not named by the authority": {
			known: lost(), authority: says("c"), all: []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 1000))},
			why: "a cannot be probed", refusal: "b is writable, but the authority says that c leads",
		},
		"nobody leads": {
			known: lost(), authority: says(""), all: []candidate{primary("a", 1, 1000)},
			why: "the authority says that nobody leads",
		},
		"the authority lies about the primary that serves": {
			known: serving(), authority: says("b"), all: []candidate{primary("a", 1, 1000), standby("b")}, want: "a", refusal: "b is a standby",
		},
		"the authority cannot be heard": {
			known: lost(), all: []candidate{unwell("a", probe.Unreachable), primary("b", 2, 1200, ended(1, 1000))}, want: "b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			j := judge(test.rules, test.known, test.authority, test.all)
			got := ""
			if j.primary >= 0 {
				got = test.all[j.primary].Name
				require.Empty(t, j.refusals[j.primary])
				require.Empty(t, j.why)
			}
			require.Equal(t, test.want, got, "%+v", j)
			require.Contains(t, j.why, test.why)
			require.Equal(t, got == "", j.why != "", "why there is none is told if there is none")
			if test.refusal != "" {
				require.Contains(t, j.refusals[len(test.all)-1], test.refusal)
			}
			if test.alarm == "" {
				require.Empty(t, j.alarm)
			} else {
				require.Contains(t, j.alarm, test.alarm)
			}
			require.Equal(t, test.lost, j.lost)
			for i, refusal := range j.refusals {
				require.Equal(t, i == j.primary, refusal == "", "everybody but the primary is refused for a reason: %+v", j)
			}
		})
	}
}

func TestJudge_anyOrder_decidesTheSame(t *testing.T) {
	all := []candidate{primary("a", 1, 1000), primary("b", 2, 1100, ended(1, 1000)), standby("c"), unwell("d", probe.Timeout)}
	for range all {
		all = append(all[1:], all[0])
		j := judge(rules{}, serving(), authority{}, all)
		require.Equal(t, "b", all[j.primary].Name)
	}
}

func TestJudge_aloneAndLenient_refusesOnlyTheDemotedAndTheOld(t *testing.T) {
	fresh, was := known{}, serving()
	foreign := primary("a", 1, 10)
	foreign.seen.SystemID = another
	for name, test := range map[string]struct {
		known   known
		it      candidate
		refused bool
		alarm   bool
	}{
		"not probed":                   {fresh, candidate{Target: at("a")}, false, false},
		"cannot be probed":             {was, unwell("a", probe.Unreachable), false, false},
		"a standby from the beginning": {fresh, standby("a"), false, false},
		"demoted":                      {was, standby("a"), true, false},
		"an old one":                   {known{system: cluster, timeline: 2, primary: "a", addr: "a:5432"}, primary("a", 1, 10), true, false},
		"upgraded":                     {was, foreign, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			j := judgeAlone(rules{}, test.known, authority{}, &test.it)
			require.Equal(t, test.refused, j.primary < 0, "%+v", j)
			require.Equal(t, test.alarm, j.alarm != "")
		})
	}
}
