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

	// What has to be undone when an earlier error makes the server skip the request.
	Statement *statement.Statement // of Parse, Bind and Close of a named statement
	Name      string               // the client's name of it
	Alias     string               // what the client calls the statement that the server's error will name
	Client    *statement.Statement // the client's unnamed statement before the request
	Server    *statement.Statement // the server's unnamed statement before the request
	Unnamed   bool                 // the request changes the unnamed statement
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
// unsure, and Probe finds out.
type Replies struct {
	queue    []Entry
	head     int
	skipping bool // an error has been reported and the Sync that ends skipping has not been requested yet
	copying  bool // between CopyInResponse and the end of its command
	ignored  int  // Syncs sent while copying, ignored unless the copy failed before they were read
	unsure   int  // Syncs of a failed copy that may or may not be answered
	probed   bool // the probe at the head has been recognised by its EmptyQueryResponse
}

// PurposeProbe marks the empty query that finds out whether unsure Syncs are answered.
const PurposeProbe = 255

// Empty tells whether the server owes nothing.
func (r *Replies) Empty() bool { return r.head == len(r.queue) }

// Len returns how many replies are owed.
func (r *Replies) Len() int { return len(r.queue) - r.head }

// Settled tells whether nothing is owed and nothing is unclear: the connection is between two requests.
func (r *Replies) Settled() bool { return r.Empty() && !r.skipping && r.unsure == 0 }

// Unsure tells whether nothing is owed but a probe is needed to know so.
func (r *Replies) Unsure() bool { return r.Empty() && !r.skipping && r.unsure > 0 }

// Skipping tells whether the server ignores everything up to the next Sync. What a client sends before that Sync may be
// dropped, and must not be pushed.
func (r *Replies) Skipping() bool { return r.skipping }

// Copying tells whether the server is reading copy data.
func (r *Replies) Copying() bool { return r.copying }

// Head returns the entry that the next reply belongs to, or nil.
func (r *Replies) Head() *Entry {
	if r.Empty() {
		return nil
	}
	return &r.queue[r.head]
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
	if e.Kind == Sync {
		if r.copying && !r.copyEnded() {
			r.ignored++
			return
		}
		r.skipping = false
	}
	if r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	}
	r.queue = append(r.queue, e)
}

// CopyEnds notes that CopyDone or CopyFail is about to be written.
func (r *Replies) CopyEnds() {
	if !r.Empty() {
		r.queue = append(r.queue, Entry{Kind: copyEnd})
	}
}

func (r *Replies) copyEnded() bool {
	for i := r.head; i < len(r.queue); i++ {
		if r.queue[i].Kind == copyEnd {
			return true
		}
	}
	return false
}

func (r *Replies) pop() {
	r.queue[r.head] = Entry{} // drop its references
	r.head++
	for r.head < len(r.queue) && r.queue[r.head].Kind == copyEnd {
		r.head++
	}
	if r.head == len(r.queue) {
		r.queue, r.head = r.queue[:0], 0
	} else if r.head >= 256 && r.head >= len(r.queue)/2 {
		n := copy(r.queue, r.queue[r.head:])
		clear(r.queue[n:])
		r.queue, r.head = r.queue[:n], 0
	}
}

// MadeUp takes the next entry off the queue if it is to be made up.
func (r *Replies) MadeUp() (Entry, bool) {
	if r.Empty() || r.queue[r.head].Fate != MakeUp {
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
	case wire.NoticeResponse, wire.NotificationResponse, wire.ParameterStatus:
		return r.fate(), Entry{}, false // may come at any time
	}
	if r.Empty() {
		if t == wire.ReadyForQuery && r.unsure > 0 {
			r.unsure--
			r.skipping = false
			return Deliver, Entry{}, false
		}
		return Stray, Entry{}, false
	}
	kind := r.queue[r.head].Kind
	ends, belongs := answer(kind, t)
	switch {
	case !belongs:
		return Stray, Entry{}, false
	case t == wire.CopyInResponse:
		r.beginCopy()
	case t == wire.EmptyQueryResponse && r.queue[r.head].Purpose == PurposeProbe:
		r.probed = true
	case t == wire.ReadyForQuery && r.queue[r.head].Purpose == PurposeProbe && !r.probed:
		r.unsure = max(r.unsure-1, 0) // the answer to an unsure Sync, ahead of the probe's own
		return Deliver, Entry{}, false
	case t == wire.CommandComplete:
		r.copying, r.ignored = false, 0
	}
	v = r.fate()
	if !ends {
		return v, Entry{}, false
	}
	done = r.queue[r.head]
	if done.Purpose == PurposeProbe {
		r.unsure, r.probed = 0, false
	}
	r.pop()
	return v, done, true
}

func (r *Replies) fate() Verdict {
	if !r.Empty() && r.queue[r.head].Fate == Swallow {
		return Drop
	}
	return Deliver
}

// beginCopy takes out the Syncs that the server will ignore, because they precede the end of the copy data.
func (r *Replies) beginCopy() {
	r.copying, r.ignored = true, 0
	kept := r.head + 1
	for i := r.head + 1; i < len(r.queue); i++ {
		if r.queue[i].Kind == copyEnd {
			kept += copy(r.queue[kept:], r.queue[i:])
			break
		}
		if r.queue[i].Kind == Sync {
			r.ignored++
			continue
		}
		r.queue[kept] = r.queue[i]
		kept++
	}
	clear(r.queue[kept:])
	r.queue = r.queue[:kept]
}

// Fail takes an ErrorResponse. It returns the entries that the server will not answer because of it, in the order of the
// requests; the first one is the request that failed. They are valid until the next call. The failed request's fate tells
// nothing here: whoever asked, the client's requests behind it are skipped, so the client has to be told.
//
// A simple Query, a function call or a Sync that fails is still answered by ReadyForQuery; then failed is that entry and
// dropped is empty. stray is true when nothing was asked for: the server reports on its own that it ends the connection.
func (r *Replies) Fail() (dropped []Entry, failed Entry, stray bool) {
	if r.copying {
		r.copying = false
		r.unsure += r.ignored
		r.ignored = 0
	}
	if r.Empty() {
		return nil, Entry{}, true
	}
	failed = r.queue[r.head]
	switch failed.Kind {
	case Query, Function, Sync:
		return nil, failed, false
	default:
	}
	end := r.head
	for end < len(r.queue) && r.queue[end].Kind != Sync {
		end++
	}
	dropped = r.queue[r.head:end]
	r.head = end
	r.skipping = end == len(r.queue)
	return dropped, failed, false
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
