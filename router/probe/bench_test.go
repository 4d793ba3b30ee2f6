package probe

import (
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// BenchmarkAsk is one probe over a connection that is there: a round trip with the question.
func BenchmarkAsk(b *testing.B) {
	cluster := pgtest.Shared(b, 0)
	connect, err := pgconn.ParseConfig(cluster.URL("postgres", pgtest.Superuser))
	require.NoError(b, err)
	p := New(Config{Connect: connect})
	c := connection{config: &p.config}
	defer c.close()
	require.NoError(b, c.ask(b.Context()).Err)
	for b.Loop() {
		if o := c.ask(b.Context()); o.Err != nil {
			b.Fatal(o.Err)
		}
	}
}
