package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// identity is what a server says about itself.
type identity struct {
	subject  string // Through whom it was asked.
	System   string // Its cluster, the same for all copies of one initdb.
	Timeline int64
	Recovery bool
	LSN      lsn // A primary's: written and flushed; a standby's: replayed.
	address  string
}

func (i identity) where() string { return "system " + i.System + " at " + i.address }

// identitySQL asks a primary and a standby alike. A primary's timeline stands in the name of the segment that it writes: right
// after a promotion the control file still has the old one.
const identitySQL = `
select s.system_identifier::text, pg_is_in_recovery(),
       case when pg_is_in_recovery()
            then greatest((select received_tli from pg_stat_wal_receiver), c.timeline_id, r.min_recovery_end_timeline)::bigint
            else ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint end,
       case when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0') else pg_current_wal_flush_lsn() end::text,
       coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'a unix socket')
from pg_control_system() s, pg_control_checkpoint() c, pg_control_recovery() r`

func identify(ctx context.Context, conn *pgx.Conn) (identity, error) {
	var i identity
	if err := conn.QueryRow(ctx, identitySQL).Scan(&i.System, &i.Recovery, &i.Timeline, &i.LSN, &i.address); err != nil {
		return i, fmt.Errorf("ask the server who it is: %w", err)
	}
	return i, nil
}

// direct asks PostgreSQL itself who it is, if it is named. Why it does not answer is told with what else it is asked.
func direct(ctx context.Context, cfg Config) (identity, bool) {
	if cfg.Server == "" {
		return identity{}, false
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Wait)
	defer cancel()
	target, err := parse(cfg.Server)
	if err != nil {
		return identity{}, false
	}
	conn, err := pgx.ConnectConfig(ctx, target)
	if err != nil {
		return identity{}, false
	}
	defer closeConn(ctx, conn)
	who, err := identify(ctx, conn)
	who.subject = address(target)
	return who, err == nil
}

// moreRights is the cure where a user sees too little.
const moreRights = "name PostgreSQL itself with --server and a user in pg_monitor"

// server checks what is left over, and the standbys.
func (r *Report) server(ctx context.Context, cfg Config, all []seen, through *pgx.ConnConfig, base *Baseline) {
	subject := "through " + firstAddress(all)
	if cfg.Server != "" {
		direct, err := parse(cfg.Server)
		if err != nil {
			r.noServer("server", "see --server", err)
			return
		}
		through, subject = direct, address(direct)
	}
	if through == nil {
		r.noServer("server", "see the transaction check, or name PostgreSQL itself with --server", errors.New("no server could be asked"))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*cfg.Wait)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, through)
	if err != nil {
		r.noServer(subject, "see --server", errors.New(oneLine(err)))
		return
	}
	defer closeConn(ctx, conn)
	r.replication(ctx, cfg, conn, subject, base)
	r.prepared(ctx, conn, subject, databases(all), cfg.Age)
	r.idle(ctx, conn, subject, users(all), cfg.Age)
}

// noServer notes that what only a server knows is not known.
func (r *Report) noServer(subject, cure string, err error) {
	for _, c := range []Check{CheckReplication, CheckPrepared, CheckIdle} {
		r.unknown(c, subject, cure, "%v", err)
	}
}

func firstAddress(all []seen) string {
	if len(all) == 0 {
		return "nobody"
	}
	return all[0].proxy.Address()
}

// address names the server of a connection string without its password.
func address(c *pgx.ConnConfig) string {
	_, a := pgconn.NetworkAddress(c.Host, c.Port)
	return a
}

const preparedSQL = `
select gid, owner::text, database::text, (now() - prepared)
from pg_prepared_xacts
where (database = any($1) or database = current_database()) and prepared <= now() - $2::interval
order by prepared`

// prepared looks for transactions that were prepared and forgotten: they keep their locks for ever. All in the proxies'
// databases count, as who prepared them may have gone.
func (r *Report) prepared(ctx context.Context, conn *pgx.Conn, subject string, databases []string, age time.Duration) {
	type left struct {
		GID, Owner, Database string
		Age                  time.Duration
	}
	rows, err := conn.Query(ctx, preparedSQL, databases, age)
	list, err := collect(rows, err, pgx.RowToStructByPos[left])
	switch {
	case err != nil:
		r.unknown(CheckPrepared, subject, moreRights, "%v", err)
	case len(list) > 0:
		first := list[0]
		r.fail(CheckPrepared, subject, fmt.Sprintf("ask its owner, then in %s: COMMIT PREPARED or ROLLBACK PREPARED %q", first.Database, first.GID),
			"%d prepared transactions stand for longer than %s, %q of %s for longest: %s", len(list), age, first.GID, first.Owner, first.Age.Round(time.Second))
	default:
		r.pass(CheckPrepared, subject, "no transaction is prepared for longer than %s", age)
	}
}

// idleSQL finds the sessions of some users. What a user may not see of others has no type.
const idleSQL = `
select pid, usename::text, coalesce(datname::text, ''), coalesce(application_name, ''), coalesce(now() - state_change, '0'), backend_type is null
from pg_stat_activity
where (usename = any($1) or usename = current_user)
  and (backend_type is null or backend_type = 'client backend' and state like 'idle in transaction%' and state_change <= now() - $2::interval)
order by backend_type is null, state_change`

// idle looks for sessions that stand in a transaction: they hold locks and a place in the pool.
func (r *Report) idle(ctx context.Context, conn *pgx.Conn, subject string, users []string, age time.Duration) {
	type session struct {
		PID                         int32
		User, Database, Application string
		Age                         time.Duration
		Hidden                      bool
	}
	rows, err := conn.Query(ctx, idleSQL, users, age)
	list, err := collect(rows, err, pgx.RowToStructByPos[session])
	hidden := 0
	for _, s := range list {
		if s.Hidden {
			hidden++
		}
	}
	switch {
	case err != nil:
		r.unknown(CheckIdle, subject, moreRights, "%v", err)
	case len(list) > hidden:
		first := list[0]
		r.fail(CheckIdle, subject, fmt.Sprintf("find out what %q waits for, or: select pg_terminate_backend(%d)", first.Application, first.PID),
			"%d sessions are idle in a transaction for longer than %s, that of %s in %s for longest: %s",
			len(list)-hidden, age, first.User, first.Database, first.Age.Round(time.Second))
	case hidden > 0:
		r.unknown(CheckIdle, subject, moreRights, "what %d sessions do is hidden from this user", hidden)
	default:
		r.pass(CheckIdle, subject, "no session is idle in a transaction for longer than %s", age)
	}
}

// collect is pgx.CollectRows behind a query that may have failed.
func collect[T any](rows pgx.Rows, err error, row pgx.RowToFunc[T]) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, row)
}
