package proxy_test

import (
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
