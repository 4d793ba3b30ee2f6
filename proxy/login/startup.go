package login

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/proxy/auth"
)

// The protocol versions spoken. 3.1 is reserved and was never used.
const (
	protocol30 = 3 << 16
	protocol32 = 3<<16 | 2
)

// protocolOption is the prefix of startup parameters that are options of the protocol. We know none.
const protocolOption = "_pq_."

// Lengths of a cancel key's secret in bytes, by protocol 3.2; in 3.0 it is 4.
const (
	minSecret = 4
	maxSecret = 256
)

// parseCancel reads a CancelRequest.
func parseCancel(body []byte) (*Cancel, error) {
	if n := len(body) - 4; n < minSecret || n > maxSecret {
		return nil, violation("invalid length of cancel request packet")
	}
	return &Cancel{PID: binary.BigEndian.Uint32(body), Secret: bytes.Clone(body[4:])}, nil
}

// startup reads a StartupMessage that asks for the given version, and agrees on one: a client that asks for a newer
// minor version, or for options, is told what it gets instead, before authentication and never otherwise (some drivers
// do not know that message).
func (l *login) startup(version uint32, body []byte) (*Client, error) {
	if version>>16 != 3 {
		l.ancient = version>>16 < 3
		return nil, &auth.FatalError{
			SQLState: "0A000",
			Message:  fmt.Sprintf("unsupported frontend protocol %d.%d: server supports 3.0 to 3.2", version>>16, version&0xFFFF),
		}
	}
	c := &Client{Protocol: protocol32}
	if version < protocol32 {
		c.Protocol = protocol30
	}
	options, err := c.parse(body)
	if err != nil {
		return nil, err
	}
	if c.Protocol != version || len(options) > 0 {
		// The field is called NewestMinorProtocol, but carries the whole version.
		if err := l.Tell(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: c.Protocol, UnrecognizedOptions: options}); err != nil {
			return nil, err
		}
	}
	return c, c.complete()
}

// parse reads the names and values of a StartupMessage; it returns the options of the protocol that it asks for. As in
// PostgreSQL the last of several values counts, and the empty name that ends the list is the last byte.
func (c *Client) parse(body []byte) (options []string, err error) {
	for {
		name, rest, ok := cutString(body)
		if ok && name == "" && len(rest) == 0 {
			return options, nil
		}
		value, rest, hasValue := cutString(rest)
		if !ok || name == "" || !hasValue {
			return nil, violation("invalid startup packet layout: expected terminator as last byte")
		}
		body = rest
		switch {
		case name == "user":
			c.User = value
		case name == "database":
			c.Database = value
		case name == "options":
			c.Options = value
		case name == "replication":
			c.Replication = value
		case strings.HasPrefix(name, protocolOption):
			options = append(options, name)
		default:
			c.Parameters = append(c.Parameters, Param{name, value})
		}
	}
}

// cutString takes a string that a zero byte ends off the front of b.
func cutString(b []byte) (s string, rest []byte, ok bool) {
	head, rest, ok := bytes.Cut(b, []byte{0})
	return string(head), rest, ok
}

// complete checks what has been sent and fills in what follows from it.
func (c *Client) complete() (err error) {
	if c.User == "" {
		return &auth.FatalError{
			SQLState: "28000", Message: "no PostgreSQL user name specified in startup packet",
			Hint: "Name a user in the connection string.",
		}
	}
	if c.Database == "" {
		c.Database = c.User
	}
	if c.Replication != "" && c.Replication != "database" {
		on, ok := parseBool(c.Replication)
		if !ok {
			return &auth.FatalError{
				SQLState: "22023", Message: fmt.Sprintf(`invalid value for parameter "replication": "%s"`, c.Replication),
				Hint: `Valid values are: "false", 0, "true", 1, "database".`,
			}
		}
		if !on {
			c.Replication = ""
		}
	}
	c.OptionSettings, err = parseOptions(c.Options, c.Replication != "")
	return err
}

// parseBool reads a boolean as PostgreSQL does: 1, 0, or an abbreviation, in any case, that can mean only one of its words.
func parseBool(s string) (value, ok bool) {
	s = strings.ToLower(s)
	for _, w := range []struct {
		word  string
		value bool
		least int // the length of the shortest abbreviation
	}{{"true", true, 1}, {"false", false, 1}, {"yes", true, 1}, {"no", false, 1}, {"on", true, 2}, {"off", false, 2}, {"1", true, 1}, {"0", false, 1}} {
		if len(s) >= w.least && strings.HasPrefix(w.word, s) {
			return w.value, true
		}
	}
	return false, false
}
