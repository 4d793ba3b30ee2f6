package contender

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
	"pgsidecar/internal/pgcluster"
)

// certified is a Postgres without a server, which has the proxies' certificate.
func certified(t *testing.T) *Postgres {
	t.Helper()
	authority, err := pgcluster.NewCA()
	require.NoError(t, err)
	p := &Postgres{}
	require.NoError(t, p.writeCertificate(t.TempDir(), authority))
	return p
}

func TestPgsidecarEnv_loaded_isAFaultlessConfiguration(t *testing.T) {
	cfg := Config{PoolSize: 16, Clients: 5200, Postgres: certified(t)}
	c := &Contender{Name: "pgsidecar", Host: "127.0.0.1", Port: 6432}
	loaded, _, err := config.Load("", pgsidecarEnv(cfg, c, "postgres://pgsidecar@127.0.0.1:5432/bench", "127.0.0.1:6433", 2))
	require.NoError(t, err)
	require.Equal(t, 16, loaded.Pool.MaxConnections)
	require.Equal(t, 5200, loaded.Client.MaxClients)
	require.Equal(t, 2, loaded.Loops)
	require.Equal(t, config.TLSAllow, loaded.ClientTLS.Mode)
	require.False(t, loaded.Log.Connections)
}

func TestNewPgsidecar_notBuilt_isMissing(t *testing.T) {
	t.Setenv("PGSIDECAR", filepath.Join(t.TempDir(), "nonesuch"))
	_, err := NewPgsidecar(t.Context(), Config{}, "pgsidecar", 1)
	require.ErrorIs(t, err, ErrMissing)
}

func TestNewPgBouncer_notInstalled_isMissing(t *testing.T) {
	t.Setenv("PGBOUNCER", filepath.Join(t.TempDir(), "nonesuch"))
	_, err := NewPgBouncer(t.Context(), Config{})
	require.ErrorIs(t, err, ErrMissing)
}

func TestContender_url_namesItsRole(t *testing.T) {
	c := &Contender{Name: "pgsidecar-2-loops", Host: "127.0.0.1", Port: 7000}
	require.Equal(t, "postgres://pgsidecar-2-loops@127.0.0.1:7000/bench?sslmode=disable", c.URL())
}
