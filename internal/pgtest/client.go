package pgtest

import (
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Client is a raw client: it sends what it is told, byte for byte, and shows what comes back. It fails its test when the
// connection fails. The test's goroutine alone uses it.
type Client struct {
	Peer
	t testing.TB
}

// Dial connects a raw client to a host:port or to the path of a unix socket. It is closed when the test ends.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), network, addr)
	check(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &Client{Peer: Peer{Conn: conn}, t: t}
}

// Login sends a startup packet (protocol 3.0), answers a request for a clear-text password with the conventional one, and
// returns what came up to the first ReadyForQuery or error. Each of parameters is a "key=value".
func (c *Client) Login(database, user string, parameters ...string) []Message {
	c.t.Helper()
	startup := map[string]string{"database": database, "user": user}
	for _, p := range parameters {
		key, value, _ := strings.Cut(p, "=")
		startup[key] = value
	}
	c.Send(&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: startup})
	var received []Message
	for {
		m := c.Receive()
		received = append(received, m)
		switch {
		case m.Type == 'Z', m.Type == 'E':
			return received
		case m.Type == 'R' && binary.BigEndian.Uint32(m.Body) == pgproto3.AuthTypeCleartextPassword:
			c.Send(&pgproto3.PasswordMessage{Password: Password(user)})
		}
	}
}

// Cancel sends a cancel request with the key that a login returned, over a connection of its own to the same address, and
// waits until the server has closed it.
func (c *Client) Cancel(login []Message) {
	c.t.Helper()
	i := slices.IndexFunc(login, func(m Message) bool { return m.Type == 'K' })
	if i < 0 {
		c.t.Fatal("cancel: the login brought no key")
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(login[i].Body)))
	packet = binary.BigEndian.AppendUint32(packet, cancelRequest)
	remote := c.Conn.RemoteAddr().String()
	canceller := Dial(c.t, remote)
	canceller.SendBytes(append(packet, login[i].Body...))
	canceller.ExpectEnd()
}

// Send sends messages in one write.
func (c *Client) Send(messages ...pgproto3.Message) {
	c.t.Helper()
	check(c.t, c.Peer.Send(messages...))
}

// SendBytes sends bytes as they are.
func (c *Client) SendBytes(b []byte) {
	c.t.Helper()
	check(c.t, c.Peer.SendBytes(b))
}

// Query sends a simple query and returns what came up to ReadyForQuery.
func (c *Client) Query(sql string) []Message {
	c.t.Helper()
	c.Send(&pgproto3.Query{String: sql})
	return c.ReceiveUntil('Z')
}

// Receive receives one message.
func (c *Client) Receive() Message {
	c.t.Helper()
	m, err := c.Peer.Receive()
	check(c.t, err)
	return m
}

// ReceiveUntil receives messages up to the first of a type, which is the last returned.
func (c *Client) ReceiveUntil(last byte) []Message {
	c.t.Helper()
	var received []Message
	for {
		m := c.Receive()
		received = append(received, m)
		if m.Type == last {
			return received
		}
	}
}

// Expect receives messages and compares their short forms (see Peer.Expect).
func (c *Client) Expect(want ...string) {
	c.t.Helper()
	check(c.t, c.Peer.Expect(want...))
}

// ExpectEnd reads until the other side has closed or reset the connection; whatever else comes fails the test.
func (c *Client) ExpectEnd() {
	c.t.Helper()
	check(c.t, c.Peer.ExpectEnd())
}

// CloseWrite ends our direction of the connection (FIN).
func (c *Client) CloseWrite() {
	c.t.Helper()
	check(c.t, closeWrite(c.Conn))
}
