package session

import (
	"errors"
	"log/slog"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// The sentinel proves that nothing leaks: it asks released servers, off their client's path, what their session holds. A
// server that holds anything but the settings it is known to have is closed, counted and reported.

const purposeSentinel uint8 = 100

// sentinelTimeout is how long a server may take to answer.
const sentinelTimeout = 5 * time.Second

// observes decides, when a server is linked, whether it is its turn to be looked at when it is released: only then the texts are kept
// that it meets meanwhile.
func (w *Worker) observes() bool {
	if w.config.SentinelEvery <= 0 {
		return false
	}
	w.linked++
	if w.linked < w.config.SentinelEvery {
		return false
	}
	w.linked = 0
	return true
}

// giveBack releases the server after whatever it is to be asked.
func (l *Server) giveBack() {
	switch {
	case l.observed && l.cancels == 0:
		l.watch()
	case !l.learn():
		l.release()
	}
}

// watch asks for the audit.
func (l *Server) watch() {
	l.question(state.AuditSQL(l.pool.User(), l.worker.shared.Custom.names()), purposeSentinel)
}

// seen are texts that an observed server has met: what can be said of them, so that they can be named and recognised.
type seen struct {
	fingerprints []uint64
	outlines     []string
}

// maxSeen bounds what is kept of one transaction.
const maxSeen = 50

func (t *seen) note(text []byte) {
	if len(t.fingerprints) < maxSeen {
		t.fingerprints = append(t.fingerprints, state.Fingerprint(text))
		t.outlines = append(t.outlines, state.Outline(text, maxOutline))
	}
}

func (l *Server) unwatch() {
	l.watched = false
	l.worker.servers.remove(l)
	if l.study != nil {
		l.study = nil
		l.learned.abandon()
	}
}

// press ends the wait for an answer that takes too long.
func (l *Server) press(now int64) {
	limit, why := sentinelTimeout, "sentinel got no answer"
	if l.study != nil {
		limit, why = studyTimeout, "study got no answer"
	}
	if now-l.since > int64(limit) {
		l.unwatch()
		l.retire(why)
	}
}

// examine reads what the server answers when nobody has it.
func (l *Server) examine() {
	for l.watched {
		buf, err := l.Read()
		if errors.Is(err, loop.ErrWouldBlock) {
			return
		}
		if err != nil || !l.collect(buf) {
			l.unwatch()
			l.gone()
			return
		}
		switch t := l.study; {
		case !l.Replies.Settled():
		case t == nil:
			l.unwatch()
			l.pronounce()
			return
		case !t.reading:
			t.answered()
		}
	}
}

// collect takes the messages of an answer. It reports false when they are none.
func (l *Server) collect(buf []byte) bool {
	for len(buf) > 0 {
		p, err := l.Scan.Next(buf)
		if err != nil {
			return false
		}
		if len(p.Data) == 0 {
			break
		}
		buf = buf[len(p.Data):]
		switch {
		case p.Type == wire.DataRow || !p.Start:
			l.answer = append(l.answer, p.Data...)
		case p.Type == wire.ErrorResponse:
			l.Replies.Fail()
			l.failure = append([]byte(nil), wire.Body(p.Data)...)
			continue
		case p.Type == wire.ParameterStatus && p.Start: // the server has read its configuration again
			if name, value, ok := wire.ParseStatus(wire.Body(p.Data)); ok && l.Report(name, value) {
				l.worker.shared.Welcomes.changed(l.pool)
			}
		case p.Type == wire.ReadyForQuery:
			l.Status = p.Data[len(p.Data)-1]
		}
		if !p.Start {
			continue
		}
		if verdict, _, _ := l.Replies.Reply(p.Type); verdict == server.Stray {
			return false
		}
	}
	l.Keep(buf)
	return true
}

// pronounce decides about a server that has answered.
func (l *Server) pronounce() {
	w := l.worker
	found, ok := state.DecodeAudit(l.answer)
	l.answer = nil
	switch why, reason := found.Pins(); {
	case l.failure != nil || !ok || l.Status != wire.Idle:
		l.failure = nil
		l.retire("sentinel got no answer")
	case why != 0 || (!l.tainted && w.shared.Settings.Intern(found.SettingsOf(l.Settings, nil)) != l.Settings):
		w.Stats.StateLeaks.Inc()
		w.log().Error("a released server holds state of its client: closed; please report this",
			attrPID(l), slog.String("user", l.pool.User()), slog.String("database", l.pool.Database()),
			slog.String("reason", reason), slog.Any("settings", found.Settings), slog.Any("expected", l.Settings.List()),
			slog.Any("statements", l.seen.outlines))
		if l.learned != nil {
			l.learned.catch(l.seen.fingerprints)
		}
		l.retire("state leak")
	case !l.learn():
		l.release()
	}
}
