package discover

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// follow runs a source until the test (or bubble) ends and returns what it publishes.
func follow(t *testing.T, source Source) <-chan Snapshot {
	t.Helper()
	published := make(chan Snapshot, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		source.Run(ctx, func(s Snapshot) { published <- s })
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return published
}

// until returns the first snapshot that meets a condition.
func until(t *testing.T, published <-chan Snapshot, met func(s Snapshot) bool) Snapshot {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	var last Snapshot
	for {
		select {
		case last = <-published:
			if met(last) {
				return last
			}
		case <-limit.C:
			t.Fatalf("nothing like that was published; last %+v", last)
		}
	}
}

func hosts(s Snapshot) (hosts []string) {
	for _, t := range s.Targets {
		hosts = append(hosts, t.Addr())
	}
	return hosts
}

func TestList_replacementIsPublishedAndAnEmptyOneRefused(t *testing.T) {
	l := NewList([]Target{{Host: "a", Port: 1}, {Name: "b", Host: "/run", Port: 2}})
	published := follow(t, l)
	s := <-published
	require.Equal(t, []Target{{Name: "a:1", Host: "a", Port: 1}, {Name: "b", Host: "/run", Port: 2}}, s.Targets)
	require.NoError(t, s.Err)
	require.False(t, s.Authority)
	require.False(t, s.At.IsZero())

	require.ErrorIs(t, l.Replace(nil), ErrEmpty)
	require.NoError(t, l.Replace([]Target{{Host: "c", Port: 3}}))
	require.Equal(t, []string{"c:3"}, hosts(<-published))
}

// zone is a resolver.
type zone struct {
	mu        sync.Mutex
	addresses map[string][]string
	services  map[string][]*net.SRV
	asked     int
}

func (z *zone) set(host string, addresses ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addresses[host] = addresses
}

func (z *zone) count() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked
}

func (z *zone) LookupNetIP(ctx context.Context, _, host string) (found []netip.Addr, err error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	addresses, ok := z.addresses[host]
	if !ok {
		return nil, errors.New("no such host")
	}
	if len(addresses) == 1 && addresses[0] == "hang" {
		z.mu.Unlock()
		<-ctx.Done()
		z.mu.Lock()
		return nil, ctx.Err()
	}
	for _, a := range addresses {
		found = append(found, netip.MustParseAddr(a))
	}
	return found, nil
}

func (z *zone) LookupSRV(_ context.Context, _, _, name string) (string, []*net.SRV, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return "", z.services[name], nil
}

func TestDNS_eachAddressIsATargetOfTheSameServerName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addresses: map[string][]string{"pg.example": {"10.0.0.2", "fd00::1", "::ffff:10.0.0.1", "10.0.0.2"}}}
		s := <-follow(t, NewDNS(DNSConfig{Host: "pg.example", Resolver: z, Role: Primary}))
		require.NoError(t, s.Err)
		require.Equal(t, []string{"10.0.0.1:5432", "10.0.0.2:5432", "[fd00::1]:5432"}, hosts(s))
		require.Equal(t, Target{
			Name: "pg.example/10.0.0.1:5432", Host: "10.0.0.1", Port: 5432, ServerName: "pg.example", Role: Primary,
		}, s.Targets[0])
	})
}

func TestDNS_errorsKeepWhatWasKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addresses: map[string][]string{}}
		published := follow(t, NewDNS(DNSConfig{Host: "pg", Resolver: z}))
		s := <-published
		require.Error(t, s.Err)
		require.Empty(t, s.Targets)

		z.set("pg", "10.0.0.1")
		require.Equal(t, []string{"10.0.0.1:5432"}, hosts(<-published))
		for _, answer := range [][]string{{}, {"hang"}} {
			z.set("pg", answer...)
			s = <-published
			require.Error(t, s.Err, answer)
			require.Equal(t, []string{"10.0.0.1:5432"}, hosts(s), answer)
		}
		z.set("pg", "10.0.0.9")
		s = <-published
		require.NoError(t, s.Err)
		require.Equal(t, []string{"10.0.0.9:5432"}, hosts(s))
	})
}

func TestDNS_isAskedEveryFewSecondsAndSoonAfterARefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addresses: map[string][]string{"pg": {"10.0.0.1"}}}
		d := NewDNS(DNSConfig{Host: "pg", Resolver: z})
		follow(t, d)
		time.Sleep(time.Minute)
		require.InDelta(t, 12, z.count(), 2)

		before := z.count()
		for range 1000 {
			d.Refresh()
			time.Sleep(time.Millisecond)
		}
		require.InDelta(t, 5, z.count()-before, 1)
	})
}

func TestDNS_servicesAreResolvedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{
			addresses: map[string][]string{"a.example": {"10.0.0.1"}, "b.example": {"10.0.0.2"}},
			services:  map[string][]*net.SRV{"_pg._tcp.example": {{Target: "b.example.", Port: 6000}, {Target: "a.example.", Port: 5432}}},
		}
		published := follow(t, NewDNS(DNSConfig{Host: "_pg._tcp.example", SRV: true, Resolver: z}))
		s := <-published
		require.Equal(t, []string{"10.0.0.1:5432", "10.0.0.2:6000"}, hosts(s))
		require.Equal(t, "b.example", s.Targets[1].ServerName)

		z.set("a.example", "10.0.0.7")
		z.set("b.example") // It has no address for a while.
		require.Equal(t, []string{"10.0.0.7:5432", "10.0.0.2:6000"}, hosts(<-published))
		z.set("a.example")
		s = <-published
		require.Equal(t, []string{"10.0.0.7:5432", "10.0.0.2:6000"}, hosts(s))

		z.mu.Lock()
		z.services = nil
		z.mu.Unlock()
		s = <-published
		require.ErrorIs(t, s.Err, ErrEmpty)
		require.Equal(t, []string{"10.0.0.7:5432", "10.0.0.2:6000"}, hosts(s))
	})
}

