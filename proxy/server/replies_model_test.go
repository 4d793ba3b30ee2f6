package server_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"pgsidecar/proxy/server"
	"pgsidecar/proxy/wire"
)

// The model: a small server that takes messages one by one, as PostgreSQL's main loop and its COPY do, and answers as a
// script says that comes with each message. The queue sees the requests and the answers in any interleaving of the two
// directions; what it lets through must be what a client would have got that spoke to such a server itself.

// request is one message of the client, or of the proxy (swallowed), with what the server will do about it.
type request struct {
	id     string
	kind   server.Kind // 0: copy data or the end of it
	copied string      // "data", "bad data", "done", "fail"; of kind 0
	fate   server.Fate
	script string // the server's replies; '!' an error; '<' a copy that reads; '^' one that fails at once
}

func (r request) String() string {
	return fmt.Sprintf("%s%d%s%d(%s)", r.id, r.kind, r.copied, r.fate, r.script)
}

// reply is one message of the server, and whose.
type reply struct {
	typ byte // 'E' for an error
	of  string
}

// model is the server.
type model struct {
	out      []reply
	skipping bool
	reading  *request // whose copy reads
	rest     string   // of its script
}

// take has the server read one message.
func (m *model) take(r request) {
	if m.reading != nil {
		m.takeCopy(r)
		return
	}
	switch {
	case r.kind == 0: // ignored outside of a copy
	case r.kind == server.Sync:
		m.skipping = false
		m.run(r, r.script)
	case !m.skipping:
		m.run(r, r.script)
	}
}

// takeCopy has a copy read one message.
func (m *model) takeCopy(r request) {
	switch {
	case r.kind == server.Sync || r.copied == "data":
	case r.copied == "done":
		of := *m.reading
		m.reading = nil
		m.run(of, m.rest)
	default: // bad data, CopyFail
		m.fail(*m.reading)
	}
}

func (m *model) run(r request, script string) {
	for i, typ := range []byte(script) {
		switch typ {
		case '!', '^':
			if typ == '^' {
				m.out = append(m.out, reply{wire.CopyInResponse, r.id})
			}
			m.fail(r)
			return
		case '<':
			m.out = append(m.out, reply{wire.CopyInResponse, r.id})
			m.reading, m.rest = &r, script[i+1:]
			return
		default:
			m.out = append(m.out, reply{typ, r.id})
		}
	}
}

func (m *model) fail(r request) {
	m.reading = nil
	m.out = append(m.out, reply{'E', r.id})
	switch r.kind {
	case server.Query, server.Function, server.Sync:
		m.out = append(m.out, reply{'Z', r.id})
	default:
		m.skipping = true
	}
}

// direct is what a client gets that speaks to the server itself: the made-up requests are answered as the others, the
// swallowed ones are done without.
func direct(requests []request) string {
	var m model
	fates := map[string]server.Fate{}
	for _, r := range requests {
		fates[r.id] = r.fate
		m.take(r)
	}
	var seen strings.Builder
	for _, a := range m.out {
		if fates[a.of] != server.Swallow || a.typ == 'E' {
			fmt.Fprintf(&seen, " %c", a.typ)
		}
	}
	return seen.String()
}

// scripts are what the server may do about a request.
func scripts(kind server.Kind) []string {
	switch kind {
	case server.Query:
		return []string{"TDCZ", "CZ", "IZ", "CTDDCCZ", "HddcCZ", "!", "TD!", "C!", "<CZ", "C<CCZ", "<C<CZ", "<C!", "^", "C^"}
	case server.Function:
		return []string{"VZ", "!"}
	case server.Sync:
		return []string{"Z", "Z", "Z", "Z", "!"}
	case server.Parse:
		return []string{"1", "1", "1", "!"}
	case server.Bind:
		return []string{"2", "2", "2", "!"}
	case server.DescribeStatement:
		return []string{"tT", "tn", "!"}
	case server.DescribePortal:
		return []string{"T", "n", "!"}
	case server.Close:
		return []string{"3"}
	default:
		return []string{"DDC", "C", "I", "s", "D!", "!", "HdcC", "<C", "^"}
	}
}

