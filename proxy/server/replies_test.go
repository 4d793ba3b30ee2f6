package server_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/wire"
)

// queue pushes requests and plays the server's part in short: a step is a message type with what has to become of it.
type queue struct {
	server.Replies
	t *testing.T
}

func (q *queue) push(kinds ...server.Kind) {
	for _, kind := range kinds {
		q.Push(server.Entry{Kind: kind})
	}
}

// replies are messages from the server that have to be delivered.
func (q *queue) replies(types ...byte) {
	q.t.Helper()
	for _, typ := range types {
		verdict, _, _ := q.Reply(typ)
		require.Equal(q.t, server.Deliver, verdict, "%c", typ)
	}
}

func (q *queue) stray(typ byte) {
	q.t.Helper()
	verdict, _, completes := q.Reply(typ)
	require.Equal(q.t, server.Stray, verdict, "%c", typ)
	require.False(q.t, completes)
}

// fails is an ErrorResponse that makes the server skip as many requests, the failed one included.
func (q *queue) fails(skipped int) {
	q.t.Helper()
	dropped, _, stray := q.Fail()
	require.False(q.t, stray)
	require.Len(q.t, dropped, skipped)
}

func TestReplies_whatEndsEachRequest(t *testing.T) {
	const (
		parse, bind, closed   = wire.ParseComplete, wire.BindComplete, wire.CloseComplete
		row, data, complete   = wire.RowDescription, wire.DataRow, wire.CommandComplete
		ready, empty          = wire.ReadyForQuery, wire.EmptyQueryResponse
		types, none, suspense = wire.ParameterDescription, wire.NoData, wire.PortalSuspended
		out, copied, ended    = wire.CopyOutResponse, wire.CopyData, wire.CopyDone
	)
	for _, row := range []struct {
		name    string
		kind    server.Kind
		replies []byte
	}{
		{"parse", server.Parse, []byte{parse}},
		{"bind", server.Bind, []byte{bind}},
		{"close", server.Close, []byte{closed}},
		{"sync", server.Sync, []byte{ready}},
		{"describe statement", server.DescribeStatement, []byte{types, row}},
		{"describe statement without rows", server.DescribeStatement, []byte{types, none}},
		{"describe portal", server.DescribePortal, []byte{row}},
		{"describe portal without rows", server.DescribePortal, []byte{none}},
		{"execute", server.Execute, []byte{data, data, complete}},
		{"execute up to a limit", server.Execute, []byte{data, suspense}},
		{"execute nothing", server.Execute, []byte{empty}},
		{"execute copy out", server.Execute, []byte{out, copied, copied, ended, complete}},
		{"function", server.Function, []byte{wire.FunctionCallResponse, ready}},
		{"query", server.Query, []byte{row, data, complete, complete, row, complete, ready}},
		{"empty query", server.Query, []byte{empty, ready}},
		{"query copy out", server.Query, []byte{out, copied, ended, complete, ready}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var r server.Replies
			r.Push(server.Entry{Kind: row.kind, Name: "this"})
			r.Push(server.Entry{Kind: server.Sync, Name: "next"})
			for i, typ := range row.replies {
				require.False(t, r.Settled())
				verdict, done, completes := r.Reply(typ)
				require.Equal(t, server.Deliver, verdict)
				require.Equal(t, i == len(row.replies)-1, completes, "%c", typ)
				if completes {
					require.Equal(t, "this", done.Name)
				}
			}
			verdict, done, completes := r.Reply(ready)
			require.Equal(t, server.Deliver, verdict)
			require.True(t, completes && done.Name == "next")
			require.True(t, r.Settled())
		})
	}
}

