package proxy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

// message is a message with the length that belongs to it.
func message(kind byte, body string) []byte {
	return sized(kind, uint32(len(body)+4), body)
}

// sized is a message that says it has another length.
func sized(kind byte, length uint32, body string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind}, length), body...)
}

// end is what a client may be left with: an error with a SQLSTATE and a closed socket, or just the latter.
func end(t *testing.T, c *pgtest.Client) (codes []string) {
	t.Helper()
	for {
		m, err := c.Peer.Receive()
		if err != nil {
			require.NotContains(t, err.Error(), "timeout")
			return codes
		}
		if m.Type == 'E' {
			codes = append(codes, strings.TrimPrefix(m.String(), "E "))
		}
	}
}

// undisturbed checks that a client with the same single server finds it in order, and that nothing of others is left.
func undisturbed(t *testing.T, p *testProxy, client *pgtest.Client, what string) {
	t.Helper()
	require.Equal(t, "T ?column? | D 1 | C SELECT 1 | Z I", texts(client.Query("select 1")), what)
	await(t, what+": only the other client is there", func() bool {
		s := p.Snapshot()
		return s.Clients.All() == 1 && s.Clients.Waiting == 0 && len(s.Pinned) == 0
	})
}

// What is no message at all ends the session, with a reason where one can be given.
func TestGarbage_thatIsNoMessage_endsTheSessionAndNoOther(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	other := p.loggedIn(t)
	for name, bytes := range map[string][]byte{
		"unknown type":       message('@', "x"),
		"zero bytes":         make([]byte, 100),
		"length below four":  sized('Q', 3, "select 1\x00"),
		"length of zero":     sized('S', 0, ""),
		"negative length":    sized('Q', 1<<31, "select 1\x00"),
		"length of all ones": sized('B', 1<<32-1, "x"),
		"Sync with a body":   sized('S', 1<<20, "x"),
		"password message":   message('p', "secret\x00"),
		"startup packet":     {0, 0, 0, 8, 0, 3, 0, 0},
		"SSLRequest":         {0, 0, 0, 8, 4, 210, 22, 47},
		"TLS":                {0x16, 3, 1, 0, 200, 1, 0, 0},
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"server's message":   message('Z', "I"),
	} {
		for _, before := range [][]byte{nil, message('Q', "begin\x00"), message('P', "\x00select 1\x00\x00\x00")} {
			client := p.loggedIn(t)
			client.SendBytes(append(slices.Clip(before), bytes...))
			codes := end(t, client)
			require.Equal(t, "08P01", codes[len(codes)-1], name)
			undisturbed(t, p, other, name)
		}
	}
}

// What is a message, but makes no sense, is answered as PostgreSQL answers it.
func TestGarbage_withinMessages_isAnsweredAsTheServerAnswersIt(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for _, mode := range modes() {
			p := start(t, c, func(config *proxy.Config) { config.Mode, config.Pool.MaxConnections = mode, 2 })
			other := p.loggedIn(t)
			for name, bytes := range map[string][]byte{
				"Query without its end":        message('Q', "select 1"),
				"Query with more than one end": message('Q', "select 1\x00select 2\x00"),
				"empty Query message":          message('Q', ""),
				"Parse without anything":       message('P', ""),
				"Parse without types":          message('P', "\x00select 1\x00"),
				"Parse with too many types":    message('P', "\x00select 1\x00\x00\x07"),
				"Parse with more behind":       message('P', "\x00select 1\x00\x00\x00more"),
				"Bind without anything":        message('B', ""),
				"Bind of nothing":              message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"),
				"Bind with wrong counts":       message('B', "\x00\x00\x00\x01\x7f\xff\x00\x00"),
				"Describe of neither":          message('D', "X\x00"),
				"Describe without a name":      message('D', "S"),
				"Close of neither":             message('C', "X\x00"),
				"Close without a name":         message('C', "S"),
				"Execute without a portal":     message('E', "nowhere\x00\x00\x00\x00\x00"),
				"Execute without anything":     message('E', ""),
				"function call without sense":  message('F', "\x00\x00\x00\x01"),
				"function that is not there":   message('F', "\x7f\xff\xff\xff\x00\x00\x00\x00\x00\x00"),
				"copy data outside of a copy":  message('d', "data"),
				"copy done outside of a copy":  message('c', ""),
				"copy fail outside of a copy":  message('f', "why\x00"),
				"text that is not in UTF-8":    message('Q', "select '\xff\xfe'\x00"),
				"zero byte in a parameter":     append(message('P', "\x00select $1::text\x00\x00\x00"), message('B', "\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00")...),
			} {
				direct, client := pgtest.Dial(t, c.Addr()), p.loggedIn(t)
				direct.Login("postgres", pgtest.Superuser)
				for _, both := range []*pgtest.Client{direct, client} {
					both.SendBytes(append(append(slices.Clip(bytes), message('S', "")...), message('Q', "select 'still there'\x00")...))
				}
				want := upTo(direct, "still there")
				require.Equal(t, want, upTo(client, "still there"), name)
				_ = client.Conn.Close()
				undisturbed(t, p, other, name)
			}
		}
	})
}

