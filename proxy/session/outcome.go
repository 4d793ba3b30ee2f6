package session

import (
	"encoding/binary"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// With Config.ResolveCommit a COMMIT whose answer was lost with its server is looked up on the one that serves next. What is
// needed for that is asked right ahead of the COMMIT, in the same write.
//
// pg_xact_status tells the truth only of transactions that the server has heard of: one that has never got the lost part of the WAL gives
// the same ids to others. So it counts only where the server's history is known to contain the id: it is the same server, or it has
// replayed the WAL up to where the question was asked. If it has replayed less, the commit, which came later, is not in its history.

const (
	purposeIdentity = 103
	purposeOutcome  = 104
)

// identitySQL asks for the transaction's id (none if it has written nothing), the end of the WAL, and what tells one run of a server from
// the next: when it was started, how far it has replayed WAL (which stands still after its recovery), its timeline.
const identitySQL = `SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.concat(` +
	`pg_catalog.pg_current_wal_insert_lsn(),' ',` +
	`pg_catalog.extract('epoch', pg_catalog.pg_postmaster_start_time()),' ',` +
	`COALESCE(pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text,'-'),' ',` +
	`pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()),1,8),' ',` +
	`pg_catalog.pg_current_xact_id_if_assigned()) END`

// outcomeSQL answers committed, aborted, in progress, standby or unknown. A clean restart leaves no replayed WAL; one promotion
// takes the next timeline. It takes an id of its own, as pg_xact_status refuses those that have not been given yet.
const outcomeSQL = `SELECT CASE` +
	` WHEN recovers THEN 'standby'` +
	` WHEN started OPERATOR(pg_catalog.=) '%started%' AND replayed OPERATOR(pg_catalog.=) '%replayed%' THEN status` +
	` WHEN replayed OPERATOR(pg_catalog.=) '-' AND timeline OPERATOR(pg_catalog.=) '%timeline%' THEN status` +
	` WHEN replayed OPERATOR(pg_catalog.=) '-' THEN 'unknown'` +
	` WHEN timeline OPERATOR(pg_catalog.<>) '%timeline%' AND timeline OPERATOR(pg_catalog.<>) '%next%' THEN 'unknown'` +
	` WHEN replayed::pg_catalog.pg_lsn OPERATOR(pg_catalog.<) '%end%'::pg_catalog.pg_lsn THEN 'aborted'` +
	` ELSE status END FROM (SELECT pg_catalog.pg_is_in_recovery() AS recovers,` +
	` pg_catalog.extract('epoch', pg_catalog.pg_postmaster_start_time())::pg_catalog.text AS started,` +
	` COALESCE(pg_catalog.pg_last_wal_replay_lsn()::pg_catalog.text,'-') AS replayed,` +
	` CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE` +
	` pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()),1,8) END AS timeline,` +
	` CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'standby'` +
	` WHEN '%xid%'::pg_catalog.xid8 OPERATOR(pg_catalog.<) pg_catalog.pg_current_xact_id()` +
	` THEN COALESCE(pg_catalog.pg_xact_status('%xid%'::pg_catalog.xid8),'unknown') ELSE 'aborted' END AS status) AS here`

// commitment is what is known of the COMMIT or ROLLBACK that the linked server has been asked for. Zero value: there is none.
type commitment struct {
	said     bool   // the block ends, whatever comes of it
	undone   bool   // by a rollback
	asked    bool   // the question has been written
	known    bool   // it has been answered
	identity []byte // the row
}

// resolution is a session's COMMIT whose outcome is looked up.
type resolution struct {
	session *Session
	owed    []server.Entry // what the client waits for
	sql     []byte
	tries   int
	timer   loop.Timer
}

const (
	resolveEvery = 100 * time.Millisecond // while the commit is still under way, or the server at hand cannot tell
	maxResolve   = 50
)

// endsBlock tells whether a text with these effects, sent now, is a COMMIT or ROLLBACK that certainly ends the client's block.
// The state of a transaction that the server is still busy with is not known.
func (s *Session) endsBlock(effects state.Effect) bool {
	l := s.link
	if (effects != state.Commit && effects != state.Rollback) || l.Status == wire.Idle {
		return false
	}
	preparing := true
	l.Replies.Owed(func(one *server.Entry) {
		preparing = preparing && (one.Kind == server.Parse || one.Kind == server.Close)
	})
	return preparing
}

// noteEnd notes that the client says so. It reports whether the outcome will be looked up if the answer is lost.
func (s *Session) noteEnd(effects state.Effect) bool {
	undone := effects == state.Rollback || s.link.Status == wire.Failed
	s.link.commit = commitment{said: true, undone: undone}
	return !undone && s.worker.config.ResolveCommit
}

// identify asks ahead of a COMMIT by simple Query, at position at, what is needed to look it up.
func (s *Session) identify(e *edit, at int) {
	s.ask(e, at, purposeIdentity, []byte(identitySQL))
	s.link.commit.asked = true
}

// identifyExtended does the same ahead of a Bind. The Flush makes the server answer before it begins to commit.
func (s *Session) identifyExtended(e *edit, at int) {
	l := s.link
	st := s.worker.table.Intern("", []byte(identitySQL+"\x00\x00\x00"), len(identitySQL))
	s.ensure(e, at, st)
	e.upTo(at)
	e.out = append(wire.AppendBindHead(e.out, nil, st.Name, 6), 0, 0, 0, 0, 0, 0)
	e.out = append(e.out, wire.Execute, 0, 0, 0, 9, 0, 0, 0, 0, 0)
	e.out = wire.AppendEmpty(e.out, wire.Flush)
	l.Replies.Push(server.Entry{Kind: server.Bind, Fate: server.Swallow})
	l.Replies.Push(server.Entry{Kind: server.Execute, Fate: server.Swallow, Purpose: purposeIdentity})
	l.commit.asked = true
}

// lastWords returns the requests that the client still waits for if they are the end of its block and nothing else; nil if not.
func (l *Server) lastWords(owed []server.Entry) []server.Entry {
	owed = slices.DeleteFunc(slices.Clone(owed), func(one server.Entry) bool { return one.Fate == server.Swallow })
	if !l.commit.said || !oneSegment(owed) {
		return nil
	}
	return owed
}

// rolledBack tells the client of the success of its ROLLBACK: the server that was lost can have done nothing else.
func (s *Session) rolledBack(l *Server, last []server.Entry) {
	s.bereave(l, l.owed())
	s.tell(s.confirm(last, "ROLLBACK"))
	s.worker.Loop.Later((*continued)(s))
}

// pursue looks the COMMIT up that was lost with the linked server, if it can be. It reports whether it does; the client waits then.
func (s *Session) pursue(l *Server, last []server.Entry) bool {
	if !l.commit.known || s.is(committed) {
		return false
	}
	identity, ok := onlyValue(l.commit.identity)
	fields := strings.Fields(identity)
	r := &resolution{session: s, owed: last}
	effects := s.effects
	switch {
	case !ok || len(fields) < 4:
		return false
	case len(fields) == 4 && effects&^(undoable&^(state.Write|state.Notify)|state.Commit) != 0:
		return false // it may have got an id while it was being committed
	case len(fields) == 5:
		r.sql = inquiry(fields)
	}
	s.bereave(l, l.owed())
	s.worker.resolutions[s] = r
	s.set(resolving, true)
	if r.sql == nil { // it has written nothing that could be lost
		s.conclude("committed")
		return true
	}
	s.inquire()
	return true
}

// oneSegment tells whether requests are one Query, or end with their only Sync.
func oneSegment(owed []server.Entry) bool {
	for i, one := range owed {
		ends := one.Kind == server.Query || one.Kind == server.Sync || one.Kind == server.Function
		if ends != (i == len(owed)-1) || (one.Kind == server.Query && i > 0) {
			return false
		}
	}
	return len(owed) > 0
}

// inquiry fills in outcomeSQL. The fields are those of identitySQL.
func inquiry(fields []string) []byte {
	timeline, _ := strconv.ParseUint(fields[3], 16, 32)
	next := strings.ToUpper(strconv.FormatUint(timeline+1, 16))
	next = strings.Repeat("0", max(0, 8-len(next))) + next
	return []byte(strings.NewReplacer("%end%", fields[0], "%started%", fields[1], "%replayed%", fields[2], "%timeline%", fields[3],
		"%next%", next, "%xid%", fields[4]).Replace(outcomeSQL))
}

// inquire gets a server to ask.
func (s *Session) inquire() {
	r := s.worker.resolutions[s]
	if r.tries++; r.tries > maxResolve {
		s.conclude("unknown")
		return
	}
	var l *Server
	if s.reads != nil {
		l = s.acquireRead(true)
	} else {
		l = s.acquire()
	}
	if l != nil {
		s.linkTo(l)
		s.askOutcome()
	}
}

// askOutcome asks the linked server.
func (s *Session) askOutcome() {
	s.link.answer = s.link.answer[:0]
	s.askNow(purposeOutcome, s.worker.resolutions[s].sql)
}

// learn takes the linked server's answer, or its refusal to give one.
func (s *Session) learn() {
	l := s.unlink()
	answer, ok := onlyValue(l.answer)
	l.answer = nil
	l.giveBack()
	switch {
	case !ok:
		s.conclude("unknown")
	case answer == "in progress" || answer == "standby":
		r := s.worker.resolutions[s]
		s.worker.Loop.Arm(&r.timer, resolveEvery, r)
	default:
		s.conclude(answer)
	}
}

// Run implements loop.Task: it is time to ask again.
func (r *resolution) Run() { r.session.inquire() }

// inquireElsewhere goes on when the server has been lost that was asked.
func (s *Session) inquireElsewhere(l *Server) {
	s.unlink()
	l.gone()
	r := s.worker.resolutions[s]
	s.worker.Loop.Arm(&r.timer, resolveEvery, r)
}

// conclude tells the client what has become of its COMMIT.
func (s *Session) conclude(outcome string) {
	w := s.worker
	r := w.resolutions[s]
	s.forgetResolution()
	w.log().Info("the server was lost during COMMIT: its outcome has been looked up", append(s.attrs(), slog.String("outcome", outcome))...)
	var out []byte
	switch outcome {
	case "committed":
		out = s.confirm(r.owed, "COMMIT")
		w.shared.noteWrite(loop.Nanos())
		w.shared.catalog.Add(1)
	case "aborted":
		out, _ = s.answerOwed(r.owed, errRolledBack(), false)
	default:
		out, _ = s.answerOwed(r.owed, errOutcomeUnknown(), false)
	}
	s.tell(out)
	if w.draining {
		s.drain(&w.Stats.DrainedFinished)
		return
	}
	w.Loop.Later((*continued)(s))
}

// forgetResolution ends what pursue has begun.
func (s *Session) forgetResolution() {
	if r := s.worker.resolutions[s]; r != nil {
		s.worker.Loop.Disarm(&r.timer)
		delete(s.worker.resolutions, s)
	}
	s.set(resolving, false)
}

// confirm makes the answers to a COMMIT or ROLLBACK that has succeeded, and does what was undone when its server was lost.
func (s *Session) confirm(owed []server.Entry, tag string) (out []byte) {
	for _, one := range owed {
		switch one.Kind {
		case server.Parse:
			s.adoptParse(one)
			out = wire.AppendEmpty(out, wire.ParseComplete)
		case server.Bind:
			out = wire.AppendEmpty(out, wire.BindComplete)
		case server.DescribeStatement:
			out = append(out, wire.ParameterDescription, 0, 0, 0, 6, 0, 0)
			out = wire.AppendEmpty(out, wire.NoData)
		case server.DescribePortal:
			out = wire.AppendEmpty(out, wire.NoData)
		case server.Close:
			if one.Name != "" {
				s.forgetName(one.Name)
			}
			out = wire.AppendEmpty(out, wire.CloseComplete)
		case server.Execute:
			out = wire.AppendCommandComplete(out, tag)
		case server.Query:
			s.unnamed = nil
			out = wire.AppendCommandComplete(out, tag)
			out = wire.AppendReadyForQuery(out, wire.Idle)
		case server.Sync:
			out = wire.AppendReadyForQuery(out, wire.Idle)
		default:
		}
	}
	return out
}

// adoptParse gives the client the statement of a Parse that counts after all.
func (s *Session) adoptParse(one server.Entry) {
	switch {
	case one.Unnamed:
		s.unnamed = one.Statement
	case one.Name != "":
		s.nameStatement(one.Name, one.Statement)
	}
}

// onlyValue returns the value of a DataRow with one column, given with its header.
func onlyValue(row []byte) (string, bool) {
	const head = 1 + 4 + 2 + 4 // type, length, number of columns, length of the value
	if len(row) < head || row[0] != wire.DataRow {
		return "", false
	}
	n := int(int32(binary.BigEndian.Uint32(row[7:])))
	if n < 0 || len(row) != head+n {
		return "", false
	}
	return string(row[head:]), true
}
