package proxy_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// rawClient is a client that sends the messages it is told and sees each answer, with what it was told at its login.
type rawClient struct {
	*pgtest.Client
	t     testing.TB
	login []pgtest.Message
}

// raw logs a raw client in, to the server or proxy that a URL names. parameters are "key=value" pairs of the startup packet.
func raw(t testing.TB, to string, parameters ...string) *rawClient {
	t.Helper()
	u, err := url.Parse(to)
	require.NoError(t, err)
	c := &rawClient{Client: pgtest.Dial(t, u.Host), t: t}
	c.login = c.Login(strings.TrimPrefix(u.Path, "/"), u.User.Username(), parameters...)
	require.Equal(t, "Z I", c.login[len(c.login)-1].String(), "login")
	return c
}

// unanswered is a Query that the server skips because of an earlier error.
type unanswered struct{ pgproto3.Message }

// say sends messages in one write and returns the short forms of what comes back, up to as many ReadyForQuery as the messages
// ask for (one for each Sync, Query and FunctionCall).
func (c *rawClient) say(messages ...pgproto3.Message) []string {
	c.t.Helper()
	owed := 0
	for _, m := range messages {
		switch m.(type) {
		case *pgproto3.Sync, *pgproto3.Query, *pgproto3.FunctionCall:
			owed++
		}
	}
	c.Send(messages...)
	return c.hear(owed)
}

// hear returns the short forms of what comes up to so many ReadyForQuery, errors with their text.
func (c *rawClient) hear(ready int) []string {
	c.t.Helper()
	var heard []string
	for range ready {
		for _, m := range c.ReceiveUntil('Z') {
			heard = append(heard, c.form(m))
		}
	}
	return heard
}

// form is the short form of a message, with the text of an error.
func (c *rawClient) form(m pgtest.Message) string {
	c.t.Helper()
	if m.Type != 'E' {
		return m.String()
	}
	decoded, err := m.Decode()
	require.NoError(c.t, err)
	e := decoded.(*pgproto3.ErrorResponse)
	return "E " + e.Code + " " + e.Message
}

// pid returns the server process that serves the client.
func (c *rawClient) pid() string {
	c.t.Helper()
	return c.say(query("select pg_backend_pid()"))[1]
}

// The messages of clients, by the names of the protocol.

func query(sql string) pgproto3.Message { return &pgproto3.Query{String: sql} }

func skippedQuery(sql string) pgproto3.Message { return unanswered{query(sql)} }

func parse(name, sql string) pgproto3.Message { return &pgproto3.Parse{Name: name, Query: sql} }

// bind binds parameters in text form to a statement, as the unnamed portal.
func bind(name string, parameters ...string) pgproto3.Message {
	return bindPortal("", name, parameters...)
}

func bindPortal(portal, name string, parameters ...string) pgproto3.Message {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	for _, p := range parameters {
		m.Parameters = append(m.Parameters, []byte(p))
	}
	return m
}

func describe(name string) pgproto3.Message { return &pgproto3.Describe{ObjectType: 'S', Name: name} }

func describePortal(name string) pgproto3.Message {
	return &pgproto3.Describe{ObjectType: 'P', Name: name}
}

func execute() pgproto3.Message { return &pgproto3.Execute{} }

func executePortal(portal string, rows uint32) pgproto3.Message {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

func closeStatement(name string) pgproto3.Message {
	return &pgproto3.Close{ObjectType: 'S', Name: name}
}

func closePortal(name string) pgproto3.Message { return &pgproto3.Close{ObjectType: 'P', Name: name} }

func syncNow() pgproto3.Message { return &pgproto3.Sync{} }

func flushNow() pgproto3.Message { return &pgproto3.Flush{} }

func copyData(data string) pgproto3.Message { return &pgproto3.CopyData{Data: []byte(data)} }

func copyDone() pgproto3.Message { return &pgproto3.CopyDone{} }

func copyFail(why string) pgproto3.Message { return &pgproto3.CopyFail{Message: why} }

// run is one execution of a prepared statement, up to its Sync.
func run(name string, parameters ...string) []pgproto3.Message {
	return []pgproto3.Message{bind(name, parameters...), execute(), syncNow()}
}

// together joins messages and lists of messages.
func together(parts ...any) []pgproto3.Message {
	var all []pgproto3.Message
	for _, part := range parts {
		switch part := part.(type) {
		case pgproto3.Message:
			all = append(all, part)
		case []pgproto3.Message:
			all = append(all, part...)
		}
	}
	return all
}

// poolOf starts a proxy whose pool has so many connections.
func poolOf(t testing.TB, c *pgtest.Cluster, connections int) *testProxy {
	t.Helper()
	return start(t, c, func(config *proxy.Config) { config.Pool.MaxConnections = connections })
}

// keepBusy makes a client of its own keep a server process busy with an open transaction, until the returned function is called.
// Servers that are not wanted are given back.
func (p *testProxy) keepBusy(t testing.TB, pid string) (end func()) {
	t.Helper()
	var others []*rawClient
	for range 10 {
		c := raw(t, p.url())
		c.say(query("begin"))
		if c.pid() != pid {
			others = append(others, c)
			continue
		}
		for _, o := range others {
			o.say(query("rollback"))
		}
		return func() { c.say(query("rollback")) }
	}
	t.Fatalf("no server is %s", pid)
	return nil
}

// idle waits until no server is lent, dialled or being closed, and returns how many are idle.
func (p *testProxy) idle(t testing.TB) int {
	t.Helper()
	n := 0
	await(t, "servers at rest", func() bool {
		n = 0
		for _, one := range p.Snapshot().Pools {
			if one.Active+one.Dialing+one.Closing+one.Waiting > 0 {
				return false
			}
			n += one.Idle
		}
		return true
	})
	return n
}