// usage says what a client does. With copies, a client that does not send a Sync at the end of each, or for which replies are
// made up, may lose its connection when one fails: where the later replies belong cannot be told then.
type usage struct{ copies, careful bool }

// draw makes a sequence of requests. Where the server may be reading copy data, nothing but copy messages and Syncs comes,
// because for anything else it ends the connection; each copy gets an end that it may be too late for.
func (u usage) draw(t *rapid.T) (requests []request) {
	kinds := []server.Kind{
		server.Query, server.Function, server.Sync, server.Sync, server.Parse, server.Bind,
		server.DescribeStatement, server.DescribePortal, server.Execute, server.Execute, server.Close, 0,
	}
	add := func(r request) {
		r.id = fmt.Sprintf("r%d", len(requests))
		requests = append(requests, r)
	}
	copied := func(what ...string) { add(request{copied: rapid.SampledFrom(what).Draw(t, "copy")}) }
	for range rapid.IntRange(0, 25).Draw(t, "requests") {
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		if kind == 0 { // late, or without any copy
			copied("data", "done", "fail", "bad data")
			continue
		}
		r := request{kind: kind, script: rapid.SampledFrom(scripts(kind)).Draw(t, "script")}
		copies := strings.Count(r.script, "<") + strings.Count(r.script, "^")
		if copies > 0 && !u.copies {
			continue
		}
		switch kind {
		case server.Parse, server.Close:
			r.fate = rapid.SampledFrom([]server.Fate{server.Forward, server.Swallow, server.MakeUp}).Draw(t, "fate")
			if r.fate == server.MakeUp && u.copies && u.careful {
				r.fate = server.Forward
			}
			if r.fate == server.MakeUp {
				r.script = map[server.Kind]string{server.Parse: "1", server.Close: "3"}[kind]
			}
		}
		if kind == server.Sync && !opens(requests) {
			r.script = "Z"
		}
		add(r)
		for range copies {
			for range rapid.IntRange(0, 3).Draw(t, "data") {
				if rapid.IntRange(0, 3).Draw(t, "sync") == 0 {
					add(request{kind: server.Sync, script: "Z"})
				} else {
					copied("data", "data", "data", "bad data")
				}
			}
			copied("done", "done", "done", "fail")
		}
		if copies > 0 && (u.careful || rapid.Bool().Draw(t, "ended")) {
			add(request{kind: server.Sync, script: "Z"})
		}
	}
	add(request{kind: server.Sync, script: "Z"})
	return requests
}

// opens tells whether the latest request has begun a transaction, so that a Sync can fail to commit it.
func opens(requests []request) bool {
	if len(requests) == 0 {
		return false
	}
	switch requests[len(requests)-1].kind {
	case server.Parse, server.Bind, server.DescribeStatement, server.DescribePortal, server.Execute:
		return true
	default:
		return false
	}
}

// proxied is the other way: through the queue, as a session uses it.
type proxied struct {
	t       *rapid.T
	queue   server.Replies
	server  model
	arrived int // replies that have been looked at
	seen    strings.Builder
	pushed  map[string]server.Kind // that have neither been completed nor dropped
	fates   map[string]server.Fate
	usage   usage
	lost    bool // the connection has been given up
}

// write does what a session does with one message.
func (p *proxied) write(r request) {
	if p.queue.Doubtful() && r.kind != server.Sync && r.kind != 0 {
		p.resolve()
	}
	if p.queue.Skipping() && r.kind != server.Sync {
		return
	}
	if p.lost {
		return
	}
	p.fates[r.id] = r.fate
	switch r.kind {
	case 0:
		if r.copied == "done" || r.copied == "fail" {
			p.queue.CopyEnds()
		}
	default:
		before := p.queue.Len()
		p.queue.Push(server.Entry{Kind: r.kind, Fate: r.fate, Name: r.id})
		if p.queue.Len() > before {
			p.pushed[r.id] = r.kind
		}
	}
	if r.fate != server.MakeUp {
		p.server.take(r)
	}
}

