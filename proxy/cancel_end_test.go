package proxy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

// pgx cancels like that when a context ends: the request, then Terminate as soon as the request's connection has ended. The
// end of the session must not overtake the request, or the query goes on without anybody waiting for it.
func TestCancel_terminateRightBehind_theQueryIsCancelled(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for _, mode := range []session.Mode{session.Transaction, session.WholeSession} {
			p := start(t, c, func(config *proxy.Config) { config.Mode = mode })
			for i := range 3 {
				query := fmt.Sprintf("select pg_sleep(600), %d", i)
				executing := func(n int) func() bool {
					const sql = "select count(*) from pg_stat_activity where state = 'active' and wait_event is not null and query = $1"
					return func() bool { return pgtest.Value[int](t, c, sql, query) == n }
				}
				client := pgtest.Dial(t, p.Addresses()[0])
				login := client.Login("postgres", pgcluster.Superuser)
				client.Send(&pgproto3.Query{String: query})
				require.Eventually(t, executing(1), time.Minute, 10*time.Millisecond)
				client.Cancel(login)
				client.Send(&pgproto3.Terminate{})
				require.Eventually(t, executing(0), time.Minute, 10*time.Millisecond)
			}
		}
	})
}
