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

// giveBack releases the server, if it is its turn after the sentinel has looked at it.
func (l *Server) giveBack() {
	w := l.worker
	if every := w.config.SentinelEvery; every > 0 && l.cancels == 0 {
		if w.released++; w.released >= every {
			w.released = 0
			l.watch()
			return
		}
	}
	l.release()
}

// watch asks for the audit.
func (l *Server) watch() {
	w := l.worker
	l.watched, l.audited, l.failure, l.answer = true, false, nil, nil
	l.since = w.Loop.Nanos()
	w.servers.add(l)
	w.sweeper.start()
	l.Replies.Push(server.Entry{Kind: server.Query, Fate: server.Swallow, Purpose: purposeSentinel})
	l.Unnamed, l.UnnamedSegment = nil, 0
	l.NextSegment()
	sql := state.AuditSQL(l.pool.User(), w.shared.Custom.names())
	if l.Write(wire.AppendQuery(nil, sql)) != nil {
		w.Loop.Later((*delivered)(l))
	}
}

func (l *Server) unwatch() {
	l.watched = false
	l.worker.servers.remove(l)
}

// examine reads what the server answers to the sentinel.
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
		if l.Replies.Settled() {
			l.unwatch()
			l.pronounce()
			return
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
			slog.String("reason", reason), slog.Any("settings", found.Settings), slog.Any("expected", l.Settings.List()))
		l.retire("state leak")
	default:
		l.release()
	}
}