// upTo receives until a text has come and the server is ready behind it, or until the end.
func upTo(c *pgtest.Client, text string) string {
	var received []pgtest.Message
	found := false
	for {
		m, err := c.Peer.Receive()
		if err != nil {
			return texts(received) + " | end"
		}
		received = append(received, m)
		found = found || strings.Contains(m.String(), text)
		if found && m.Type == 'Z' {
			return texts(received)
		}
	}
}

// A message that never becomes whole ends with its client, at whatever byte that leaves.
func TestGarbage_cutShort_leavesNothingBehind(t *testing.T) {
	for _, mode := range []session.Mode{session.Transaction, session.Statement, session.WholeSession} {
		p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Mode, config.Pool.MaxConnections = mode, 2 })
		other := p.loggedIn(t)
		whole := append(message('P', "name\x00select $1::int\x00\x00\x00"), message('B', "\x00name\x00\x00\x00\x00\x01\x00\x00\x00\x017\x00\x00")...)
		whole = append(append(whole, message('E', "\x00\x00\x00\x00\x00")...), message('Q', "select 1\x00")...)
		for n := 1; n < len(whole); n += 3 {
			client := p.loggedIn(t)
			client.SendBytes(whole[:n])
			if n%2 == 0 {
				require.NoError(t, client.Reset())
			} else {
				_ = client.Conn.Close()
			}
		}
		huge := p.loggedIn(t) // says that it will send a gigabyte
		huge.SendBytes(sized('Q', 1<<30-1, "select '"+strings.Repeat("x", 2<<20)))
		require.NoError(t, huge.Reset())
		undisturbed(t, p, other, fmt.Sprint(mode))
	}
}

// See CVE-2012-4575, CVE-2015-4054 and CVE-2026-6664 of PgBouncer.
func TestGarbage_insteadOfALogin_isRefusedAndLeavesNothing(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	other := p.loggedIn(t)
	startup := "user\x00postgres\x00database\x00postgres\x00\x00"
	v30 := "\x00\x03\x00\x00"
	packet := func(text string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(text)+4)), text...)
	}
	for name, bytes := range map[string][]byte{
		"HTTP":                      []byte("GET / HTTP/1.1\r\n\r\n"),
		"length of a gigabyte":      {0x40, 0, 0, 0, 0, 3, 0, 0},
		"length of two":             {0, 0, 0, 2},
		"version two":               packet("\x00\x02\x00\x00" + startup),
		"no user":                   packet(v30 + "database\x00postgres\x00\x00"),
		"name without a value":      packet(v30 + "user\x00"),
		"no terminator":             packet(v30 + "user\x00postgres\x00"),
		"more behind the end":       packet(v30 + startup + "x"),
		"too long":                  packet(v30 + "user\x00" + strings.Repeat("u", 20_000) + "\x00\x00"),
		"cancel without a key":      packet("\x04\xd2\x16\x2e"),
		"cancel with a wrong key":   packet("\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02"),
		"cancel with a huge key":    packet("\x04\xd2\x16\x2e\x00\x00\x00\x01" + strings.Repeat("k", 300)),
		"query before the login":    message('Q', "select 1\x00"),
		"stuffed behind SSLRequest": append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, packet(v30+startup)...),
		"stuffed behind GSSRequest": append([]byte{0, 0, 0, 8, 4, 210, 22, 48}, packet(v30+startup)...),
	} {
		client := pgtest.Dial(t, p.Addresses()[0])
		client.SendBytes(bytes)
		if tcp, ok := client.Conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite() // It may have been refused already.
		}
		for _, code := range end(t, client) {
			require.Contains(t, []string{"08P01", "0A000", "28000"}, code, name)
		}
		undisturbed(t, p, other, name)
	}
	for range 200 {
		random := make([]byte, rand.IntN(64))
		for i := range random {
			random[i] = byte(rand.Uint32())
		}
		client := pgtest.Dial(t, p.Addresses()[0])
		client.SendBytes(random)
		_ = client.Conn.Close()
	}
	undisturbed(t, p, other, "random bytes")
}

func TestGarbage_atRandomAfterALogin_disturbsNobody(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Loops, config.Pool.MaxConnections = 2, 2 })
	other := p.loggedIn(t)
	types := "QPBDECSHFdcfXp@"
	for range 200 {
		client := p.loggedIn(t)
		var bytes []byte
		for range rand.IntN(5) {
			body := make([]byte, rand.IntN(40))
			for i := range body {
				body[i] = byte(rand.Uint32())
			}
			bytes = append(bytes, message(types[rand.IntN(len(types))], string(body))...)
		}
		client.SendBytes(append(bytes, message('S', "")...))
		_ = client.Conn.Close()
	}
	undisturbed(t, p, other, "random messages")
}
