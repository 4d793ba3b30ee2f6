package pool

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReserved_all_nobodyIsServedUntilThereIsRoom(t *testing.T) {
	c := Config{MaxConnections: 2, Reserved: 2}
	inWorld(t, c, func(t *testing.T, w *world) {
		p := w.target.Pool("db", "user")
		first, second := w.session(0, 0), w.session(1, 0)
		first.acquire(p)
		second.acquire(p)
		w.settle()
		require.Zero(t, w.target.Stats().Lent+w.target.Stats().Dialing)
		require.Equal(t, 2, w.target.Stats().Waiting)

		c.Reserved = 1
		w.target.Reconfigure(c)
		w.settle()
		require.Equal(t, 1, w.target.Stats().Lent)
		require.Equal(t, 1, w.target.Stats().Waiting)

		c.Reserved = 2 // The other process wants it back: it goes when it is released, not to the one that waits.
		w.target.Reconfigure(c)
		require.Equal(t, Close, first.release())
		w.settle()
		require.Zero(t, w.target.Stats().Lent+w.target.Stats().Dialing)

		c.Reserved = 0
		w.target.Reconfigure(c)
		w.settle()
		require.Equal(t, 1, w.target.Stats().Lent)
		require.Zero(t, w.target.Stats().Waiting)
	})
}

func TestReserved_idleConnectionsAreGivenUpAtOnce(t *testing.T) {
	c := Config{MaxConnections: 3}
	inWorld(t, c, func(t *testing.T, w *world) {
		for _, s := range w.fill(w.target.Pool("db", "user"), 3) {
			s.release()
		}
		c.Reserved = 5 // More than there are: all.
		w.target.Reconfigure(c)
		w.settle()
		require.Zero(t, w.target.Stats().Idle+w.target.Stats().Closing)
	})
}
