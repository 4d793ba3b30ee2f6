package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestChoose_prefixes_chooseEachThatBeginsSo(t *testing.T) {
	chosen, err := choose(plan(10), []string{"simple-1000", "idle"})
	require.NoError(t, err)
	names := make([]string, len(chosen))
	for i, e := range chosen {
		names[i] = e.name
	}
	require.Equal(t, []string{"simple-1000", "idle", "idle-tls"}, names)

	_, err = choose(plan(10), []string{"simple", "nonesuch"})
	require.ErrorContains(t, err, `"nonesuch"`)
}

func TestPlan_names_areUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range plan(10) {
		require.False(t, seen[e.name], e.name)
		seen[e.name] = true
		require.Contains(t, e.contenders, e.base)
	}
}

func TestPlan_restartingLoads_comeLast(t *testing.T) {
	restarting := false
	for _, e := range plan(10) {
		require.False(t, restarting && !e.restarts, "%s would run on fresh proxies", e.name)
		restarting = e.restarts
	}
}

func TestParseFlags_quick_isOneShortRound(t *testing.T) {
	opts, err := parseFlags([]string{"-quick", "-loads", "simple, idle"}, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, 1, opts.rounds)
	require.Equal(t, time.Second, opts.duration)
	require.Equal(t, []string{"simple", "idle"}, opts.loads)
}

func TestParseFlags_nonsense_isRefused(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-seconds", "0.1"}, {"more"}, {"-nonesuch"}} {
		_, err := parseFlags(args, &bytes.Buffer{})
		require.Error(t, err, args)
	}
}

func TestRun_list_startsNothing(t *testing.T) {
	var stdout bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-list", "-loads", "copy"}, &stdout, &bytes.Buffer{}))
	require.Contains(t, stdout.String(), "copy-in")
}
