package state

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// ordinary statements of applications: harmless to the session.
var ordinary = []string{
	"SELECT u.id, u.name, count(*) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1 AND o.state IN ('new', 'paid') GROUP BY 1, 2 ORDER BY 1 LIMIT 10",
	`INSERT INTO "orders" ("id", "customer", "state", "note", "created_at") VALUES (4711, 'Smith & Sons, 12 Long Road, Springfield', 'new', 'please leave it with the neighbour; she''s in', now()) RETURNING "id"`,
	"UPDATE pgbench_accounts SET abalance = abalance + -2347 WHERE aid = 7762532;",
	"DELETE FROM sessions WHERE expires_at < '2026-01-01 00:00:00+00' AND user_id = 17",
}

func TestEffects_ordinaryStatements_doNotAllocate(t *testing.T) {
	for _, sql := range ordinary {
		text := []byte(sql)
		require.Zero(t, testing.AllocsPerRun(100, func() { Effects(text) }), sql)
		require.Zero(t, Effects(text)&^Write, sql)
	}
}