func TestDNS_addressesNeedNoResolver(t *testing.T) {
	for _, host := range []string{"10.0.0.1", "fd00::1", "/run/postgresql"} {
		s := <-follow(t, NewDNS(DNSConfig{Host: host, Port: 7, Resolver: &zone{}}))
		require.NoError(t, s.Err)
		require.Equal(t, host, s.Targets[0].Host)
		require.Empty(t, s.Targets[0].ServerName)
	}
}

func TestServices_giveHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{addresses: map[string][]string{"pg-rw": {"10.0.0.1"}, "pg-ro": {"10.0.0.1", "10.0.0.2"}}}
		published := follow(t, Services("pg-rw", "pg-ro", DNSConfig{Resolver: z}))
		s := <-published
		require.Equal(t, []Target{
			{Name: "pg-rw/10.0.0.1:5432", Host: "10.0.0.1", Port: 5432, ServerName: "pg-rw", Role: Primary},
			{Name: "pg-ro/10.0.0.2:5432", Host: "10.0.0.2", Port: 5432, ServerName: "pg-ro", Role: Standby},
		}, s.Targets)
		require.False(t, s.Authority)
	})
}

// said is a source that publishes what it is told.
type said chan Snapshot

func (s said) Run(ctx context.Context, publish func(Snapshot)) {
	for {
		select {
		case snapshot := <-s:
			publish(snapshot)
		case <-ctx.Done():
			return
		}
	}
}

func TestMerge_waitsForAllAndNamesTheLeaderAsItsTargetIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := make(said), make(said)
		published := follow(t, Merge(a, b))
		a <- Snapshot{Targets: []Target{{Name: "one", Host: "h1", Port: 1}}}
		synctest.Wait()
		require.Empty(t, published)

		b <- Snapshot{Authority: true, Leader: "p1", Targets: []Target{
			{Name: "p1", Host: "h1", Port: 1, Role: Primary, Timeline: 3}, {Name: "p2", Host: "h2", Port: 1, Role: Standby},
		}}
		s := <-published
		require.Equal(t, []Target{
			{Name: "one", Host: "h1", Port: 1, Role: Primary, Timeline: 3}, {Name: "p2", Host: "h2", Port: 1, Role: Standby},
		}, s.Targets)
		require.True(t, s.Authority)
		require.Equal(t, "one", s.Leader)

		b <- Snapshot{Err: errors.New("it is down"), Targets: []Target{{Name: "p2", Host: "h2", Port: 1}}}
		s = <-published
		require.ErrorContains(t, s.Err, "it is down")
		require.False(t, s.Authority)
		require.Equal(t, []string{"h1:1", "h2:1"}, hosts(s))
	})
}

func TestMembers_theWriterIsBelievedRatherThanReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMembers(MembersConfig{Hosts: InstanceHosts("app.cluster-ro-c1x2.eu-west-1.rds.amazonaws.com")})
		published := follow(t, m)
		m.Observe(nil)
		synctest.Wait()
		require.Empty(t, published)

		m.Observe([]Member{{ID: "one", Self: true}, {ID: "two", Writer: true}})
		s := <-published
		require.Equal(t, []Target{
			{Name: "one", Host: "one.c1x2.eu-west-1.rds.amazonaws.com", Port: 5432, Role: Standby},
			{Name: "two", Host: "two.c1x2.eu-west-1.rds.amazonaws.com", Port: 5432, Role: Primary},
		}, s.Targets)
		require.False(t, s.Authority)

		m.Observe([]Member{{ID: "one", Self: true, Writer: true}, {ID: "two"}})
		require.Equal(t, Primary, (<-published).Targets[0].Role)
		m.Observe([]Member{{ID: "one"}, {ID: "two", Self: true, Writer: false}}) // It has not heard of the switch.
		m.Observe([]Member{})
		synctest.Wait()
		require.Empty(t, published)
		time.Sleep(readersWait)
		m.Observe([]Member{{ID: "a", Host: "a.example", Port: 7}, {ID: "../b"}})
		require.Equal(t, []Target{{Name: "a", Host: "a.example", Port: 7, Role: Standby}}, (<-published).Targets)
	})
}

func TestInstanceHosts_fromAnyEndpoint(t *testing.T) {
	for endpoint, want := range map[string]string{
		"app.cluster-c1x2.eu-west-1.rds.amazonaws.com":         "?.c1x2.eu-west-1.rds.amazonaws.com",
		"app.cluster-custom-c1x2.eu-west-1.rds.amazonaws.com":  "?.c1x2.eu-west-1.rds.amazonaws.com",
		"one.c1x2.eu-west-1.rds.amazonaws.com":                 "?.c1x2.eu-west-1.rds.amazonaws.com",
		"app.cluster-c1x2.rds.cn-northwest-1.amazonaws.com.cn": "?.c1x2.rds.cn-northwest-1.amazonaws.com.cn",
		"pg.example":              "",
		"bucket.s3.amazonaws.com": "",
	} {
		require.Equal(t, want, InstanceHosts(endpoint), endpoint)
	}
}
