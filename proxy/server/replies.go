package server

import (
	"pgsidecar/proxy/statement"
	"pgsidecar/proxy/wire"
)

// Kind is what a reply is owed for.
type Kind uint8

// Kinds of requests. Query, Function and Sync end with ReadyForQuery, the others with a message of their own.
const (
	Query Kind = iota + 1
	Function
	Sync
	Parse
	Bind
	DescribeStatement
	DescribePortal
	Execute
	Close
	copyEnd // CopyDone or CopyFail: nothing is owed for it; it marks where copy data ends
)

// Fate is what becomes of a reply.
type Fate uint8

// Fates of replies.
const (
	Forward Fate = iota // to the client
	Swallow             // the proxy asked, not the client
	MakeUp              // the server was not asked: the proxy answers in its place
)

// Entry is one request that will be answered.
type Entry struct {
	Kind Kind
	Fate Fate

	// Purpose tells the session's own requests apart (replayed settings, checks). 0 for the client's.
	Purpose uint8

	// Unnamed tells that the request changes the unnamed statement.
	Unnamed bool

	// Op is the number of the change that the request makes to what the server holds, named or unnamed; 0: none.
	Op uint32

	// What has to be undone when an earlier error makes the server skip the request.
	Statement *statement.Statement // of Parse, Bind and Close of a named statement
	Name      string               // the client's name of it
	Alias     string               // what the client calls the statement that the server's error will name
	Client    *statement.Statement // the client's unnamed statement before the request
	Server    *statement.Statement // the server's unnamed statement before the request
}

// Verdict is what to do with a message from the server.
type Verdict uint8

// Verdicts on messages.
const (
	Deliver Verdict = iota // pass it to the client
	Drop                   // cut it out
	Stray                  // nobody asked for it: the connection is out of step and must be closed
)

// Replies is the queue of what a server owes, in the order of the requests. Every request is pushed before it is written.
// It belongs to the server connection's loop.
//
// After an error in an extended-protocol request the server skips everything up to the next Sync, queued or still to come
// (PostgreSQL documentation, "Extended Query"); so does the queue.
//
// COPY FROM STDIN is the one place where the number of replies cannot be known from the requests: while the server reads
// copy data it ignores Sync. Such Syncs are taken out of the queue when CopyInResponse arrives. If the copy then fails, the
// error may have come before the server had read them, in which case each is answered after all: they are counted as
// unsure until a reply to a later request comes, for which a probe can be sent.
type Replies struct {
	queue    []Entry
	head     int
	answered bool // the request at the head may be ended by ReadyForQuery: it has got a reply of its own, or an error
	open     bool // the latest request has begun a transaction that a Sync has to end
	skipping bool // an error has been reported and the Sync that ends skipping has not been requested yet
	copying  bool // between CopyInResponse and the end of its command
	foreign  bool // something else than copy data and Syncs has been sent while copying
	lost     bool // a copy has failed in a way that leaves open where the replies to what was sent behind it belong
	ignored  int  // Syncs sent while copying, ignored unless the copy failed before they were read
	unsure   int  // Syncs of a failed copy that may or may not be answered

	// resolving is true between Resolve and the reply that tells.
	resolving bool
}

// Empty tells whether the server owes nothing.
func (r *Replies) Empty() bool { return r.head == len(r.queue) }

// Len returns how many replies are owed.
func (r *Replies) Len() int { return len(r.queue) - r.head }

// Settled tells whether nothing is owed and nothing is unclear: the server has said ReadyForQuery since the latest request.
func (r *Replies) Settled() bool {
	return r.Empty() && !r.open && !r.skipping && r.unsure == 0 && !r.lost
}

// Unsure tells whether nothing is owed but a probe is needed to know so: any request whose reply is not ReadyForQuery.
func (r *Replies) Unsure() bool { return r.Empty() && !r.skipping && r.unsure > 0 }

// Skipping tells whether the server ignores everything up to the next Sync. What a client sends before that Sync may be
// dropped, and must not be pushed.
func (r *Replies) Skipping() bool { return r.skipping }

// Doubtful tells whether the server is skipping only if none of the unsure Syncs is answered. Then Resolve finds out, before
// anything but copy data or a Sync is pushed or dropped.
func (r *Replies) Doubtful() bool { return r.skipping && r.unsure > 0 }

// Resolve notes that a Sync, a Close and a Flush are about to be written, to find out whether unsure Syncs have ended the
// skipping: then more than one ReadyForQuery comes before CloseComplete. If not, the server's skipping ends with this Sync,
// but the client's does not.
func (r *Replies) Resolve() {
	r.Push(Entry{Kind: Sync, Fate: Swallow})
	r.Push(Entry{Kind: Close, Fate: Swallow})
	r.resolving = true
}

// Open tells whether the latest request has begun a transaction that a Sync has to end.
func (r *Replies) Open() bool { return r.open }

