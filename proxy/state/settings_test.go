package state

import (
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIntern_equalSets_areOnePointer(t *testing.T) {
	in := NewInterner()
	a := in.Intern([]Setting{{"TimeZone", "UTC"}, {"client_encoding", "UTF8"}})
	b := in.Intern([]Setting{{"client_encoding", "LATIN1"}, {"client_encoding", "UTF8"}, {"timezone", "UTC"}})
	require.Same(t, a, b)
	require.Equal(t, []Setting{{"client_encoding", "UTF8"}, {"timezone", "UTC"}}, a.List())
	require.NotSame(t, a, in.With(a, "timezone", "utc"), "values are compared exactly")
	require.Same(t, a, in.Without(in.With(a, "app.x", ""), "APP.X"))
}

func TestIntern_nothing_isNil(t *testing.T) {
	in := NewInterner()
	require.Nil(t, in.Intern(nil))
	require.Nil(t, in.Without(in.With(nil, "a", "b"), "a"))
	var none *Settings
	require.Empty(t, none.List())
	_, ok := none.Get("a")
	require.False(t, ok)
}

func TestIntern_setsThatCouldRunTogether_differ(t *testing.T) {
	in := NewInterner()
	require.NotSame(t, in.Intern([]Setting{{"a", "b"}, {"c", "d"}}), in.Intern([]Setting{{"a", "bc"}, {"d", ""}}))
	require.NotSame(t, in.Intern([]Setting{{"a", ""}}), in.Intern([]Setting{{"a", "a"}}))
}

func TestIntern_order_isTheOrderOfApplication(t *testing.T) {
	s := NewInterner().Intern([]Setting{
		{"role", "r"}, {"application_name", "a"}, {"session_authorization", "s"}, {"zero.x", "z"}, {"client_encoding", "UTF8"},
	})
	var names []string
	for _, one := range s.List() {
		names = append(names, one.Name)
	}
	require.Equal(t, []string{"client_encoding", "application_name", "zero.x", "session_authorization", "role"}, names)
}

func TestGet_anySpelling_findsTheSetting(t *testing.T) {
	s := NewInterner().Intern([]Setting{{"sort_mem", "1MB"}, {"App.User_ID", "7"}})
	value, ok := s.Get("WORK_MEM")
	require.True(t, ok)
	require.Equal(t, "1MB", value)
	value, ok = s.Get("app.user_id")
	require.True(t, ok)
	require.Equal(t, "7", value)
	_, ok = s.Get("app")
	require.False(t, ok)
}

func TestInterner_setsNobodyHolds_areForgotten(t *testing.T) {
	in := NewInterner()
	kept := in.Intern([]Setting{{"app.user_id", "kept"}})
	for i := range 100 {
		in.Intern([]Setting{{"app.user_id", strconv.Itoa(i)}})
	}
	left := 0
	for range 100 { // Cleanups run some time after a collection.
		runtime.GC()
		in.mu.Lock()
		left = len(in.mu.sets)
		in.mu.Unlock()
		if left == 1 {
			break
		}
	}
	require.Equal(t, 1, left)
	require.Same(t, kept, in.Intern([]Setting{{"app.user_id", "kept"}}))
}

func TestInterner_manyGoroutines_agree(t *testing.T) {
	in := NewInterner()
	const workers = 8
	var got [workers][50]*Settings
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range got[w] {
				got[w][i] = in.Intern([]Setting{{"a", strconv.Itoa(i)}})
			}
		})
	}
	wg.Wait()
	for w := range workers {
		require.Equal(t, got[0], got[w])
		for i := range got[w] {
			require.Same(t, got[0][i], got[w][i])
		}
	}
}
