package config_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
)

func TestMerge_unchanged_hasNothingToDo(t *testing.T) {
	a, _, err := config.Load("", []string{url})
	require.NoError(t, err)
	b, _, err := config.Load(reference, []string{url}) // The same values, written out.
	require.NoError(t, err)
	_, changes := config.Merge(a, b)
	require.Empty(t, changes)
	require.Equal(t, a.Hash(), b.Hash())
}

func TestMerge_changes_areToldAndWhatNeedsARestartWaits(t *testing.T) {
	running, _, err := config.Load("", []string{url, "PGSIDECAR_LISTEN=127.0.0.1:1"})
	require.NoError(t, err)
	loaded, _, err := config.Load("", []string{
		"DATABASE_URL=postgres://app:changed@db:5432/app", "PGSIDECAR_LISTEN=127.0.0.1:2,/run/x", "MAX_CONNECTIONS=5",
		"PGSIDECAR_USERS={app: {max_clients: 2}}", "PGSIDECAR_LOOPS=2",
	})
	require.NoError(t, err)

	merged, changes := config.Merge(running, loaded)
	require.Equal(t, []config.Change{
		{"listen", "['127.0.0.1:1']", "['127.0.0.1:2', /run/x]", false},
		{"upstream.url", "postgres://app:xxxxx@db:5432/app", "postgres://app:xxxxx@db:5432/app", true},
		{"pool.max_connections", "20", "5", true},
		{"users", "{}", "app: {max_clients: 2}", true},
		{"loops", "1", "2", false},
	}, changes)
	require.Equal(t, running.Listen, merged.Listen)
	require.Equal(t, 1, merged.Loops)
	require.Equal(t, 5, merged.Pool.MaxConnections)
	require.Equal(t, "postgres://app:changed@db:5432/app", merged.Upstream.URL.Reveal())
	require.Equal(t, "127.0.0.1:2", loaded.Listen[0].Address, "what was loaded is left alone")

	_, changes = config.Merge(merged, loaded)
	require.Len(t, changes, 2, "only what waits for a restart is left")
	require.NotEqual(t, running.Hash(), merged.Hash())
}

func TestPrint_loadedAgain_isTheSame(t *testing.T) {
	c, origins, err := config.Load("", []string{
		"DATABASE_URL=postgres://app@db/app", "PGSIDECAR_DATABASES={a: {dbname: b, pool_mode: session}, 'true': {max_clients: 3}}",
		"PGSIDECAR_LISTEN=[{address: '127.0.0.1:1', route: primary}, /run/x]", "PGSIDECAR_CLIENT_IDLE_TIMEOUT=1h0m5s", "PGSIDECAR_HTTP_LISTEN=[]",
	})
	require.NoError(t, err)
	c.Users = map[string]config.User{}
	printed := config.Print(c, origins)
	require.Contains(t, string(printed), "url: postgres://app@db/app # DATABASE_URL\n")
	require.Contains(t, string(printed), "# PGSIDECAR_DATABASES\ndatabases:\n")
	require.Contains(t, string(printed), "idle_timeout: 1h0m5s # PGSIDECAR_CLIENT_IDLE_TIMEOUT\n")

	file := filepath.Join(t.TempDir(), "printed.yaml")
	require.NoError(t, os.WriteFile(file, printed, 0o600))
	again, _, err := config.Load(file, nil)
	require.NoError(t, err)
	require.Equal(t, c, again)
	require.Equal(t, time.Hour+5*time.Second, again.Client.IdleTimeout)
}
