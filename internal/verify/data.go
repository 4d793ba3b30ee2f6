package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// DataConfig says which servers have to have the same data.
type DataConfig struct {
	From, To string        // Connection strings, past any proxy, of the same database.
	Tables   bool          // Compare the rows of all tables, too.
	Wait     time.Duration // How long To may take to replay what From has.
}

// side is one of the two servers.
type side struct {
	name string // "from" or "to".
	conn *pgx.Conn
	who  identity
}

// Data checks that what one server has acknowledged is on the other.
func Data(ctx context.Context, cfg DataConfig, report *Report) {
	from, err := open(ctx, "from", cfg.From, cfg.Wait)
	if err != nil {
		report.noData("from", err)
		return
	}
	defer closeConn(ctx, from.conn)
	to, err := open(ctx, "to", cfg.To, cfg.Wait)
	if err != nil {
		report.noData("to", err)
		return
	}
	defer closeConn(ctx, to.conn)
	physical := report.sameCluster(from, to)
	if physical {
		report.sameLog(ctx, from, to, cfg.Wait)
	}
	if cfg.Tables {
		report.tables(ctx, from, to, physical, cfg.Wait)
	}
}

func open(ctx context.Context, name, target string, wait time.Duration) (*side, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	config, err := parse(target)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, errors.New(oneLine(err))
	}
	who, err := identify(ctx, conn)
	if err != nil {
		closeConn(ctx, conn)
		return nil, err
	}
	return &side{name, conn, who}, nil
}

// noData notes that one of the servers could not be asked.
func (r *Report) noData(name string, err error) {
	r.unknown(CheckLSN, name, "name a server that runs, past any proxy, and a user who may log in there", "%v", err)
}

// sameCluster checks that both are copies of one cluster, which have one log.
func (r *Report) sameCluster(from, to *side) bool {
	if from.who.System != to.who.System {
		r.fail(CheckSystem, "from, to", "the one is no copy of the other; if data was copied by other means, --tables --skip system compares the rows",
			"system identifiers %s and %s", from.who.System, to.who.System)
		return false
	}
	r.pass(CheckSystem, "from, to", "both are copies of %s", from.who.System)
	return true
}

// sameLog checks that the log of to goes at least as far as from's, on the same line.
func (r *Report) sameLog(ctx context.Context, from, to *side, wait time.Duration) {
	f, t := from.who, to.who
	switch {
	case t.Timeline < f.Timeline:
		r.fail(CheckTimeline, "to", "from was promoted and to does not follow it: pg_rewind it, or copy it anew", "timeline %d, from is on %d", t.Timeline, f.Timeline)
	case t.Timeline > f.Timeline:
		r.branched(ctx, from, to)
	case !f.Recovery && !t.Recovery:
		r.fail(CheckTimeline, "from, to", "stop one of them at once, unless both connection strings lead to one server", "both write on timeline %d", t.Timeline)
	case f.Recovery && !t.Recovery:
		r.pass(CheckLSN, "to", "from follows it")
	default:
		r.replayed(ctx, to, f, wait)
	}
}

// replayed checks that a standby replays, within the time to wait, what the other had when it was asked.
func (r *Report) replayed(ctx context.Context, to *side, from identity, wait time.Duration) {
	have, err := awaitReplay(ctx, to, from.LSN, wait)
	switch {
	case err != nil:
		r.unknown(CheckLSN, to.name, "repeat", "%s", oneLine(err))
	case have < from.LSN:
		r.fail(CheckLSN, to.name, "wait and repeat, and do not promote it before; else look at its log", "%d bytes are missing after %s: it has %s of %s",
			from.LSN-have, wait, have.text(), from.LSN.text())
	default:
		r.pass(CheckLSN, to.name, "has %s, on timeline %d", from.LSN.text(), from.Timeline)
	}
}

// awaitReplay waits until a standby has replayed the position, and returns what it has replayed then or when the time is over.
func awaitReplay(ctx context.Context, s *side, position lsn, wait time.Duration) (lsn, error) {
	limit := time.Now().Add(wait)
	for {
		now, err := identify(ctx, s.conn)
		if err != nil || now.LSN >= position || time.Now().After(limit) || !pause(ctx, poll) {
			return now.LSN, err
		}
	}
}

// branched checks that to has branched off behind everything that from has: what from has behind the branch is lost.
func (r *Report) branched(ctx context.Context, from, to *side) {
	at, err := branch(ctx, to.conn, to.who.Timeline, from.who.Timeline)
	if err != nil {
		r.unknown(CheckLSN, "to", "connect to it as a superuser, who may read the history of its timelines", "%s", oneLine(err))
		return
	}
	if from.who.LSN > at {
		r.fail(CheckLSN, "to", "from has gone on after to was promoted. It may be no more than a checkpoint's record: compare --tables, or pg_waldump; then pg_rewind from",
			"it left timeline %d at %s, and from has %d bytes more", from.who.Timeline, at.text(), from.who.LSN-at)
		return
	}
	r.pass(CheckLSN, "to", "promoted behind all of from: it left timeline %d at %s, from ends at %s", from.who.Timeline, at.text(), from.who.LSN.text())
}

// branch returns where the way to one timeline left another one.
func branch(ctx context.Context, conn *pgx.Conn, timeline, left int64) (lsn, error) {
	var history string
	file := fmt.Sprintf("pg_wal/%08X.history", timeline)
	if err := conn.QueryRow(ctx, "select pg_read_file($1)", file).Scan(&history); err != nil {
		return 0, fmt.Errorf("read history of timeline %d: %w", timeline, err)
	}
	for line := range strings.Lines(history) {
		// Each line has a timeline, the position where it was left, and a reason.
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != strconv.FormatInt(left, 10) {
			continue
		}
		var at lsn
		return at, at.Scan(fields[1])
	}
	return 0, fmt.Errorf("timeline %d does not come from timeline %d", timeline, left)
}