func TestReplies_whatDoesNotBelongIsStray(t *testing.T) {
	belongs := map[server.Kind]string{
		server.Parse: "1", server.Bind: "2", server.Close: "3", server.Sync: "Z",
		server.DescribeStatement: "tTn", server.DescribePortal: "Tn",
		server.Execute: "DCIsGHdc", server.Query: "TDCIGHdcZ", server.Function: "VZ",
	}
	for kind, allowed := range belongs {
		for _, typ := range []byte("123tTnDCIsGHdcVZKW") {
			q := queue{t: t}
			q.push(kind)
			verdict, _, _ := q.Reply(typ)
			require.Equal(t, !contains(allowed, typ), verdict == server.Stray, "kind %d, message %c", kind, typ)
		}
	}
	q := queue{t: t}
	for _, typ := range []byte("123tTnDCIsGHdcVZKW") {
		q.stray(typ)
	}
}

func contains(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

func TestReplies_asynchronousMessagesMayComeAtAnyTime(t *testing.T) {
	q := queue{t: t}
	q.replies(wire.NoticeResponse, wire.ParameterStatus, wire.NotificationResponse)
	q.Push(server.Entry{Kind: server.Query, Fate: server.Swallow})
	for typ, want := range map[byte]server.Verdict{
		wire.NoticeResponse:       server.Drop,
		wire.ParameterStatus:      server.Drop,
		wire.NotificationResponse: server.Deliver, // what was asked has nothing to do with it
	} {
		verdict, _, completes := q.Reply(typ)
		require.Equal(t, want, verdict, "%c", typ)
		require.False(t, completes)
	}
	require.Equal(t, 1, q.Len())
}

func TestReplies_swallowedRequestsAreCut(t *testing.T) {
	var r server.Replies
	r.Push(server.Entry{Kind: server.Query, Fate: server.Swallow, Purpose: 7})
	r.Push(server.Entry{Kind: server.Query})
	for _, typ := range []byte{wire.CommandComplete, wire.ReadyForQuery} {
		verdict, done, completes := r.Reply(typ)
		require.Equal(t, server.Drop, verdict)
		require.Equal(t, completes, done.Purpose == 7)
	}
	verdict, _, _ := r.Reply(wire.CommandComplete)
	require.Equal(t, server.Deliver, verdict)
}

func TestReplies_aFailedRequestSkipsUpToTheSync(t *testing.T) {
	q := queue{t: t}
	q.push(server.Parse)
	q.Push(server.Entry{Kind: server.Bind, Name: "failed"})
	q.push(server.Execute, server.Query, server.Function, server.Sync, server.Parse)
	q.replies(wire.ParseComplete)
	dropped, failed, stray := q.Fail()
	require.False(t, stray)
	require.Equal(t, "failed", failed.Name)
	require.Equal(t, []server.Kind{server.Bind, server.Execute, server.Query, server.Function}, kinds(dropped))
	require.False(t, q.Skipping())
	q.replies(wire.ReadyForQuery, wire.ParseComplete)
}

func kinds(entries []server.Entry) (k []server.Kind) {
	for _, e := range entries {
		k = append(k, e.Kind)
	}
	return k
}

func TestReplies_skippingLastsUntilASyncIsSent(t *testing.T) {
	q := queue{t: t}
	q.push(server.Bind, server.Execute)
	q.fails(2)
	require.True(t, q.Skipping() && q.Empty() && !q.Settled())
	q.push(server.Sync)
	require.False(t, q.Skipping())
	q.replies(wire.ReadyForQuery)
	require.True(t, q.Settled())
}

func TestReplies_aFailedQueryFunctionOrSyncIsStillAnswered(t *testing.T) {
	for _, kind := range []server.Kind{server.Query, server.Function, server.Sync} {
		q := queue{t: t}
		q.push(kind, server.Query)
		dropped, failed, stray := q.Fail()
		require.False(t, stray)
		require.Empty(t, dropped)
		require.Equal(t, kind, failed.Kind)
		require.Equal(t, 2, q.Len())
		q.replies(wire.ReadyForQuery, wire.CommandComplete, wire.ReadyForQuery)
		require.True(t, q.Settled())
	}
}

func TestReplies_anErrorThatNobodyAskedForIsStray(t *testing.T) {
	q := queue{t: t}
	_, _, stray := q.Fail()
	require.True(t, stray)
}

func TestReplies_madeUpInTheirPlace(t *testing.T) {
	made := server.Entry{Kind: server.Parse, Fate: server.MakeUp, Name: "made"}
	for _, row := range []struct {
		name    string
		entries []server.Entry
		replies string // from the server; E is an error
		want    string // to the client; m is made up
	}{
		{"head", []server.Entry{made, {Kind: server.Bind}, {Kind: server.Sync}}, "2Z", "m2Z"},
		{"middle", []server.Entry{{Kind: server.Parse}, made, made, {Kind: server.Bind}, {Kind: server.Sync}}, "12Z", "1mm2Z"},
		{"before the Sync", []server.Entry{{Kind: server.Bind}, made, {Kind: server.Sync}}, "2Z", "2mZ"},
		{"behind the Sync", []server.Entry{{Kind: server.Sync}, made}, "Z", "Zm"},
		{"behind an error none", []server.Entry{{Kind: server.Bind}, made, {Kind: server.Sync}}, "EZ", "EZ"},
		{"behind an error and its Sync", []server.Entry{{Kind: server.Bind}, made, {Kind: server.Sync}, made}, "EZ", "EZm"},
		{"before an error", []server.Entry{made, {Kind: server.Bind}, {Kind: server.Sync}}, "EZ", "mEZ"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var r server.Replies
			for _, e := range row.entries {
				r.Push(e)
			}
			got := ""
			makeUp := func() {
				for e, ok := r.MadeUp(); ok; e, ok = r.MadeUp() {
					require.Equal(t, "made", e.Name)
					got += "m"
				}
			}
			for _, typ := range []byte(row.replies) {
				makeUp()
				got += string(typ)
				if typ == 'E' {
					r.Fail()
				} else {
					verdict, _, _ := r.Reply(typ)
					require.Equal(t, server.Deliver, verdict)
				}
				makeUp()
			}
			require.Equal(t, row.want, got)
			require.True(t, r.Empty())
		})
	}
}

