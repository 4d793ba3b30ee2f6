package pgtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// peerTimeout bounds the wait for one message.
const peerTimeout = 30 * time.Second

// The codes that stand in the place of a protocol version in a startup packet.
const (
	cancelRequest = 80877102
	sslRequest    = 80877103
	gssEncRequest = 80877104
)

// Peer is one end of a connection that speaks what a script says. One goroutine uses it.
type Peer struct {
	Conn net.Conn
	// Version and Startup are what the client asked for; only a server's peer has them.
	Version uint32
	Startup map[string]string

	server bool // we are the server: what we receive is from a client
}

// Send sends messages in one write.
func (p *Peer) Send(messages ...pgproto3.Message) error {
	var b []byte
	var err error
	for _, m := range messages {
		if b, err = m.Encode(b); err != nil {
			return fmt.Errorf("encode message: %w", err)
		}
	}
	return p.SendBytes(b)
}

// SendBytes sends bytes as they are.
func (p *Peer) SendBytes(b []byte) error {
	if err := p.Conn.SetWriteDeadline(time.Now().Add(peerTimeout)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if _, err := p.Conn.Write(b); err != nil {
		return fmt.Errorf("send bytes: %w", err)
	}
	return nil
}

// Receive receives one message. It is io.EOF when the other side has closed between two messages.
func (p *Peer) Receive() (Message, error) {
	if err := p.Conn.SetReadDeadline(time.Now().Add(peerTimeout)); err != nil {
		return Message{}, fmt.Errorf("set deadline: %w", err)
	}
	return readMessage(p.Conn, p.server)
}

// Expect receives as many messages as there are short forms, and compares; "T*" stands for any message of type T, and "*"
// for any message.
func (p *Peer) Expect(want ...string) error {
	for i, text := range want {
		m, err := p.Receive()
		if err != nil {
			return fmt.Errorf("expect %q (message %d of %d): %w", text, i+1, len(want), err)
		}
		if !matches(m, text) {
			return fmt.Errorf("expect %q (message %d of %d): got %q", text, i+1, len(want), m)
		}
	}
	return nil
}

func matches(m Message, want string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok && len(prefix) <= 1 {
		return prefix == "" || prefix[0] == m.Type
	}
	return m.String() == want
}

// ExpectEnd reads until the other side has closed or reset the connection; whatever else comes is an error.
func (p *Peer) ExpectEnd() error {
	m, err := p.Receive()
	if err == nil {
		return fmt.Errorf("expect end: got %q", m)
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Errorf("expect end: %w", err)
	}
	return nil
}

// Reset closes the connection with a TCP reset.
func (p *Peer) Reset() error {
	abort(p.Conn)
	return p.Conn.Close()
}

// receiveStartup reads a client's startup packets up to the real one. It declines encryption. A cancel request is returned as
// such: then the key is set.
func (p *Peer) receiveStartup() (cancel []byte, err error) {
	for {
		version, body, err := p.readStartupPacket()
		if err != nil {
			return nil, err
		}
		switch version {
		case sslRequest, gssEncRequest:
			if err := p.SendBytes([]byte{'N'}); err != nil {
				return nil, err
			}
		case cancelRequest:
			return body, nil
		default:
			p.Version, p.Startup = version, parseParameters(body)
			return nil, nil
		}
	}
}

func (p *Peer) readStartupPacket() (version uint32, body []byte, err error) {
	if err := p.Conn.SetReadDeadline(time.Now().Add(peerTimeout)); err != nil {
		return 0, nil, fmt.Errorf("set deadline: %w", err)
	}
	var length [4]byte
	if _, err := io.ReadFull(p.Conn, length[:]); err != nil {
		return 0, nil, err
	}
	body, err = readBody(p.Conn, length[:])
	if err != nil {
		return 0, nil, err
	}
	if len(body) < 4 {
		return 0, nil, errors.New("read startup packet: it is too short")
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

// parseParameters reads the names and values of a startup packet.
func parseParameters(body []byte) map[string]string {
	fields := strings.Split(string(body), "\x00")
	parameters := map[string]string{}
	for i := 0; i+1 < len(fields) && fields[i] != ""; i += 2 {
		parameters[fields[i]] = fields[i+1]
	}
	return parameters
}