// Starving tells whether the server waits for copy data, so that it answers nothing until more of that is sent.
func (r *Replies) Starving() bool { return r.copying && !r.copyEnded() }

// Head returns the entry that the next reply belongs to, or nil.
func (r *Replies) Head() *Entry {
	if r.Empty() {
		return nil
	}
	return &r.queue[r.head]
}

// Owed calls f with each entry from the oldest to the latest.
func (r *Replies) Owed(f func(e *Entry)) {
	for i := r.head; i < len(r.queue); i++ {
		f(&r.queue[i])
	}
}

// Pending calls f with each entry from the latest to the oldest until it returns false.
func (r *Replies) Pending(f func(e *Entry) bool) {
	for i := len(r.queue) - 1; i >= r.head; i-- {
		if !f(&r.queue[i]) {
			return
		}
	}
}

// Push notes that a request is about to be written (or answered, if its fate is MakeUp).
func (r *Replies) Push(e Entry) {
	starving := r.Starving()
	switch {
	case e.Kind == Sync && starving:
		r.ignored++
		return
	case e.Kind == Sync:
		r.skipping = false
	case starving:
		r.foreign = true
	}
	r.lost = r.lost || (e.Fate == MakeUp && r.unsure > 0) // its place among ReadyForQuery messages cannot be known
	r.open = e.leavesOpen(r.open)
	r.queue = append(r.queue, e)
}

// leavesOpen tells whether a transaction is open behind a request, if one was (or not) before it. The server begins one for
// each request of the extended protocol but Close.
func (e *Entry) leavesOpen(before bool) bool {
	switch e.Kind {
	case Query, Function, Sync:
		return false
	case Parse, Bind, DescribeStatement, DescribePortal, Execute:
		return before || e.Fate != MakeUp
	default:
		return before
	}
}

// CopyEnds notes that CopyDone or CopyFail is about to be written.
func (r *Replies) CopyEnds() {
	if !r.Empty() {
		r.queue = append(r.queue, Entry{Kind: copyEnd})
	}
}

func (r *Replies) copyEnded() bool { return r.nextCopyEnd() < len(r.queue) }

// nextCopyEnd returns where the data of the copy at the head ends, or would.
func (r *Replies) nextCopyEnd() int {
	i := r.head
	for i < len(r.queue) && r.queue[i].Kind != copyEnd {
		i++
	}
	return i
}

// keptCapacity is the length up to which the queue's memory is kept when it is empty. Longer ones are rare.
const keptCapacity = 1024

func (r *Replies) pop() {
	r.queue[r.head] = Entry{} // drop its references
	r.head++
	for r.head < len(r.queue) && r.queue[r.head].Kind == copyEnd {
		r.head++
	}
	r.shrink()
}

// shrink makes room in front of the head. It comes with each change of the head.
func (r *Replies) shrink() {
	r.answered = false
	switch {
	case r.Empty() && cap(r.queue) > keptCapacity:
		r.queue, r.head = nil, 0
	case r.Empty():
		r.queue, r.head = r.queue[:0], 0
	case r.head >= 256 && r.head >= len(r.queue)/2:
		n := copy(r.queue, r.queue[r.head:])
		clear(r.queue[n:])
		r.queue, r.head = r.queue[:n], 0
	}
}

// MadeUp takes the next entry off the queue if it is to be made up.
func (r *Replies) MadeUp() (Entry, bool) {
	if r.Empty() || r.lost || r.queue[r.head].Fate != MakeUp {
		return Entry{}, false
	}
	e := r.queue[r.head]
	r.pop()
	return e, true
}

// Reply takes a message from the server, other than ErrorResponse, and says what to do with it. done is the entry that it
// completes, if it completes one.
func (r *Replies) Reply(t byte) (v Verdict, done Entry, completes bool) {
	switch t {
	case wire.NoticeResponse, wire.ParameterStatus:
		return r.fate(), Entry{}, false // may come at any time
	case wire.NotificationResponse:
		return Deliver, Entry{}, false // has nothing to do with what is asked
	}
	if r.lost {
		return Stray, Entry{}, false
	}
	if t != wire.ReadyForQuery {
		r.unsure = 0 // what is answered was sent behind the unsure Syncs
	} else if r.unsure > 0 && !r.mayBeReady() {
		r.unsure--
		r.skipping, r.resolving = false, false
		r.open = r.open && !r.Empty()
		return Deliver, Entry{}, false
	}
	if r.Empty() {
		return Stray, Entry{}, false
	}
	ends, belongs := answer(r.queue[r.head].Kind, t)
	if !belongs {
		return Stray, Entry{}, false
	}
	v = r.fate()
	switch t {
	case wire.CopyInResponse:
		r.beginCopy()
	case wire.CommandComplete:
		r.endCopy()
	case wire.CloseComplete:
		r.skipping = r.skipping || r.resolving
		r.resolving = false
	}
	if !ends {
		r.answered = true
		return v, Entry{}, false
	}
	done = r.queue[r.head]
	r.pop()
	return v, done, true
}

