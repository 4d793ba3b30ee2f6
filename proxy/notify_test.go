package proxy_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// The proxy does not know yet that the client listens when the first notification comes: its own, in the same write as the
// LISTEN, or another client's, while the proxy asks the server what the session holds.
func TestListen_notificationsThatComeAtOnce_areDelivered(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, nil)
		notifier := pgtest.Connect(t, c.URL("postgres", pgcluster.Superuser))
		for range 5 {
			listener := pgtest.Dial(t, p.Addresses()[0])
			listener.Login("postgres", pgcluster.Superuser)
			listener.Send(&pgproto3.Query{String: "listen at_once"}, &pgproto3.Query{String: "notify at_once, 'own'"})
			listener.ReceiveUntil('Z')
			own := received(t, listener)
			require.Equal(t, "own", own.Payload)
			require.NoError(t, listener.Conn.Close())

			listener = pgtest.Dial(t, p.Addresses()[0])
			listener.Login("postgres", pgcluster.Superuser)
			listener.Query("listen at_once")
			_, err := notifier.Exec(t.Context(), "notify at_once, 'of another'")
			require.NoError(t, err)
			require.Equal(t, "of another", received(t, listener).Payload)
			require.NoError(t, listener.Conn.Close())
		}
	})
}

// received reads up to the first notification.
func received(t *testing.T, c *pgtest.Client) *pgproto3.NotificationResponse {
	t.Helper()
	messages := c.ReceiveUntil('A')
	notification, err := messages[len(messages)-1].Decode()
	require.NoError(t, err)
	return notification.(*pgproto3.NotificationResponse)
}

// A client that listens through the shared connection, and has LISTEN executed again by a server that something else keeps
// for it, hears the notifications of both.
func TestListen_pinnedForSomethingElse_hearsEarlierChannelsToo(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := startFor(t, c.URL(c.Database(t), pgtest.Superuser), nil)
	first, conn, other := pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())
	one(t, first, "listen others") // the first listener's server becomes the shared connection
	one(t, conn, "listen early")
	await(t, "the shared connection takes over", func() bool {
		s := p.Snapshot()
		return len(s.Pins) == 1 && len(s.Pinned) == 0 // the second listener was pinned until then
	})
	one(t, conn, "create temp table t ()")
	one(t, conn, "listen late")
	p.pinned(t, `temp table "t", LISTEN "late"`)
	one(t, other, "notify early, '1'")
	one(t, other, "notify late, '2'")
	one(t, other, "notify early, '3'")
	var heard []string
	for range 3 {
		ctx, stop := context.WithTimeout(t.Context(), patience)
		n, err := conn.WaitForNotification(ctx)
		stop()
		require.NoError(t, err, "after %v", heard)
		heard = append(heard, n.Channel+n.Payload)
	}
	require.ElementsMatch(t, []string{"early1", "late2", "early3"}, heard)
}
