package session

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
)

// What a statement's text does not show (a trigger, an operator, a view's function) is learned from the database, see
// state.Lesson: it makes texts with certain names be audited. It is asked for on a server that has just been given back, off
// the client's path. Until something is known of a database, and from the moment that a client begins to change what is
// known until that has been learned anew, everything is audited. So is what was under way when it changed.

// Learned is what is known of one database of one target. Any goroutine may use it; none blocks.
type Learned struct {
	hidden  atomic.Pointer[state.Hidden] // for texts that are forwarded now
	version atomic.Uint64                // changes with what is known
	due     atomic.Int64                 // loop.Nanos from when on it is too old

	mu sync.Mutex // held for a few lines
	// The rest belongs to mu.
	changes    int   // transactions under way that may change what is hidden
	studying   bool  // a server is being asked
	studied    int64 // loop.Nanos of the end of the last study
	generation uint64
	caught     map[uint64]struct{} // fingerprints of texts that have left something, replaced as a whole; for ever
	names      int                 // of the last study, for the log
}

// studyPause is the least time between two studies of a database, so that many changes in a row do not cost one each.
const studyPause = time.Second

// maxCaught bounds the texts that are remembered for having left something.
const maxCaught = 1000

// Databases finds what is known of databases. The zero value is empty.
type Databases struct{ known sync.Map } // databaseName to *Learned

type databaseName struct {
	target   *pool.Target
	database string
}

func (d *Databases) of(p *pool.Pool) *Learned {
	name := databaseName{p.Target(), p.Database()}
	if known, ok := d.known.Load(name); ok {
		return known.(*Learned)
	}
	fresh := new(Learned)
	fresh.hidden.Store(state.EverythingHidden())
	known, _ := d.known.LoadOrStore(name, fresh)
	return known.(*Learned)
}

// forget makes everything be audited until it is known anew. mu is held.
func (k *Learned) forget() {
	k.hidden.Store(state.EverythingHidden())
	k.version.Add(1)
	k.due.Store(0)
}

// connected notes that a server of this generation has been connected to: what another one has told may not be so there.
func (k *Learned) connected(generation uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation > k.generation {
		k.generation = generation
		k.forget()
	}
}

// changing notes that a transaction begins to change what is hidden. changed follows.
func (k *Learned) changing() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes++
	k.forget()
}

// changed notes the end of such a transaction.
func (k *Learned) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes--
	k.forget()
}

// begin tells whether it is time to ask a server of this generation, and that the caller does so. version is to be passed to end.
func (k *Learned) begin(now int64, generation uint64) (version uint64, ok bool) {
	if now < k.due.Load() {
		return 0, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.studying || k.changes > 0 || generation != k.generation || k.studied != 0 && now-k.studied < int64(studyPause) {
		return 0, false
	}
	k.studying = true
	return k.version.Load(), true
}

// abandon ends a study whose server has been lost.
func (k *Learned) abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.studying = false
}

// end takes what a server has told, unless that may have changed meanwhile. It reports whether that was not known before.
func (k *Learned) end(version uint64, hidden *state.Hidden, now int64, every time.Duration) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.studying, k.studied = false, now
	if version != k.version.Load() {
		return false
	}
	k.due.Store(now + int64(every))
	hidden = hidden.With(k.caught)
	if before := k.hidden.Load(); hidden.Equal(before) {
		return false
	}
	k.hidden.Store(hidden)
	k.version.Add(1)
	news = hidden.Len() != k.names
	k.names = hidden.Len()
	return news
}

// catch makes texts with these fingerprints be audited from now on.
func (k *Learned) catch(fingerprints []uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	caught := maps.Clone(k.caught)
	if caught == nil {
		caught = make(map[uint64]struct{})
	}
	for _, one := range fingerprints {
		if len(caught) < maxCaught {
			caught[one] = struct{}{}
		}
	}
	k.caught = caught
	k.hidden.Store(k.hidden.Load().With(caught))
	k.version.Add(1)
}

// consult makes a server that is being linked know its database.
func (l *Server) consult() {
	w := l.worker
	if w.config.LearnEvery <= 0 {
		l.learned = nil
		return
	}
	if l.learned == nil {
		l.learned = w.shared.Databases.of(l.pool)
		l.learned.connected(l.Generation)
	}
	l.version = l.learned.version.Load()
}

// unseen returns what a text may do that has these effects by what it shows, and notes if it changes what is hidden.
func (s *Session) unseen(text []byte, shown state.Effect) (effects state.Effect) {
	l := s.link
	if l.observed {
		l.seen.note(text)
	}
	if l.learned == nil {
		return 0
	}
	if hidden := l.learned.hidden.Load(); hidden != nil {
		effects = hidden.Effects(text, shown)
	}
	if shown.Has(state.DDL|state.Do) && state.ChangesHidden(text, shown|effects) {
		l.changesHidden()
	}
	return effects
}

// unseenOf is unseen for a prepared statement, which remembers the answer.
func (s *Session) unseenOf(st *statement.Statement) (effects state.Effect) {
	l := s.link
	if l.observed {
		l.seen.note([]byte(st.Query()))
	}
	if l.learned == nil {
		return 0
	}
	if hidden := l.learned.hidden.Load(); hidden != nil {
		effects = st.Unseen(hidden)
	}
	if st.Effects.Has(state.DDL|state.Do) && state.ChangesHidden([]byte(st.Query()), st.Effects|effects) {
		l.changesHidden()
	}
	return effects
}

// changesHidden notes that the linked session's transaction may change what its database hides.
func (l *Server) changesHidden() {
	if l.learned != nil && !l.changing {
		l.changing = true
		l.learned.changing()
	}
}

// endChange notes the end of such a transaction.
func (l *Server) endChange() {
	if l.changing {
		l.changing = false
		l.learned.changed()
	}
}

// settleHidden ends a transaction as far as hidden things are concerned. It reports whether something may have happened that was
// not known when its texts were looked at.
func (l *Server) settleHidden() bool {
	if l.learned == nil {
		return false
	}
	l.endChange()
	version := l.learned.version.Load()
	outdated := version != l.version || l.worker.Loop.Nanos() >= l.learned.due.Load()
	l.version = version
	return outdated
}
