package state

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestQuick(t *testing.T) {
	for _, sql := range []string{"SELECT 1", "SELECT count(*) FROM t WHERE a = $1", "SET x = 1", "select f(x)", "BEGIN"} {
		t.Logf("%q %b %v", sql, Effects([]byte(sql)), Classify([]byte(sql)))
	}
	sql := []byte("SELECT u.id, u.name, count(*) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1 AND o.state IN ('new', 'paid') GROUP BY 1, 2 ORDER BY 1 LIMIT 10")
	require.Zero(t, testing.AllocsPerRun(100, func() { Effects(sql) }))
	require.Zero(t, Effects(sql))
}

func BenchmarkEffects(b *testing.B) {
	for name, sql := range map[string]string{
		"select 1": "SELECT 1",
		"select":   "SELECT u.id, u.name, count(*) FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1 AND o.state IN ('new', 'paid') GROUP BY 1, 2 ORDER BY 1 LIMIT 10",
		"insert":   "INSERT INTO \"orders\" (\"id\", \"customer\", \"state\", \"note\", \"created_at\") VALUES (4711, 'Smith & Sons, 12 Long Road, Springfield', 'new', 'please leave it with the neighbour; she''s in', now()) RETURNING \"id\"",
		"update":   "UPDATE pgbench_accounts SET abalance = abalance + -2347 WHERE aid = 7762532;",
		"delete":   "DELETE FROM sessions WHERE expires_at < '2026-01-01 00:00:00+00' AND user_id = 17",
		"begin":    "BEGIN",
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(sql)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				Effects(text)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(text)), "ns/B")
		})
	}
}