// What a client has begun without a Sync is an open transaction: nobody else may have the server.
func TestReplies_openUntilTheSync(t *testing.T) {
	for _, kind := range []server.Kind{server.Parse, server.Bind, server.DescribeStatement, server.DescribePortal, server.Execute} {
		q := queue{t: t}
		q.push(kind)
		end := map[server.Kind]byte{
			server.Parse: '1', server.Bind: '2', server.DescribeStatement: 'n', server.DescribePortal: 'n', server.Execute: 'C',
		}
		q.replies(end[kind])
		require.True(t, q.Empty())
		require.False(t, q.Settled(), "kind %d", kind)
		q.push(server.Close)
		q.replies(wire.CloseComplete)
		require.False(t, q.Settled())
		q.push(server.Sync)
		q.replies(wire.ReadyForQuery)
		require.True(t, q.Settled())
	}
}

func TestReplies_notOpenBehindWhatBeginsNothing(t *testing.T) {
	q := queue{t: t}
	q.Push(server.Entry{Kind: server.Parse, Fate: server.MakeUp})
	_, ok := q.MadeUp()
	require.True(t, ok && q.Settled())
	q.push(server.Close)
	q.replies(wire.CloseComplete)
	require.True(t, q.Settled())
	q.push(server.Parse, server.Query)
	q.replies(wire.ParseComplete, wire.EmptyQueryResponse, wire.ReadyForQuery)
	require.True(t, q.Settled(), "a simple query ends the transaction that a Parse has begun")
}

