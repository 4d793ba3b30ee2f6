package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// disasters are the ways in which a primary is lost.
var disasters = []string{"killed", "frozen", "cut off"}

// TestFailovers_oneAfterTheOther_nothingAcknowledgedIsLost loses a primary that is frozen, and then one that is cut off; with PGSIDECAR_FAILOVERS it loses
// so many with each of two versions, in all ways, beside others on the same kills (make bench-failover).
func TestFailovers_oneAfterTheOther_nothingAcknowledgedIsLost(t *testing.T) {
	ways, versions, beside := disasters[1:], pgtest.Versions(t)[:1], false
	times := len(ways)
	if text := os.Getenv("PGSIDECAR_FAILOVERS"); text != "" {
		n, err := strconv.Atoi(text)
		require.NoError(t, err)
		ways, times, versions, beside = disasters, n, []int{15, 18}, true
	}
	for _, version := range versions {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			s := newStage(t, version)
			contenders := []*contender{newSidecarContender(t, s)}
			if beside {
				contenders = append(contenders, newLibpqContender(s))
				if c := newBouncerContender(t, s); c != nil && s.islands {
					contenders = append(contenders, c)
				}
			}
			figures := make(map[string][]figure)
			end := s.work(t, contenders)
			for i := range times {
				how := ways[i%len(ways)]
				for j, f := range s.failover(t, how, contenders, i == times-1) {
					figures[how+" "+contenders[j].name] = append(figures[how+" "+contenders[j].name], f)
					t.Logf("%d %s: %s: %+v", i+1, how, contenders[j].name, f)
				}
			}
			end()
			if beside {
				t.Logf("PostgreSQL %d, %d failovers\n%s", version, times, tableOf(figures, contenders))
			}
		})
	}
}

// member is a server of the stage and the way to it.
type member struct {
	*pgtest.Cluster
	way way
}

// way is a relay to a server, which can be cut off.
type way interface {
	Addr() string
	CutOff(t testing.TB)
	Reconnect(t testing.TB)
}

// quiet is a way where network namespaces are not permitted: connections stay open, new ones too, and nothing passes.
type quiet struct{ *pgtest.Relay }

func (q quiet) CutOff(testing.TB)    { q.Stall() }
func (q quiet) Reconnect(testing.TB) { q.Resume() }

// stage is a primary, which is the first of the members, and two standbys. What it acknowledges both standbys have.
type stage struct {
	members []*member
	islands bool // They are in network namespaces, each with the same port.
}

func newStage(t *testing.T, version int) *stage {
	t.Helper()
	primary := pgtest.Start(t, pgtest.Config{Major: version})
	s := &stage{}
	t.Run("network namespaces", func(t *testing.T) {
		pgtest.StartIsland(t, primary.Addr())
		s.islands = true
	})
	for _, c := range []*pgtest.Cluster{primary, primary.Standby(t, nil), primary.Standby(t, nil)} {
		m := &member{Cluster: c}
		if s.islands {
			m.way = pgtest.StartIsland(t, c.Addr())
		} else {
			m.way = quiet{pgtest.StartRelay(t, c.Addr())}
		}
		s.members = append(s.members, m)
	}
	primary.Exec(t, "create table accepted (at timestamptz)")
	s.synchronise(t)
	return s
}

// url leads to all members, in their order.
func (s *stage) url(options string) string {
	var hosts []string
	for _, m := range s.members {
		hosts = append(hosts, m.way.Addr())
	}
	return "postgres://postgres@" + strings.Join(hosts, ",") + "/postgres?sslmode=disable" + options
}

// synchronise makes commits wait for both standbys, when they are there.
func (s *stage) synchronise(t *testing.T) {
	t.Helper()
	for _, standby := range s.members[1:] {
		s.members[0].WaitForStandby(t, standby.Cluster)
	}
	s.members[0].Exec(t, "alter system set synchronous_standby_names to 'ANY 2 (*)'")
	s.members[0].Exec(t, "select pg_reload_conf()")
}

