package session

// While transactions are suspended nobody begins one on the primary; reads on standbys go on. The pool gives no server to those who have none, and those who keep theirs
// between transactions are not read here. Then what is under way ends, and nothing is left that could write.

// Busy counts the transactions of the worker that are under way, and calls done with the number on its loop. It may be called from
// any goroutine, and reports false when the loop has stopped.
func (w *Worker) Busy(done func(n int)) bool { return w.Loop.Post(&count{worker: w, done: done}) }

type count struct {
	worker *Worker
	done   func(n int)
}

func (c *count) Run() {
	n := 0
	c.worker.servers.each(func(l *Server) {
		if s := l.session; s != nil && l.standby == nil && s.who.Mode != Replication && (s.phase == opening || !s.between()) {
			n++
		}
	})
	c.done(n)
}

// suspended tells whether a session that keeps its server may begin no transaction now.
func (s *Session) suspended() bool {
	return s.worker.shared.Suspended.Load() && s.phase == active && s.link != nil && s.link.standby == nil &&
		(s.pinned != nil || s.who.Mode == WholeSession) && s.between()
}

// Continue lets the sessions go on that have kept their server while transactions were suspended. It may be called from any
// goroutine.
func (w *Worker) Continue() { w.Loop.Post((*continuation)(w)) }

type continuation Worker

func (c *continuation) Run() {
	w := (*Worker)(c)
	w.servers.each(func(l *Server) {
		if l.session != nil {
			w.Loop.Later((*continued)(l.session))
		}
	})
}
