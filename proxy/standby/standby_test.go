package standby

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func of(name string, v View) *Standby {
	b := New(name)
	b.Tell(v)
	return b
}

// A connection that was there when the standby was seen.
func there() Connection { return Connection{Dialled: 15, Ready: 16} }

func TestShows_commitsBeforeTheMoment_only(t *testing.T) {
	b := of("b", View{Shows: 100, Since: 10, Seen: 120})
	require.True(t, b.Shows(Needs{}, there()))
	require.True(t, b.Shows(Needs{Wrote: 99}, there()))
	require.False(t, b.Shows(Needs{Wrote: 100}, there()), "asked at the very moment of the answer")
	require.False(t, b.Shows(Needs{Wrote: 101}, there()))
	require.False(t, b.Shows(Needs{Read: 101}, there()), "read on the primary")
	require.False(t, New("unknown").Shows(Needs{Wrote: 1}, there()))
	require.True(t, New("unknown").Shows(Needs{}, there()))
}

func TestShows_connectionThatMayLeadToTheServerStartedAnew_isNotBelieved(t *testing.T) {
	b := of("b", View{Shows: 100, Since: 10, Seen: 120})
	require.False(t, b.Shows(Needs{Wrote: 50}, Connection{Dialled: 9, Ready: 12}), "dialled before the probe's connection was there")
	require.False(t, b.Shows(Needs{Wrote: 50}, Connection{Dialled: 119, Ready: 121}), "logged in after the standby was seen")
	require.False(t, b.Shows(Needs{Wrote: 50}, Connection{Dialled: 119, Ready: 120}))
	require.True(t, b.Shows(Needs{Wrote: 50}, Connection{Dialled: 11, Ready: 119}))
	require.True(t, b.Outdated(Connection{Dialled: 10, Ready: 12}), "it is of no use any more")
	require.False(t, b.Outdated(Connection{Dialled: 119, Ready: 121}), "it will be believed soon")
}

func TestShows_readOnTheSameStandby_needsNoMomentUnlessItMayHaveBeenStartedAnew(t *testing.T) {
	b := of("b", View{Shows: 100, Since: 10, Seen: 120})
	require.True(t, b.Shows(Needs{Read: 500, On: b}, there()), "the connection was there when it was read")
	require.True(t, b.Shows(Needs{Read: 500, On: b}, Connection{Dialled: 499, Ready: 500}))
	require.False(t, b.Shows(Needs{Read: 500, On: b}, Connection{Dialled: 499, Ready: 501}))
	require.True(t, b.Shows(Needs{Read: 110, On: b}, Connection{Dialled: 111, Ready: 112}), "the probe's connection was there all the time")
	b.Tell(View{Since: 10, Seen: 120})
	require.True(t, b.Shows(Needs{Read: 110, On: b}, Connection{Dialled: 111, Ready: 112}), "wherever it is")
	require.False(t, b.Shows(Needs{Read: 10, On: b}, Connection{Dialled: 111, Ready: 112}), "read before the probe's connection was there")
	b.Tell(View{Shows: 100, Since: 10, Seen: 120})
	require.False(t, b.Shows(Needs{Wrote: 200, Read: 500, On: b}, there()), "what it wrote has to be there all the same")
	require.False(t, b.Shows(Needs{Read: 500, On: New("other")}, there()))
}

func TestChoose_ofTwo_theOneLessInUse(t *testing.T) {
	var s Set
	none, fit := s.Choose(Needs{})
	require.Nil(t, none)
	require.Zero(t, fit)
	idle, busy, behind, avoided := New("idle"), New("busy"), of("behind", View{Shows: 5}), of("avoided", View{Shows: 500, Avoid: true})
	idle.Tell(View{Shows: 100})
	busy.Tell(View{Shows: 100})
	busy.Use(3)
	s.Replace([]*Standby{busy, behind, idle, avoided})
	for range 50 {
		b, fit := s.Choose(Needs{Wrote: 50})
		require.Same(t, idle, b)
		require.Equal(t, Fit{Standbys: 2, Behind: 1}, fit)
	}
	idle.Use(9)
	b, _ := s.Choose(Needs{Wrote: 50})
	require.Same(t, busy, b)
}

func TestChoose_ofMany_eachGetsItsShare(t *testing.T) {
	var s Set
	all := []*Standby{New("a"), New("b"), New("c"), New("d")}
	s.Replace(all)
	counts := make(map[*Standby]int)
	const times = 8000
	for range times {
		b, _ := s.Choose(Needs{})
		counts[b]++
	}
	for _, b := range all {
		require.InDelta(t, times/4, counts[b], times/4/3, b.Name)
	}
}