// resolve finds out whether the server is skipping.
func (p *proxied) resolve() {
	p.fates["resolve"] = server.Swallow
	p.queue.Resolve()
	p.server.take(request{id: "resolve", kind: server.Sync, script: "Z"})
	p.server.take(request{id: "resolve", kind: server.Close, script: "3"})
	for !p.queue.Empty() && !p.lost {
		require.True(p.t, p.read())
	}
}

// read does what a session does with one message from the server, if there is one.
func (p *proxied) read() bool {
	if p.arrived == len(p.server.out) || p.lost {
		return false
	}
	a := p.server.out[p.arrived]
	p.arrived++
	p.makeUp()
	if a.typ == 'E' {
		p.fail(a)
	} else {
		p.reply(a)
	}
	p.makeUp()
	return true
}

func (p *proxied) reply(a reply) {
	verdict, done, completes := p.queue.Reply(a.typ)
	if verdict == server.Stray && p.usage.copies && !p.usage.careful {
		p.lost = true
		return
	}
	require.NotEqual(p.t, server.Stray, verdict, "%c of %s", a.typ, a.of)
	if a.typ != wire.ReadyForQuery || !p.usage.copies {
		require.Equal(p.t, p.fates[a.of] == server.Swallow, verdict == server.Drop, "%c of %s", a.typ, a.of)
	}
	if verdict == server.Deliver {
		fmt.Fprintf(&p.seen, " %c", a.typ)
	}
	if completes {
		if (a.typ != wire.ReadyForQuery || !p.usage.copies) && a.of != "resolve" {
			require.Equal(p.t, a.of, done.Name)
		}
		delete(p.pushed, done.Name)
	}
}

func (p *proxied) fail(a reply) {
	dropped, failed, stray := p.queue.Fail()
	if stray && p.usage.copies && !p.usage.careful {
		p.lost = true
		return
	}
	require.False(p.t, stray)
	require.Equal(p.t, a.of, failed.Name)
	fmt.Fprint(&p.seen, " E")
	for _, e := range dropped {
		require.NotEqual(p.t, server.Sync, e.Kind)
		delete(p.pushed, e.Name)
	}
}

func (p *proxied) makeUp() {
	for {
		e, ok := p.queue.MadeUp()
		if !ok {
			return
		}
		fmt.Fprintf(&p.seen, " %c", map[server.Kind]byte{server.Parse: '1', server.Close: '3'}[e.Kind])
		delete(p.pushed, e.Name)
	}
}

func TestReplies_agreeWithAModelOfTheServer(t *testing.T) {
	for name, usage := range map[string]usage{
		"without copies": {}, "with copies": {copies: true, careful: true}, "with careless copies": {copies: true},
	} {
		t.Run(name, func(t *testing.T) { rapid.Check(t, usage.check) })
	}
}

func (u usage) check(t *rapid.T) {
	requests := u.draw(t)
	t.Log(requests)
	p := &proxied{t: t, usage: u, pushed: map[string]server.Kind{}, fates: map[string]server.Fate{}}
	for _, r := range requests {
		p.write(r)
		for range rapid.IntRange(0, 4).Draw(t, "replies") {
			p.read()
		}
	}
	for p.read() {
	}
	if p.lost {
		return
	}
	require.Equal(t, direct(requests), p.seen.String())
	if p.queue.Unsure() {
		p.write(request{id: "probe", kind: server.Close, fate: server.Swallow, script: "3"})
		for p.read() {
		}
	}
	require.True(t, p.queue.Settled())
	for _, kind := range p.pushed { // neither answered nor dropped: ignored by a copy
		require.True(t, u.copies && kind == server.Sync)
	}
}
