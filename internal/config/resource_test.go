package config

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSize_unitsAndFaults(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "4MiB": 4 << 20, "131072KiB": 128 << 20, "1GiB": 1 << 30, "1536MiB": 3 << 29, "5000000B": 5_000_000} {
		var n int64
		r := &reader{failed: map[string]bool{}}
		v := size(&n)
		v.decode(r, "x", textNode(text))
		require.Empty(t, r.faults)
		require.Equal(t, want, n)
		again := textNode(v.encode().Value)
		v.decode(r, "x", again)
		require.Equal(t, want, n, again.Value)
	}
	for _, text := range []string{"", "128", "128M", "1MiB", "-4MiB", "x", "9999999999GiB", "1.5GiB", "MiB"} {
		var n int64
		r := &reader{failed: map[string]bool{}}
		size(&n).decode(r, "x", textNode(text))
		require.Len(t, r.faults, 1, text)
		require.Zero(t, n)
	}
}

func TestCPUList_rangesAndFaults(t *testing.T) {
	for text, want := range map[string]string{"": "", "0": "0", "0-1": "0-1", "3,0,1,1-2,7": "0-3,7", "5,4": "4-5"} {
		var cpus []int
		r := &reader{failed: map[string]bool{}}
		v := cpuList(&cpus)
		v.decode(r, "x", textNode(text))
		require.Empty(t, r.faults, text)
		require.Equal(t, want, v.encode().Value)
	}
	for _, text := range []string{"a", "-1", "1-", "2-1", "0-9999", "1,,2"} {
		var cpus []int
		r := &reader{failed: map[string]bool{}}
		cpuList(&cpus).decode(r, "x", textNode(text))
		require.Len(t, r.faults, 1, text)
	}
}
