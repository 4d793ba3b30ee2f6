package contender

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"pgsidecar/bench/process"
)

// NewPgBouncer prepares PgBouncer, which Restart then starts: the program that PGBOUNCER names, else the one on the PATH.
// Without one the error wraps ErrMissing.
func NewPgBouncer(ctx context.Context, cfg Config) (*Contender, error) {
	program := os.Getenv("PGBOUNCER")
	if program == "" {
		program = "pgbouncer"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("find PgBouncer on the PATH, or where PGBOUNCER says: %w", ErrMissing)
	}
	version, err := firstLine(ctx, path, "--version")
	if err != nil {
		return nil, err
	}
	return &Contender{
		Name: "pgbouncer", Version: version, Host: "127.0.0.1",
		launch: func(ctx context.Context, c *Contender) (*process.Process, error) {
			return launchPgBouncer(ctx, c, cfg, path)
		},
	}, nil
}

func launchPgBouncer(ctx context.Context, c *Contender, cfg Config, path string) (*process.Process, error) {
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	c.Port = port
	users := filepath.Join(cfg.Dir, "pgbouncer-users.txt")
	if err := writeFile(users, fmt.Appendf(nil, "%q \"\"\n", c.Name)); err != nil {
		return nil, err
	}
	ini := filepath.Join(cfg.Dir, "pgbouncer.ini")
	if err := writeFile(ini, pgBouncerINI(cfg, port, users)); err != nil {
		return nil, err
	}
	program := process.Program{Path: path, Args: []string{ini}, Log: filepath.Join(cfg.Dir, "pgbouncer.log")}
	if os.Geteuid() == 0 {
		program.Account = "nobody" // It refuses to serve as root.
	}
	return process.Start(ctx, program)
}

// pgBouncerINI leaves everything at its default that the comparison does not need: a pool of the given size, prepared statements,
// TLS on request, and no line of log for each connection.
func pgBouncerINI(cfg Config, port int, users string) []byte {
	server := cfg.Postgres.cluster
	return fmt.Appendf(nil, `[databases]
%s = host=%s port=%d

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = %d
max_prepared_statements = 200
ignore_startup_parameters = extra_float_digits
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = %s
client_tls_key_file = %s
log_connections = 0
log_disconnections = 0
`, Database, server.Host(), server.Port(), port, users, cfg.PoolSize, cfg.Clients, cfg.Postgres.certFile, cfg.Postgres.keyFile)
}

// firstLine runs a program that prints its version.
func firstLine(ctx context.Context, path string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return "", fmt.Errorf("ask %s for its version: %w", path, err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line, nil
}
