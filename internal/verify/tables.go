package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// digest is what is compared of a table.
type digest struct {
	Rows int64
	Sum  string // Of the rows' hashes, so that their order does not matter.
}

// snapshot is a transaction that sees one moment of a server, and when that was.
type snapshot struct {
	side *side
	tx   pgx.Tx
	next string // The transaction id that was given out next.
	at   lsn
}

// settingsSQL makes rows have the same text on both sides, whatever the roles' settings are, and refuses to hide any.
const settingsSQL = `
select set_config('timezone', 'UTC', true), set_config('datestyle', 'ISO, YMD', true), set_config('intervalstyle', 'postgres', true),
       set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true), set_config('lc_monetary', 'C', true),
       set_config('search_path', 'pg_catalog', true), set_config('row_security', 'off', true), set_config('statement_timeout', '0', true)`

// tablesSQL lists what has rows of its own. Those of unlogged and temporary tables are on one server only.
const tablesSQL = `
select format('%I.%I', n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and c.relpersistence = 'p' and c.relispopulated
  and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
order by 1`

// tables compares the rows of all tables, each server's in one snapshot.
func (r *Report) tables(ctx context.Context, from, to *side, physical bool, wait time.Duration) {
	first, err := begin(ctx, from)
	if err != nil {
		r.noTables(from, err)
		return
	}
	defer first.end(ctx)
	if physical && to.who.Recovery {
		// What the one snapshot sees has to be there before the other is taken. If it does not come the rows will tell.
		if _, err := awaitReplay(ctx, to, first.at, wait); err != nil {
			r.noTables(to, err)
			return
		}
	}
	second, err := begin(ctx, to)
	if err != nil {
		r.noTables(to, err)
		return
	}
	defer second.end(ctx)
	have, err := first.digests(ctx)
	if err != nil {
		r.noTables(from, err)
		return
	}
	want, err := second.digests(ctx)
	if err != nil {
		r.noTables(to, err)
		return
	}
	r.compare(have, want, first.written(ctx) || second.written(ctx))
}

func (r *Report) noTables(s *side, err error) {
	r.unknown(CheckTables, s.name, "repeat as a user who may read all tables; on a standby max_standby_streaming_delay bounds how long that may take", "%s", oneLine(err))
}

// compare adds a result for each table that differs, or one for all.
func (r *Report) compare(from, to map[string]digest, written bool) {
	cure := "do not switch over; find the rows by their key, and copy the table or the server anew"
	if written {
		cure = "somebody wrote meanwhile: stop the application and repeat"
	}
	var rows int64
	same := true
	for _, name := range sortedKeys(from, to) {
		a, inFrom := from[name]
		b, inTo := to[name]
		rows += a.Rows
		switch {
		case !inTo:
			r.fail(CheckTables, name, cure, "is missing in to")
		case !inFrom:
			r.fail(CheckTables, name, cure, "is missing in from")
		case a.Rows != b.Rows:
			r.fail(CheckTables, name, cure, "%d rows in from, %d in to", a.Rows, b.Rows)
		case a.Sum != b.Sum:
			r.fail(CheckTables, name, cure, "%d rows in both, with other contents", a.Rows)
		default:
			continue
		}
		same = false
	}
	if same {
		r.pass(CheckTables, "from, to", "%d tables with %d rows are the same", len(from), rows)
	}
}

// begin takes a snapshot; its first statement does.
func begin(ctx context.Context, s *side) (*snapshot, error) {
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	snap := &snapshot{side: s, tx: tx}
	if snap.next, err = nextID(ctx, s.conn); err != nil {
		return nil, err
	}
	if _, err := tx.Exec(ctx, settingsSQL); err != nil {
		return nil, fmt.Errorf("set how values are written: %w", err)
	}
	// Whatever the snapshot sees was in the log before this.
	who, err := identify(ctx, s.conn)
	snap.at = who.LSN
	return snap, err
}

// nextID returns the id of the next transaction that writes, as the snapshot of this statement or transaction sees it.
func nextID(ctx context.Context, conn *pgx.Conn) (string, error) {
	var id string
	if err := conn.QueryRow(ctx, "select pg_snapshot_xmax(pg_current_snapshot())::text").Scan(&id); err != nil {
		return "", fmt.Errorf("take snapshot: %w", err)
	}
	return id, nil
}

// end ends the transaction. It may be called again.
func (s *snapshot) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	_ = s.tx.Rollback(ctx) // Nothing was written; if the connection is broken it is closed anyway.
}

// written ends the snapshot and reports whether somebody has written since it was taken.
func (s *snapshot) written(ctx context.Context) bool {
	s.end(ctx)
	next, err := nextID(ctx, s.side.conn)
	return err != nil || next != s.next
}

// digests reads all tables.
func (s *snapshot) digests(ctx context.Context) (map[string]digest, error) {
	rows, err := s.tx.Query(ctx, tablesSQL)
	names, err := collect(rows, err, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	all := make(map[string]digest, len(names))
	for _, name := range names {
		// The names come from the server, quoted. hashtextextended gives the same on all versions.
		sql := "select count(*), coalesce(sum(hashtextextended((t.*)::text collate \"C\", 0)), 0)::text from only " + name + " t"
		var d digest
		if err := s.tx.QueryRow(ctx, sql).Scan(&d.Rows, &d.Sum); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		all[name] = d
	}
	return all, nil
}

// sortedKeys returns the names in either.
func sortedKeys(a, b map[string]digest) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(names)
	return slices.Compact(names)
}
