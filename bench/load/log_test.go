package load

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func at(seconds float64) time.Time {
	return time.UnixMicro(int64(seconds * 1e6))
}

func TestReadLogs_severalThreads_readsAll(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "transactions")
	require.NoError(t, os.WriteFile(prefix+".42", []byte("0 1 250 0 1700000000 500000\n0 2 300 0 1700000001 7\n"), 0o600))
	require.NoError(t, os.WriteFile(prefix+".42.1", []byte("1 1 400 0 1700000000 600000 \n"), 0o600))
	all, err := readLogs(prefix)
	require.NoError(t, err)
	require.Equal(t, []transaction{
		{client: 0, end: time.UnixMicro(1700000000500000), latency: 250 * time.Microsecond},
		{client: 0, end: time.UnixMicro(1700000001000007), latency: 300 * time.Microsecond},
		{client: 1, end: time.UnixMicro(1700000000600000), latency: 400 * time.Microsecond},
	}, all)
}

func TestParseTransaction_notALogLine_isAnError(t *testing.T) {
	for _, line := range []string{"", "0 1 250", "0 1 failed 0 1700000000 500000"} {
		_, err := parseTransaction(line)
		require.Error(t, err, line)
	}
}

func TestWithin_loadRunsThroughout_keepsWhatEndedInside(t *testing.T) {
	all := []transaction{{end: at(1)}, {end: at(2)}, {end: at(2.5)}, {end: at(3)}, {end: at(3.1)}}
	kept, err := within(all, at(2), at(3))
	require.NoError(t, err)
	require.Equal(t, all[2:4], kept)
}

func TestWithin_loadDoesNotCoverTheMeasurement_isAnError(t *testing.T) {
	for name, all := range map[string][]transaction{
		"ends too early":  {{end: at(1)}, {end: at(2.5)}},
		"begins too late": {{end: at(2.5)}, {end: at(4)}},
		"stands still":    {{end: at(1)}, {end: at(4)}},
	} {
		_, err := within(all, at(2), at(3))
		require.Error(t, err, name)
	}
}

func TestCycles_interleavedClients_measuresEachClientsOwn(t *testing.T) {
	all := []transaction{
		{client: 1, end: at(1), latency: 1},
		{client: 2, end: at(1.25), latency: 1},
		{client: 1, end: at(1.5), latency: 1},
		{client: 2, end: at(3.25), latency: 1},
	}
	require.Equal(t, []transaction{
		{client: 1, end: at(1.5), latency: 500 * time.Millisecond},
		{client: 2, end: at(3.25), latency: 2 * time.Second},
	}, cycles(all))
}

func TestPercentiles_unsorted_countsFromTheLowest(t *testing.T) {
	all := make([]time.Duration, 100)
	for i := range all {
		all[i] = time.Duration((i*37)%100) * time.Microsecond
	}
	require.Equal(t, []float64{50, 99, 99}, percentiles(all, 0.5, 0.99, 1))
	require.Equal(t, []float64{0}, percentiles(nil, 0.5))
}