func TestReplies_copyIgnoresSyncs(t *testing.T) {
	for _, when := range []string{"before CopyInResponse", "after it"} {
		q := queue{t: t}
		q.push(server.Execute)
		if when == "before CopyInResponse" {
			q.push(server.Sync, server.Sync)
		}
		q.replies(wire.CopyInResponse)
		require.True(t, q.Starving())
		if when == "after it" {
			q.push(server.Sync, server.Sync)
		}
		require.Equal(t, 1, q.Len())
		q.CopyEnds()
		require.False(t, q.Starving())
		q.push(server.Sync)
		q.replies(wire.CommandComplete)
		require.False(t, q.Settled())
		q.replies(wire.ReadyForQuery)
		require.True(t, q.Settled(), when)
	}
}

// The Sync that a client sends with the request itself is ignored; without another one the transaction stays open.
func TestReplies_anIgnoredSyncEndsNothing(t *testing.T) {
	q := queue{t: t}
	q.push(server.Bind, server.Execute, server.Sync)
	q.CopyEnds()
	q.replies(wire.BindComplete, wire.CopyInResponse, wire.CommandComplete)
	q.push(server.Sync)
	q.replies(wire.ReadyForQuery)

	q.push(server.Execute, server.Sync)
	q.replies(wire.CopyInResponse)
	q.CopyEnds()
	q.replies(wire.CommandComplete)
	require.True(t, q.Empty())
	require.False(t, q.Settled())
}

// Each of two copies in one query has its own end.
func TestReplies_secondCopyOfAQueryHasItsOwnEnd(t *testing.T) {
	q := queue{t: t}
	q.push(server.Query)
	q.replies(wire.CopyInResponse)
	q.CopyEnds()
	q.replies(wire.CommandComplete, wire.CopyInResponse)
	q.push(server.Sync) // ignored
	require.Equal(t, 1, q.Len())
	q.CopyEnds()
	q.push(server.Sync)
	q.replies(wire.CommandComplete, wire.ReadyForQuery, wire.ReadyForQuery)
	require.True(t, q.Settled())

	q.push(server.Query)
	q.CopyEnds()
	q.push(server.Sync) // sent at once, ignored by the second copy
	q.CopyEnds()
	q.replies(wire.CopyInResponse, wire.CommandComplete, wire.CopyInResponse, wire.CommandComplete, wire.ReadyForQuery)
	require.True(t, q.Settled())
}

// After a copy has failed, whether a Sync was read by it is found out by the next reply that is not ReadyForQuery.
func TestReplies_syncsOfAFailedCopyAreUnsure(t *testing.T) {
	for answered := range 3 {
		q := queue{t: t}
		q.push(server.Query, server.Sync, server.Sync)
		q.replies(wire.CopyInResponse)
		q.fails(0)
		q.replies(wire.ReadyForQuery) // of the query
		require.True(t, q.Unsure() && !q.Settled())
		q.Push(server.Entry{Kind: server.Close, Fate: server.Swallow}) // the probe
		for range answered {
			q.replies(wire.ReadyForQuery)
		}
		verdict, _, completes := q.Reply(wire.CloseComplete)
		require.Equal(t, server.Drop, verdict)
		require.True(t, completes)
		require.True(t, q.Settled(), "%d answered", answered)
		q.stray(wire.ReadyForQuery)
	}
}

func TestReplies_anUnsureSyncEndsSkipping(t *testing.T) {
	q := queue{t: t}
	q.push(server.Execute, server.Sync)
	q.replies(wire.CopyInResponse)
	q.fails(1)
	require.True(t, q.Skipping())
	q.replies(wire.ReadyForQuery)
	require.True(t, q.Settled())
}

// Whether the server skips what a client sends behind a failed copy depends on whether it has read the Sync that came with the
// copy. Resolve finds out, and what it sends for that changes nothing for the client.
func TestReplies_doubtAboutSkippingIsResolved(t *testing.T) {
	for _, answered := range []int{0, 1, 2} {
		q := queue{t: t}
		q.push(server.Execute, server.Sync, server.Sync)
		q.replies(wire.CopyInResponse)
		q.fails(1)
		require.True(t, q.Doubtful())
		q.Resolve()
		delivered := 0
		for range answered + 1 { // the last one answers the Sync of Resolve; which of them is dropped does not matter
			verdict, _, _ := q.Reply(wire.ReadyForQuery)
			if verdict == server.Deliver {
				delivered++
			}
		}
		require.Equal(t, answered, delivered)
		verdict, _, _ := q.Reply(wire.CloseComplete)
		require.Equal(t, server.Drop, verdict)
		require.False(t, q.Doubtful())
		require.Equal(t, answered == 0, q.Skipping(), "%d answered", answered)
		require.Equal(t, answered > 0, q.Settled())
	}
}

