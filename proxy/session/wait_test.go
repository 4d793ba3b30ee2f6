package session

import (
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/pool"
)

func TestWorker_alike_isOneClientForAllThatAreTheSame(t *testing.T) {
	w := &Worker{welcomed: make(map[Profile]*Client)}
	a, b := w.alike(Profile{User: "u", Database: "d"}), w.alike(Profile{User: "u", Database: "d"})
	require.Same(t, a, b)
	require.NotSame(t, a, w.alike(Profile{User: "u", Database: "d", Pool: new(pool.Pool)}))
	for i := range 2 * maxAlike {
		w.alike(Profile{Protocol: uint32(i)})
	}
	require.LessOrEqual(t, len(w.welcomed), maxAlike)
}

func TestWait_spares_followHowManyWait(t *testing.T) {
	l, err := loop.New(loop.Config{})
	require.NoError(t, err)
	defer func() { l.Stop(); require.NoError(t, l.Run()) }()
	w := &Worker{Loop: l}
	sessions := make([]Session, 1000)
	wave := func() {
		for i := range sessions {
			sessions[i].worker = w
			sessions[i].patience()
			w.gauges.Waiting.Add(1)
		}
		for i := range sessions {
			w.gauges.Waiting.Add(-1)
			sessions[i].rest()
			require.Nil(t, sessions[i].wait)
		}
	}
	wave()
	require.NotEmpty(t, w.waits)
	steady := testing.AllocsPerRun(100, func() { sessions[0].patience(); sessions[0].rest() })
	require.Zero(t, steady)
	for range sessions { // few wait from now on
		sessions[0].patience()
		sessions[0].rest()
	}
	require.LessOrEqual(t, len(w.waits), spareWaits+1)
}
