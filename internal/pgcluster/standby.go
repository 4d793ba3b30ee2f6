package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// CreateStandby makes a hot standby of a running primary (or of another standby's primary) in dir; Start starts it. It streams
// over the primary's unix socket under its own name, application_name = the last element of dir. The settings come on top of
// the primary's.
//
// It copies the files between pg_backup_start and pg_backup_stop, as the manual's chapter on low-level base backups describes,
// because some packages of PostgreSQL come without pg_basebackup.
func (c *Cluster) CreateStandby(ctx context.Context, dir string, settings map[string]string) (*Cluster, error) {
	cfg := c.cfg
	cfg.Dir = dir
	cfg.Settings = maps.Clone(cfg.Settings)
	if cfg.Settings == nil {
		cfg.Settings = map[string]string{}
	}
	maps.Copy(cfg.Settings, settings)
	s, err := prepare(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s.primary = c.conninfo(filepath.Base(dir))
	if err := s.fillFrom(ctx, c); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Follow makes a stopped cluster a standby of another primary at its next Start.
func (c *Cluster) Follow(primary *Cluster) error {
	if c.Running() {
		return errors.New("follow primary: the server is running")
	}
	c.primary = primary.conninfo(filepath.Base(c.cfg.Dir))
	if err := c.owner.write(filepath.Join(c.DataDir(), "standby.signal"), nil); err != nil {
		return err
	}
	return c.configure()
}

// Rewind kills this cluster if it runs and makes it a standby of a running primary with a new base backup, whatever it has
// written since their ways parted. It keeps its port; Start starts it.
//
// pg_rewind would do the same with less to copy, but some packages of PostgreSQL come without it.
func (c *Cluster) Rewind(ctx context.Context, primary *Cluster) error {
	if err := c.Kill(); err != nil {
		return err
	}
	if err := os.RemoveAll(c.DataDir()); err != nil {
		return fmt.Errorf("remove data directory: %w", err)
	}
	c.primary = primary.conninfo(filepath.Base(c.cfg.Dir))
	return c.fillFrom(ctx, primary)
}

func (c *Cluster) conninfo(name string) string {
	return fmt.Sprintf("host=%s port=%d user=%s application_name=%s", c.SocketDir(), c.Port(), Superuser, name)
}

// fillFrom takes a base backup of the primary.
func (c *Cluster) fillFrom(ctx context.Context, primary *Cluster) (err error) {
	conn, err := primary.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()

	if _, err := queryValue(ctx, conn, "SELECT pg_backup_start('standby', fast => true)"); err != nil {
		return err
	}
	if err := c.owner.copyTree(primary.DataDir(), c.DataDir(), isNotBackedUp); err != nil {
		return err
	}
	// The backup's end need not wait for an archive, because there is none.
	label, err := queryValue(ctx, conn, "SELECT labelfile FROM pg_backup_stop(wait_for_archive => false)")
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"backup_label": label, "standby.signal": ""} {
		if err := c.owner.write(filepath.Join(c.DataDir(), name), []byte(content)); err != nil {
			return err
		}
	}
	return c.configure()
}

// isNotBackedUp names what a base backup leaves out: what belongs to the running server, and the WAL, which is streamed.
func isNotBackedUp(rel string) bool {
	contentsOnly := []string{"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}
	files := []string{"postmaster.pid", "postmaster.opts", "backup_label", "standby.signal"}
	return slices.Contains(contentsOnly, rel) || slices.Contains(files, rel) ||
		strings.HasPrefix(filepath.Base(rel), "pgsql_tmp")
}

// Promote makes a standby a primary and returns when it is one.
func (c *Cluster) Promote(ctx context.Context) (err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	promoted, err := queryValue(ctx, conn, "SELECT pg_promote(wait => true)")
	if err != nil {
		return err
	}
	if promoted != "t" {
		return errors.New("promote standby: it is still in recovery after a minute")
	}
	c.primary = ""
	return nil
}

// PauseReplay makes a standby receive without replaying and returns when it replays nothing more; pg_wal_replay_resume() ends that.
func (c *Cluster) PauseReplay(ctx context.Context) (err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := queryValue(ctx, conn, "SELECT pg_wal_replay_pause()"); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		// Until it looks the next time, the startup process may replay a record more.
		state, err := queryValue(ctx, conn, "SELECT pg_get_wal_replay_pause_state()")
		return state == "paused", err
	})
}

// WaitForStandby waits until a standby has replayed all that this primary has written.
func (c *Cluster) WaitForStandby(ctx context.Context, standby *Cluster) (err error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	lsn, err := queryValue(ctx, conn, "SELECT pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	replica, err := standby.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, replica.Close(ctx)) }()
	return poll(ctx, func() (bool, error) {
		replayed, err := queryValue(ctx, replica, "SELECT pg_last_wal_replay_lsn() >= '"+lsn+"'")
		return replayed == "t", err
	})
}

// queryValue runs a statement whose result is one value, in text form; NULL is empty.
func queryValue(ctx context.Context, conn *pgconn.PgConn, sql string) (string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", fmt.Errorf("run %q: %w", sql, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return "", fmt.Errorf("run %q: want one row, got %d results", sql, len(results))
	}
	return string(results[0].Rows[0][0]), nil
}
