package session

import (
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/stats"
)

// Clients lists the worker's clients, and calls done with them on its loop. It may be called from any goroutine, and reports false
// when the loop has stopped. It is for people: it takes the loop some microseconds for each client.
func (w *Worker) Clients(done func([]stats.Client)) bool {
	return w.Loop.Post(&listing{worker: w, done: done})
}

type listing struct {
	worker *Worker
	done   func([]stats.Client)
}

func (l *listing) Run() {
	list := make([]stats.Client, 0, l.worker.sessions.count)
	l.worker.sessions.each(func(s *Session) {
		if s.phase == opening || s.phase == active {
			list = append(list, s.client())
		}
	})
	l.done(list)
}

// client tells people about the session.
func (s *Session) client() stats.Client {
	c := stats.Client{
		Address: s.conn.Remote().String(), Database: s.who.Database, User: s.who.User,
		ServerDatabase: s.who.Pool.Database(), ServerUser: s.who.Pool.User(), Mode: s.who.Mode.String(),
	}
	if s.settings != nil {
		c.Application, _ = s.settings.Get("application_name")
	}
	if s.names != nil {
		c.Prepared = s.names.Len()
	}
	switch {
	case s.waiting():
		c.State, c.Waited = stats.ClientWaiting, time.Duration(loop.Nanos()-s.since)
	case s.link != nil:
		c.State = stats.ClientActive
	}
	return c
}

// String returns PgBouncer's word for the mode.
func (m Mode) String() string {
	switch m {
	case Transaction:
		return "transaction"
	case Statement:
		return "statement"
	case WholeSession:
		return "session"
	case Replication:
		return "replication"
	}
	return "unknown"
}
