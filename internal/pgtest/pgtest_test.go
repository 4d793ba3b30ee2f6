package pgtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestForEach_runsOnEveryVersionFound(t *testing.T) {
	versions := pgtest.Versions(t)
	var seen []int
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		require.Equal(t, c.Major(), pgtest.Value[int](t, c, "SELECT current_setting('server_version_num')::int / 10000"))
		seen = append(seen, c.Major())
	})
	require.Equal(t, versions, seen)
}

func TestShared_isOneServerForAllTests(t *testing.T) {
	a, b := pgtest.Shared(t, 0), pgtest.Shared(t, 0)
	require.Same(t, a, b)
	role := a.Role(t)
	db := a.Database(t)
	conn := pgtest.Connect(t, a.URL(db, role))
	var user, database string
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT current_user, current_database()").Scan(&user, &database))
	require.Equal(t, role, user)
	require.Equal(t, db, database)
}

func TestStart_authenticationIsAskedFor(t *testing.T) {
	for _, method := range []string{"password", "md5", "scram-sha-256"} {
		t.Run(method, func(t *testing.T) {
			c := pgtest.Start(t, pgtest.Config{Auth: method})
			for _, user := range []string{pgtest.Superuser, c.Role(t)} {
				pgtest.Connect(t, c.URL("postgres", user))
				_, err := pgtest.TryConnect(t, c.URL("postgres", user, "password=wrong"))
				require.ErrorContains(t, err, "28P01")
			}
		})
	}
}

func TestVersions_aRequiredOneThatIsMissingFails(t *testing.T) {
	t.Setenv("PGSIDECAR_TEST_PG_REQUIRED", "15,99")
	inner := &failure{TB: t}
	require.Panics(t, func() { pgtest.Versions(inner) })
	require.Contains(t, inner.message, "PostgreSQL 99 was not found: run `make deps`")

	t.Setenv("PGSIDECAR_TEST_PG_REQUIRED", "")
	require.NotEmpty(t, pgtest.Versions(inner))
}