// With requests behind, their own Syncs and the unsure ones cannot be told apart one by one, but all are delivered and the
// replies between them stay with their requests.
func TestReplies_unsureSyncsAmongLaterRequests(t *testing.T) {
	for answered := range 2 {
		q := queue{t: t}
		q.push(server.Execute, server.Sync)
		q.replies(wire.CopyInResponse)
		q.CopyEnds()
		q.push(server.Sync, server.Query, server.Parse, server.Sync)
		q.fails(2) // with the mark of the copy's end
		for range answered {
			q.replies(wire.ReadyForQuery)
		}
		q.replies(wire.ReadyForQuery, wire.CommandComplete, wire.ReadyForQuery, wire.ParseComplete, wire.ReadyForQuery)
		require.True(t, q.Settled())
	}
}

func TestReplies_requestsInsideAFailedCopyLoseTheConnection(t *testing.T) {
	q := queue{t: t}
	q.push(server.Query, server.Sync, server.Query)
	q.replies(wire.CopyInResponse)
	q.fails(0)
	require.False(t, q.Settled())
	q.stray(wire.ReadyForQuery)
}

func TestReplies_copyDoneWithoutCopyIsNothing(t *testing.T) {
	q := queue{t: t}
	q.CopyEnds()
	require.True(t, q.Settled())
	q.push(server.Query)
	q.CopyEnds()
	q.CopyEnds()
	q.push(server.Query)
	q.replies(wire.CommandComplete, wire.ReadyForQuery)
	require.Equal(t, 1, q.Len())
	q.replies(wire.CopyInResponse)
	require.True(t, q.Starving())
}

func TestReplies_pendingAndOwedAreInOrder(t *testing.T) {
	q := queue{t: t}
	q.push(server.Sync, server.Parse, server.Bind, server.Sync)
	q.replies(wire.ReadyForQuery)
	var forward, backward []server.Kind
	q.Owed(func(e *server.Entry) { forward = append(forward, e.Kind) })
	q.Pending(func(e *server.Entry) bool {
		backward = append(backward, e.Kind)
		return e.Kind != server.Parse
	})
	require.Equal(t, []server.Kind{server.Parse, server.Bind, server.Sync}, forward)
	require.Equal(t, []server.Kind{server.Sync, server.Bind, server.Parse}, backward)
}

// A queue that never gets empty moves its entries now and then; nothing gets lost on the way.
func TestReplies_longQueueStaysInOrder(t *testing.T) {
	var r server.Replies
	sent, answered := 0, 0
	for answered < 20_000 {
		for range 7 {
			sent++
			r.Push(server.Entry{Kind: server.Parse, Op: uint32(sent)})
		}
		for r.Len() > 400 {
			answered++
			_, done, completes := r.Reply(wire.ParseComplete)
			require.True(t, completes)
			require.Equal(t, uint32(answered), done.Op)
		}
	}
}

func TestReplies_nothingIsAllocated(t *testing.T) {
	var r server.Replies
	transaction := func() {
		for _, kind := range []server.Kind{server.Parse, server.Bind, server.DescribePortal, server.Execute, server.Sync} {
			r.Push(server.Entry{Kind: kind})
		}
		for _, typ := range []byte("12TDDCZ") {
			r.Reply(typ)
		}
	}
	require.Zero(t, testing.AllocsPerRun(1000, transaction))
	require.True(t, r.Settled())
}
