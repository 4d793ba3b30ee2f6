package proxy_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// What drivers send to find out whether a connection is alive is answered without a server, as the server would.
func TestPing_isAnsweredWithoutAServer(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		gate := openGate(t, c.Addr())
		p := startFor(t, gate.url(t, c.URL("postgres", "postgres", "sslmode=disable")), func(config *proxy.Config) {
			config.Pool.MaxConnections = 1
		})
		direct, a := raw(t, c.URL("postgres", "postgres")), raw(t, p.url())
		p.idle(t)
		requests, transactions := gate.seen(), p.Snapshot().Pools[0].Transactions
		for range 3 {
			for _, ping := range [][]pgproto3.Message{
				{syncNow()},                      // sqlx
				{query("-- ping")},               // pgx
				{query(";")},                     // lib/pq
				{query("")},                      // psql, pgjdbc
				{query(" /* a /* b */ */ ; ; ")}, // those that add comments
				{syncNow(), syncNow(), query(""), flushNow(), syncNow()},
				{closeStatement("never"), closeStatement(""), closePortal("p"), syncNow()},
			} {
				require.Equal(t, direct.say(ping...), a.say(ping...))
			}
		}
		require.Equal(t, requests, gate.seen())
		require.Equal(t, transactions, p.Snapshot().Pools[0].Transactions)
		// With its server, in a transaction that has failed, it is the server that answers.
		for _, step := range [][]pgproto3.Message{
			{query("begin"), query("-- ping"), syncNow()},
			{query("select 1/0"), query("-- ping"), syncNow(), query("rollback")},
			{bind("nope"), skippedQuery("-- ping"), syncNow()},
		} {
			require.Equal(t, direct.say(step...), a.say(step...))
		}
		require.Greater(t, gate.seen(), requests)
	})
}
