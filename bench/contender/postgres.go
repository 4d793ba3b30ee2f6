package contender

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/bench/process"
	"pgsidecar/internal/pgcluster"
)

// Postgres is the throwaway server behind every contender, and the programs that come with it.
type Postgres struct {
	Pgbench string // path of the program
	Version string

	cluster           *pgcluster.Cluster
	certFile, keyFile string // for the proxies, from the same authority as the server's own certificate
}

// StartPostgres makes a server in dir with room for so many clients, and a pgbench database of the given scale with one
// superuser role for each contender name.
func StartPostgres(ctx context.Context, dir string, clients, scale int, roles []string) (*Postgres, error) {
	installation, pgbench, err := findInstallation()
	if err != nil {
		return nil, err
	}
	authority, err := pgcluster.NewCA()
	if err != nil {
		return nil, err
	}
	cluster, err := pgcluster.Create(ctx, pgcluster.Config{
		Installation: installation,
		Dir:          filepath.Join(dir, "pg"),
		TLS:          authority,
		Settings: map[string]string{
			"max_connections": strconv.Itoa(clients),
			"shared_buffers":  "256MB",
			// Background work would disturb some rounds and not others.
			"autovacuum": "off",
		},
	})
	if err != nil {
		return nil, err
	}
	p := &Postgres{Pgbench: pgbench, Version: installation.Version, cluster: cluster}
	if err := errors.Join(p.writeCertificate(dir, authority), p.fill(ctx, dir, scale, roles)); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close ends the server and removes its data.
func (p *Postgres) Close() error { return p.cluster.Close() }

// findInstallation takes the newest PostgreSQL that has pgbench; minimal packages have the server only.
func findInstallation() (pgcluster.Installation, string, error) {
	installations := pgcluster.Installations(".")
	var complete []pgcluster.Installation
	for _, installation := range installations {
		if _, err := installation.Program("pgbench"); err == nil {
			complete = append(complete, installation)
		}
	}
	newest, found := pgcluster.Newest(complete)
	if !found {
		return newest, "", fmt.Errorf("find PostgreSQL with pgbench among %d installations: %w (Debian: apt-get install postgresql)",
			len(installations), ErrMissing)
	}
	pgbench, err := newest.Program("pgbench")
	return newest, pgbench, err
}

// writeCertificate issues the certificate that the proxies share. Whatever account a proxy runs under may read it.
func (p *Postgres) writeCertificate(dir string, authority *pgcluster.CA) error {
	issued, err := authority.Issue("localhost", "localhost", "127.0.0.1")
	if err != nil {
		return err
	}
	p.certFile, p.keyFile = filepath.Join(dir, "proxy.crt"), filepath.Join(dir, "proxy.key")
	return errors.Join(writeFile(p.certFile, issued.Cert), writeFile(p.keyFile, issued.Key))
}

// writeFile writes a file that everyone may read, since PgBouncer does not run as root; nothing in it is a real secret.
func writeFile(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}

// fill starts the server and creates the roles and pgbench's tables.
func (p *Postgres) fill(ctx context.Context, dir string, scale int, roles []string) error {
	if err := p.cluster.Start(ctx); err != nil {
		return err
	}
	statements := []string{"CREATE DATABASE " + Database}
	for _, role := range roles {
		statements = append(statements, fmt.Sprintf("CREATE ROLE %q SUPERUSER LOGIN", role))
	}
	if err := p.execute(ctx, "postgres", statements...); err != nil {
		return err
	}
	generate, err := process.Start(ctx, process.Program{
		Path: p.Pgbench,
		Args: []string{"-i", "-q", "-s", strconv.Itoa(scale), p.cluster.SocketURL(Database, pgcluster.Superuser)},
		Log:  filepath.Join(dir, "pgbench-init.log"),
	})
	if err != nil {
		return err
	}
	if err := generate.Wait(ctx); err != nil {
		return fmt.Errorf("fill database: %w", err)
	}
	return p.execute(ctx, Database, "CREATE UNLOGGED TABLE "+CopyTable+" (line text)", "CHECKPOINT")
}

// execute runs statements, one by one, as the superuser.
func (p *Postgres) execute(ctx context.Context, database string, statements ...string) error {
	conn, err := pgconn.Connect(ctx, p.cluster.SocketURL(database, pgcluster.Superuser))
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement).ReadAll(); err != nil {
			return fmt.Errorf("prepare database: %w", err)
		}
	}
	return nil
}

// ServerConnections counts the connections that PostgreSQL has with clients of the contender's role.
func (p *Postgres) ServerConnections(ctx context.Context, c *Contender) (int, error) {
	conn, err := pgconn.Connect(ctx, p.cluster.SocketURL("postgres", pgcluster.Superuser))
	if err != nil {
		return 0, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	result := conn.ExecParams(ctx, "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'",
		[][]byte{[]byte(c.Name)}, nil, nil, nil).Read()
	if result.Err != nil {
		return 0, fmt.Errorf("count server connections: %w", result.Err)
	}
	return strconv.Atoi(string(result.Rows[0][0]))
}

// Direct is PostgreSQL without a proxy.
func Direct(p *Postgres) *Contender {
	return &Contender{Name: "direct", Version: "PostgreSQL " + p.Version, Host: p.cluster.Host(), Port: p.cluster.Port()}
}
