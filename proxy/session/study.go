package session

import (
	"errors"
	"log/slog"
	"time"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/wire"
)

// study asks a server what its database hides, one question after the other. The answers are read by a goroutine, since a loop
// must not do with so much; the server waits for it meanwhile, and nobody has it. It belongs to the server's loop, but
// for the lesson while that is being read.
type study struct {
	server  *Server
	lesson  state.Lesson
	version uint64

	reading bool   // the goroutine has it, and what follows
	rows    []byte // to be read
	over    bool   // that was the last answer
	err     error
}

// studyTimeout is how long a server may take for one answer. Its own limit is shorter.
const studyTimeout = 30 * time.Second

const purposeStudy uint8 = 101

// learn begins a study if it is time for one. It reports whether it has.
func (l *Server) learn() bool {
	w := l.worker
	if l.learned == nil || w.config.LearnEvery <= 0 || l.cancels > 0 || l.dying || w.draining {
		return false
	}
	version, ok := l.learned.begin(w.Loop.Nanos(), l.Generation)
	if !ok {
		return false
	}
	l.study = &study{server: l, version: version}
	l.question(l.study.lesson.Question(), purposeStudy)
	return true
}

// question asks a server that nobody has.
func (l *Server) question(sql []byte, purpose uint8) {
	w := l.worker
	if !l.watched {
		l.watched = true
		w.servers.add(l)
		w.sweeper.start()
	}
	l.audited, l.failure, l.answer = false, nil, nil
	l.since = w.Loop.Nanos()
	l.Replies.Push(server.Entry{Kind: server.Query, Fate: server.Swallow, Purpose: purpose})
	l.Unnamed, l.UnnamedSegment = nil, 0
	l.NextSegment()
	if l.Write(wire.AppendQuery(nil, sql)) != nil {
		w.Loop.Later((*delivered)(l))
	}
}

// answered has an answer read.
func (t *study) answered() {
	l := t.server
	if l.failure != nil || l.Status != wire.Idle {
		t.err = errors.New(string(wire.ErrorField(l.failure, 'M')))
		l.failure, l.answer = nil, nil
		t.end()
		return
	}
	t.rows, l.answer, t.reading = l.answer, nil, true
	go t.read(l.worker)
}

// read is the goroutine that reads an answer. It ends with a post to the loop.
func (t *study) read(w *Worker) {
	t.over, t.err = t.lesson.Answer(t.rows)
	t.rows = nil
	w.Loop.Post(t)
}

// Run implements loop.Task: an answer has been read.
func (t *study) Run() {
	l := t.server
	if l.study != t || !l.Attached() || !l.watched {
		return // it has been lost meanwhile
	}
	t.reading = false
	if t.err == nil && !t.over {
		l.question(t.lesson.Question(), purposeStudy)
		return
	}
	t.end()
}

// end keeps what has been learned, and gives the server back.
func (t *study) end() {
	l := t.server
	w := l.worker
	hidden, custom := t.lesson.Result()
	if t.err != nil {
		hidden, custom = state.EverythingHidden(), nil
		w.log().Warn("cannot learn what a database hides: everything is audited", attrPID(l),
			slog.String("database", l.pool.Database()), attrError(t.err))
	}
	for _, name := range custom {
		w.shared.Custom.add(name)
	}
	if l.learned.end(t.version, hidden, w.Loop.Nanos(), w.config.LearnEvery) {
		w.log().Info("database changes sessions behind what statements show: those that name any of this are audited",
			slog.String("database", l.pool.Database()), slog.Int("names", hidden.Len()), slog.Any("some", hidden.Names(maxNamesLogged)))
	}
	l.study = nil
	l.unwatch()
	if l.Status != wire.Idle {
		l.retire("study failed")
		return
	}
	l.release()
}

const maxNamesLogged = 20
