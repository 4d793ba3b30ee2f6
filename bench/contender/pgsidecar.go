package contender

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"pgsidecar/bench/process"
)

// NewPgsidecar prepares a pgsidecar, which Restart then starts: the program that PGSIDECAR names, else bin/pgsidecar, which `make build`
// makes. Without one the error wraps ErrMissing. More than one loop makes a contender of its own name.
func NewPgsidecar(ctx context.Context, cfg Config, name string, loops int) (*Contender, error) {
	path := os.Getenv("PGSIDECAR")
	if path == "" {
		path = filepath.Join("bin", "pgsidecar")
	}
	path, err := exec.LookPath(path)
	if err != nil {
		return nil, fmt.Errorf("find bin/pgsidecar, which make build makes, or what PGSIDECAR says: %w", ErrMissing)
	}
	version, err := firstLine(ctx, path, "version")
	if err != nil {
		return nil, err
	}
	return &Contender{
		Name: name, Version: version, Host: "127.0.0.1",
		launch: func(ctx context.Context, c *Contender) (*process.Process, error) {
			return launchPgsidecar(ctx, c, cfg, path, loops)
		},
	}, nil
}

func launchPgsidecar(ctx context.Context, c *Contender, cfg Config, path string, loops int) (*process.Process, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	http, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	httpAddress := net.JoinHostPort(c.Host, strconv.Itoa(http))
	c.Port, c.Metrics = port, "http://"+httpAddress+"/metrics"
	env := pgsidecarEnv(cfg, c, cfg.Postgres.cluster.URL(Database, c.Name, "sslmode=disable"), httpAddress, loops)
	return process.Start(ctx, process.Program{Path: path, Env: env, Log: filepath.Join(cfg.Dir, c.Name+".log")})
}

// pgsidecarEnv sets by environment what the comparison needs, the same as PgBouncer's configuration does; everything else stays at
// its default.
func pgsidecarEnv(cfg Config, c *Contender, upstream, httpAddress string, loops int) []string {
	return []string{
		"DATABASE_URL=" + upstream,
		"PGSIDECAR_LISTEN=" + net.JoinHostPort(c.Host, strconv.Itoa(c.Port)),
		"PGSIDECAR_HTTP_LISTEN=" + httpAddress,
		"PGSIDECAR_POOL_MODE=transaction",
		"PGSIDECAR_POOL_MAX_CONNECTIONS=" + strconv.Itoa(cfg.PoolSize),
		"PGSIDECAR_CLIENT_MAX_CLIENTS=" + strconv.Itoa(cfg.Clients),
		"PGSIDECAR_CLIENT_AUTH_METHOD=trust",
		"PGSIDECAR_CLIENT_TLS_MODE=allow",
		"PGSIDECAR_CLIENT_TLS_CERT_FILE=" + cfg.Postgres.certFile,
		"PGSIDECAR_CLIENT_TLS_KEY_FILE=" + cfg.Postgres.keyFile,
		"PGSIDECAR_LOG_CONNECTIONS=false",
		"PGSIDECAR_LOOPS=" + strconv.Itoa(loops),
	}
}
