package verify

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// standby is a row of pg_stat_replication.
type standby struct {
	Name, State string
	Behind      *int64 // Bytes of log that it has not replayed; nil where the user may not see it.
}

// A base backup streams as well, but follows nobody.
const standbySQL = `
select coalesce(application_name, ''), coalesce(state, ''), pg_wal_lsn_diff($1::text::pg_lsn, coalesce(replay_lsn, flush_lsn, write_lsn))::bigint
from pg_stat_replication where state is distinct from 'backup' order by 1`

// poll is how often a standby that is behind is looked at again.
const poll = 200 * time.Millisecond

// replication checks that every standby replays, within the time to wait, what the primary has written until now.
func (r *Report) replication(ctx context.Context, cfg Config, conn *pgx.Conn, subject string, base *Baseline) {
	var written string
	if err := conn.QueryRow(ctx, "select pg_current_wal_lsn()::text").Scan(&written); err != nil {
		r.unknown(CheckReplication, subject, "ask the primary: --server", "%s", oneLine(err))
		return
	}
	var list []standby
	limit := time.Now().Add(cfg.Wait)
	for {
		rows, err := conn.Query(ctx, standbySQL, written)
		if list, err = collect(rows, err, pgx.RowToStructByPos[standby]); err != nil {
			r.unknown(CheckReplication, subject, moreRights, "%s", oneLine(err))
			return
		}
		base.Standbys = len(list)
		if caughtUp(list) || time.Now().After(limit) || !pause(ctx, poll) {
			break
		}
	}
	r.standbys(cfg, subject, list)
}

// standbys says of each whether it has caught up, and whether one is missing.
func (r *Report) standbys(cfg Config, subject string, list []standby) {
	for _, s := range list {
		name := fmt.Sprintf("standby %q", s.Name)
		switch {
		case s.State == "" || s.Behind == nil && s.State == "streaming":
			r.unknown(CheckReplication, name, moreRights, "where it is is hidden from this user")
		case s.State != "streaming" || *s.Behind > 0:
			r.fail(CheckReplication, name, "wait and repeat; else look at its log, at recovery_min_apply_delay and for long queries on it",
				"%s, %s behind after %s", s.State, bytesOf(s.Behind), cfg.Wait)
		default:
			r.pass(CheckReplication, name, "has replayed everything")
		}
	}
	want := cfg.Want.Standbys
	if want == 0 && cfg.Base != nil {
		want = cfg.Base.Standbys
	}
	if len(list) < want {
		r.fail(CheckReplication, subject, "start the one that is missing, or pass --want-standbys", "%d standbys follow instead of %d", len(list), want)
	} else if len(list) == 0 {
		r.pass(CheckReplication, subject, "no standby follows, and none is wanted")
	}
}

func caughtUp(list []standby) bool {
	for _, s := range list {
		if s.State != "" && (s.State != "streaming" || s.Behind != nil && *s.Behind > 0) {
			return false
		}
	}
	return true
}

func bytesOf(n *int64) string {
	if n == nil {
		return "nobody knows how far"
	}
	return fmt.Sprintf("%d bytes", *n)
}

// pause waits, and reports whether the context is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// lsn is a position in the log, in bytes.
type lsn uint64

// Scan implements sql.Scanner for PostgreSQL's text form.
func (l *lsn) Scan(from any) error {
	text, ok := from.(string)
	if !ok {
		return fmt.Errorf("read log position: it is no text but %T", from)
	}
	high, low, _ := strings.Cut(text, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	if err != nil {
		return fmt.Errorf("read log position %q: %w", text, err)
	}
	n, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return fmt.Errorf("read log position %q: %w", text, err)
	}
	*l = lsn(h<<32 | n)
	return nil
}

// text is the position as PostgreSQL writes it.
func (l *lsn) text() string { return fmt.Sprintf("%X/%X", uint64(*l)>>32, uint32(*l)) }