// mayBeReady tells whether ReadyForQuery can be the answer to the request at the head.
func (r *Replies) mayBeReady() bool {
	return !r.Empty() && (r.answered || r.queue[r.head].Kind == Sync)
}

func (r *Replies) fate() Verdict {
	if !r.Empty() && r.queue[r.head].Fate == Swallow {
		return Drop
	}
	return Deliver
}

// beginCopy takes out the Syncs that the server will ignore, because they precede the end of the copy data.
func (r *Replies) beginCopy() {
	r.copying, r.foreign, r.ignored = true, false, 0
	end := r.nextCopyEnd()
	kept := r.head + 1
	for i := kept; i < end; i++ {
		if r.queue[i].Kind == Sync {
			r.ignored++
			continue
		}
		r.foreign = true
		r.queue[kept] = r.queue[i]
		kept++
	}
	r.remove(kept, end)
	r.open = false
	r.Owed(func(e *Entry) { r.open = e.leavesOpen(r.open) })
}

// endCopy takes out the mark of where the data of a copy ended that is complete: the next copy has its own.
func (r *Replies) endCopy() {
	if !r.copying {
		return
	}
	r.copying, r.ignored = false, 0
	if end := r.nextCopyEnd(); end < len(r.queue) {
		r.remove(end, end+1)
	}
}

// remove takes out queue[from:to], which is not the head.
func (r *Replies) remove(from, to int) {
	n := from + copy(r.queue[from:], r.queue[to:])
	clear(r.queue[n:])
	r.queue = r.queue[:n]
}

// Fail takes an ErrorResponse. It returns the entries that the server will not answer because of it, in the order of the
// requests; the first one is the request that failed. They are valid until the next call. The failed request's fate tells
// nothing here: whoever asked, the client's requests behind it are skipped, so the client has to be told.
//
// A simple Query, a function call or a Sync that fails is still answered by ReadyForQuery; then failed is that entry and
// dropped is empty. stray is true when nothing was asked for: the server reports on its own that it ends the connection.
func (r *Replies) Fail() (dropped []Entry, failed Entry, stray bool) {
	if r.Empty() || r.lost {
		return nil, Entry{}, true
	}
	r.unsure = 0
	if r.copying {
		r.failCopy()
	}
	failed = r.queue[r.head]
	switch failed.Kind {
	case Query, Function, Sync:
		r.answered = true
		return nil, failed, false
	default:
	}
	end := r.head
	for end < len(r.queue) && r.queue[end].Kind != Sync {
		end++
	}
	dropped = r.queue[r.head:end]
	for i := 1; i < len(dropped) && r.unsure > 0; i++ {
		r.lost = r.lost || dropped[i].Kind != copyEnd // an unsure Sync would have ended the skipping before it
	}
	r.head, r.answered = end, false
	r.skipping = end == len(r.queue)
	return dropped, failed, false
}

// failCopy makes the Syncs that were sent while copying unsure.
func (r *Replies) failCopy() {
	r.unsure = r.ignored
	r.copying, r.ignored = false, 0
	if r.unsure > 0 {
		r.lost = r.foreign
		r.Owed(func(e *Entry) { r.lost = r.lost || e.Fate == MakeUp })
	}
}

// Reset forgets everything: the connection is being closed.
func (r *Replies) Reset() { *r = Replies{} }

// answer tells whether a message of type t can belong to the answer to a request, and whether it ends it.
func answer(kind Kind, t byte) (ends, belongs bool) {
	switch kind {
	case Sync:
		return true, t == wire.ReadyForQuery
	case Parse:
		return true, t == wire.ParseComplete
	case Bind:
		return true, t == wire.BindComplete
	case Close:
		return true, t == wire.CloseComplete
	case DescribeStatement:
		return t != wire.ParameterDescription,
			t == wire.ParameterDescription || t == wire.RowDescription || t == wire.NoData
	case DescribePortal:
		return true, t == wire.RowDescription || t == wire.NoData
	case Function:
		return t == wire.ReadyForQuery, t == wire.ReadyForQuery || t == wire.FunctionCallResponse
	case Query:
		return t == wire.ReadyForQuery, t == wire.ReadyForQuery || t == wire.RowDescription || inExecution(t)
	case Execute:
		ends = t == wire.CommandComplete || t == wire.EmptyQueryResponse || t == wire.PortalSuspended
		return ends, t == wire.PortalSuspended || inExecution(t)
	default:
		return false, false
	}
}

// inExecution tells whether a message may come while statements are executed.
func inExecution(t byte) bool {
	switch t {
	case wire.DataRow, wire.CommandComplete, wire.EmptyQueryResponse,
		wire.CopyInResponse, wire.CopyOutResponse, wire.CopyData, wire.CopyDone:
		return true
	}
	return false
}
