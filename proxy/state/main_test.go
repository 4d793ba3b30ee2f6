package state

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// session is a connection to a real server as the superuser or another role, for texts sent as they are.
type session struct {
	testing.TB
	conn *pgconn.PgConn
}

func dial(t testing.TB, c *pgtest.Cluster, database, user string) session {
	t.Helper()
	conn := pgtest.Connect(t, c.SocketURL(database, user))
	return session{t, conn.PgConn()}
}

// try sends one simple-protocol message and returns all rows of all its statements, NULL as "".
func (s session) try(sql string) ([][]string, error) {
	results, err := s.conn.Exec(context.Background(), sql).ReadAll()
	var rows [][]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, value := range values {
				row[i] = string(value)
			}
			rows = append(rows, row)
		}
	}
	return rows, err
}

// run is try for what must not fail.
func (s session) run(sql string) [][]string {
	s.Helper()
	rows, err := s.try(sql)
	require.NoError(s, err, sql)
	return rows
}

// value is the first column of the first row.
func (s session) value(sql string) string {
	s.Helper()
	rows := s.run(sql)
	require.NotEmpty(s, rows, sql)
	return rows[0][0]
}

// setConfig sets a setting by parameters of the extended protocol: no quoting is involved.
func (s session) setConfig(name, value string) error {
	result := s.conn.ExecParams(context.Background(), "SELECT set_config($1, $2, false)",
		[][]byte{[]byte(name), []byte(value)}, nil, nil, nil).Read()
	return result.Err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
