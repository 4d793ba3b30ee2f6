package proxy

import (
	"math"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMemory_nearTheLimit_isFullUnlessACollectionHelps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		used, limit, collections, garbage := int64(50), int64(math.MaxInt64), 0, int64(0)
		m := &memory{
			used: func() int64 { return used }, limit: func() int64 { return limit },
			collect: func() { collections++; used -= garbage; garbage = 0 },
		}
		after := func(d time.Duration, percent int) bool {
			time.Sleep(d)
			return m.full(percent)
		}
		used = math.MaxInt64 - 1
		require.False(t, after(0, 90), "there is no limit")
		limit, used = 1000, 899
		require.False(t, after(roomHolds, 90))
		require.Zero(t, collections)
		used = 900
		require.False(t, after(roomHolds/2, 90), "it was looked at a moment ago")
		require.True(t, after(roomHolds/2, 90))
		require.Equal(t, 1, collections)
		require.False(t, after(0, 0), "nobody is to be refused")
		garbage = 1
		require.True(t, after(fullHolds/2, 90), "collections are rare")
		require.Equal(t, 1, collections)
		require.False(t, after(fullHolds/2, 90), "clients have left")
		require.Equal(t, 2, collections)
	})
}

func TestMemoryInUse_countsWhatLivesAndNoGarbage(t *testing.T) {
	runtime.GC()
	before := memoryInUse()
	require.Positive(t, before)
	const n = 64 << 20
	block := make([]byte, n)
	runtime.GC()
	with := memoryInUse()
	require.InDelta(t, n, with-before, n/4)
	runtime.KeepAlive(block)
	runtime.GC()
	require.InDelta(t, 0, memoryInUse()-before, n/4)
}