// failover loses the primary, promotes the first standby, brings the others back as its standbys unless it is the last time, and returns what
// each contender's clients have seen.
func (s *stage) failover(t *testing.T, how string, contenders []*contender, last bool) []figure {
	t.Helper()
	lost, next, third := s.members[0], s.members[1], s.members[2]
	before := make([]counts, len(contenders))
	for i, c := range contenders {
		before[i] = c.ledger.counts()
	}
	restore := func() {}
	switch how {
	case "killed":
		lost.Kill(t)
	case "frozen":
		lost.Freeze(t)
		restore = func() { lost.Thaw(t) }
	default:
		lost.way.CutOff(t)
		restore = func() { lost.way.Reconnect(t) }
	}
	began := time.Now()
	accepted := make(chan time.Time, 1)
	go func() { accepted <- firstWrite(next.Cluster, "insert into accepted values (now())") }()
	next.Promote(t)
	at := <-accepted
	for _, c := range contenders {
		awaitThat(t, "clients of "+c.name+" write again", func() bool {
			return !c.ledger.firstAfter(began).IsZero() || time.Since(began) > longest
		})
	}
	restore()
	if !last {
		third.Rewind(t, next.Cluster) // It may have got what the new primary has not.
		lost.Rewind(t, next.Cluster)
		s.members = []*member{next, third, lost}
		s.synchronise(t)
	}
	figures := make([]figure, len(contenders))
	for i, c := range contenders {
		c.awaitAll(t)
		figures[i] = c.ledger.since(before[i], c.ledger.firstAfter(began).Sub(at))
		figures[i].missing, figures[i].doubled = c.verify(t, next.Cluster)
		c.rearrange(s)
	}
	require.Zero(t, figures[0].missing, "acknowledged and not there")
	require.Zero(t, figures[0].doubled, "there twice")
	return figures
}

// longest is for how long the primary stays lost, at most, until everybody writes again.
const longest = 40 * time.Second

// figure is what the clients of one contender have seen of one failover.
type figure struct {
	first            time.Duration // From the new primary's first write to theirs.
	errors, lost     int           // Errors; connections that ended.
	codes            string
	missing, doubled int // Rows that were acknowledged and are not there, or are there twice.
}

// counts is the state of a ledger at some moment.
type counts struct {
	errors map[string]int
	lost   int
}

func (l *ledger) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{errors: maps.Clone(l.errors), lost: l.lost}
}

func (l *ledger) since(c counts, first time.Duration) figure {
	now := l.counts()
	f := figure{first: first, lost: now.lost - c.lost}
	var codes []string
	for _, code := range slices.Sorted(maps.Keys(now.errors)) {
		if n := now.errors[code] - c.errors[code]; n > 0 {
			f.errors += n
			codes = append(codes, fmt.Sprintf("%s: %d", code, n))
		}
	}
	f.codes = strings.Join(codes, ", ")
	return f
}

// tableOf is the figures as a table in Markdown.
func tableOf(figures map[string][]figure, contenders []*contender) string {
	var b strings.Builder
	b.WriteString("| primary | clients by | first write, ms: median, p90, max | errors: median, max | connections lost: median, max | rows lost | rows doubled |\n|---|---|---|---|---|---|---|\n")
	for _, how := range disasters {
		for _, c := range contenders {
			all := figures[how+" "+c.name]
			if len(all) == 0 {
				continue
			}
			first := ordered(all, func(f figure) int { return int(f.first.Milliseconds()) })
			failed := ordered(all, func(f figure) int { return f.errors })
			lost := ordered(all, func(f figure) int { return f.lost })
			last := all[len(all)-1]
			fmt.Fprintf(&b, "| %s | %s | %d, %d, %d | %d, %d | %d, %d | %d | %d |\n", how, c.name,
				first[len(first)/2], first[len(first)*9/10], first[len(first)-1], failed[len(failed)/2], failed[len(failed)-1],
				lost[len(lost)/2], lost[len(lost)-1], last.missing, last.doubled)
		}
	}
	return b.String()
}

func ordered[T any, N cmp.Ordered](all []T, of func(T) N) []N {
	values := make([]N, len(all))
	for i, one := range all {
		values[i] = of(one)
	}
	slices.Sort(values)
	return values
}
