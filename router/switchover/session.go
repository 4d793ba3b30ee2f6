package switchover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// ApplicationName is that of the sessions of a switchover.
const ApplicationName = "pgsidecar-switchover"

// session is a connection of the switchover's own to one of the two servers. Run's goroutine alone uses it.
type session struct{ conn *pgconn.PgConn }

// connectTimeout bounds each of the connections, and each of the short statements.
const connectTimeout = 5 * time.Second

// connect opens both connections.
func (r *run) connect(ctx context.Context) (err error) {
	if r.primary, err = r.open(ctx, r.from.Target); err != nil {
		return err
	}
	r.standby, err = r.open(ctx, r.to.Target)
	return err
}

func (r *run) open(ctx context.Context, to discover.Target) (*session, error) {
	config, err := r.config.Connect(to)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.Name, err)
	}
	config.RuntimeParams["application_name"] = ApplicationName
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.Name, err)
	}
	return &session{conn: conn}, nil
}

func (r *run) disconnect(ctx context.Context) {
	r.primary.close(ctx)
	r.standby.close(ctx)
}

// close ends the session, also when ctx has ended.
func (s *session) close(ctx context.Context) {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
	defer cancel()
	_ = s.conn.Close(ctx) // It is of no more use, whatever becomes of it.
}

// value runs statements and returns the last value, as text.
func (s *session) value(ctx context.Context, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	results, err := s.conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return "", err
	}
	for _, result := range slices.Backward(results) {
		if rows := result.Rows; len(rows) > 0 && len(rows[0]) > 0 {
			return string(rows[0][0]), nil
		}
	}
	return "", nil
}

// seal puts everything that has been committed on the primary's disk, also what was committed with synchronous_commit = off, and
// returns up to where that is. A record that is flushed with its commit does so; without one, what stands on a half-filled page of
// the WAL may stay in memory for as long as nothing happens, and no standby would ever get there.
func (s *session) seal(ctx context.Context) (probe.LSN, error) {
	text, err := s.value(ctx, `BEGIN READ WRITE; SET LOCAL synchronous_commit = local;
		SELECT pg_catalog.pg_logical_emit_message(true, 'pgsidecar', 'switchover'); COMMIT;
		SELECT pg_catalog.pg_current_wal_flush_lsn()`)
	if err != nil {
		return 0, err
	}
	return probe.ParseLSN(text)
}

// replayed returns up to where the standby shows what the primary has written.
func (s *session) replayed(ctx context.Context) (probe.LSN, error) {
	text, err := s.value(ctx, "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() END")
	if err != nil {
		return 0, err
	}
	if text == "" {
		return 0, errors.New("it is not a standby any more")
	}
	return probe.ParseLSN(text)
}

// mayPromote tells whether the role may promote, in a sentence if not.
func (s *session) mayPromote(ctx context.Context, name string) error {
	may, err := s.value(ctx, "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_promote(boolean,integer)', 'execute')")
	if err != nil {
		return fmt.Errorf("ask %s who may promote it: %w", name, err)
	}
	if may != "t" {
		return fmt.Errorf("the role may not promote %s: GRANT EXECUTE ON FUNCTION pg_promote TO it, or promote by yourself", name)
	}
	return nil
}

// promote asks for the promotion, for which it does not wait.
func (s *session) promote(ctx context.Context) error {
	done, err := s.value(ctx, "SELECT pg_catalog.pg_promote(false)")
	if err == nil && done != "t" {
		err = errors.New("pg_promote() has failed")
	}
	return err
}

// mayFence tells whether the role may switch off writes, in a sentence if not.
func (s *session) mayFence(ctx context.Context, name string) error {
	may, err := s.value(ctx, `SELECT pg_catalog.has_parameter_privilege('default_transaction_read_only', 'alter system')
		AND pg_catalog.has_function_privilege('pg_catalog.pg_reload_conf()', 'execute')`)
	if err != nil {
		return fmt.Errorf("ask %s who may switch off its writes: %w", name, err)
	}
	if may != "t" {
		return fmt.Errorf("the role may not fence %s: GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only, and "+
			"EXECUTE ON FUNCTION pg_reload_conf, or stop it and promote by yourself", name)
	}
	return nil
}

// fence makes all transactions read-only that begin from now on, whoever begins them, and waits for those that have written something
// to end. Who says READ WRITE can still write: it keeps off those who do not know better.
func (s *session) fence(ctx context.Context, limit time.Duration) error {
	if _, err := s.value(ctx, "ALTER SYSTEM SET default_transaction_read_only = on"); err != nil {
		return err
	}
	if _, err := s.value(ctx, "SELECT pg_catalog.pg_reload_conf()"); err != nil {
		return err
	}
	left := ""
	err := until(ctx, limit, func(ctx context.Context) (bool, error) {
		n, err := s.value(ctx, `SELECT CASE WHEN pg_catalog.current_setting('default_transaction_read_only') = 'on' THEN count(*) END
			FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()`)
		if err == nil {
			left = n
		}
		return n == "0", err
	})
	switch {
	case errors.Is(err, errTooLong) && left == "":
		return fmt.Errorf("default_transaction_read_only was not seen to be on after %v: something else sets it", limit)
	case errors.Is(err, errTooLong):
		return fmt.Errorf("%s transactions of others did not end within %v", left, limit)
	}
	return err
}

// unfence undoes fence, as well as that is possible.
func (r *run) unfence(ctx context.Context) {
	if !r.outcome.Fenced {
		return
	}
	ctx = context.WithoutCancel(ctx)
	s := r.primary
	if s.conn.IsClosed() { // By the end of ctx, perhaps.
		anew, err := r.open(ctx, r.from.Target)
		if err != nil {
			r.step(Fenced, "%s could not be reached to switch its writes on again: %v", r.from.Name, err)
			return
		}
		defer anew.close(ctx)
		s = anew
	}
	_, err := s.value(ctx, "ALTER SYSTEM RESET default_transaction_read_only")
	if err == nil {
		_, err = s.value(ctx, "SELECT pg_catalog.pg_reload_conf()")
	}
	if err == nil { // The sessions of clients learn it at the same time as this one.
		err = until(ctx, connectTimeout, func(ctx context.Context) (bool, error) {
			now, err := s.value(ctx, "SELECT pg_catalog.current_setting('default_transaction_read_only')")
			return now == "off", err
		})
	}
	if err != nil {
		r.step(Fenced, "%s still takes no writes: ALTER SYSTEM RESET default_transaction_read_only failed: %v", r.from.Name, err)
		return
	}
	r.outcome.Fenced = false
	r.config.Router.Suspect()
}
