package pool

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAcquire_idleOnOwnLoop_lendsTheLastReleasedAtOnce(t *testing.T) {
	inWorld(t, Config{}, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		all := w.fill(p, 3)
		for _, i := range []int{0, 2, 1} {
			require.Equal(t, Idle, all[i].release())
		}
		require.True(t, p.Ready(0))
		before := got(all)
		require.Equal(t, []int{-1, -1, -1}, before)
		all[0].acquire(p)
		all[1].acquire(p)
		all[2].acquire(p)
		require.Equal(t, []int{1, 2, 0}, got(all))
		require.False(t, p.Ready(0))
		require.Equal(t, 3, w.dialled())
	})
}
