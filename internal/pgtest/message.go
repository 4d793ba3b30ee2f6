package pgtest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Message is one protocol message as it was on the wire, without its length.
type Message struct {
	Type       byte
	Body       []byte
	FromClient bool // the same letters mean other things in the two directions
}

// Bytes is the message as it goes over the wire.
func (m Message) Bytes() []byte {
	b := binary.BigEndian.AppendUint32([]byte{m.Type}, uint32(len(m.Body)+4))
	return append(b, m.Body...)
}

// String is a short form to compare and to read: the type's letter and what matters of the message, such as "D 1,two",
// "C SELECT 1", "Z I", "E 42601", or from a client "Q select 1", "P s1 select $1", "B portal s1", "S".
func (m Message) String() string {
	decoded, err := m.Decode()
	if err != nil {
		return fmt.Sprintf("%c undecodable: %v", m.Type, err)
	}
	if detail := describe(decoded); detail != "" {
		return fmt.Sprintf("%c %s", m.Type, detail)
	}
	return string(m.Type)
}

// Strings are the short forms of messages.
func Strings(messages []Message) []string {
	texts := make([]string, len(messages))
	for i, m := range messages {
		texts[i] = m.String()
	}
	return texts
}

// Decode makes a pgproto3 message of its own from the message.
func (m Message) Decode() (pgproto3.Message, error) {
	decoded := newServerMessage(m)
	if m.FromClient {
		decoded = newClientMessage(m)
	}
	if decoded == nil {
		return nil, errors.New("unknown type")
	}
	if err := decoded.Decode(m.Body); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return decoded, nil
}

// describe is the detail in a message's short form.
func describe(m pgproto3.Message) string {
	if text, ok := describeServer(m); ok {
		return text
	}
	return describeClient(m)
}

func describeServer(m pgproto3.Message) (string, bool) {
	switch m := m.(type) {
	case *pgproto3.ParameterStatus:
		return m.Name + "=" + m.Value, true
	case *pgproto3.ReadyForQuery:
		return string(m.TxStatus), true
	case *pgproto3.RowDescription:
		names := make([]string, len(m.Fields))
		for i, f := range m.Fields {
			names[i] = string(f.Name)
		}
		return strings.Join(names, ","), true
	case *pgproto3.DataRow:
		values := make([]string, len(m.Values))
		for i, v := range m.Values {
			values[i] = "NULL"
			if v != nil {
				values[i] = string(v)
			}
		}
		return strings.Join(values, ","), true
	case *pgproto3.CommandComplete:
		return string(m.CommandTag), true
	case *pgproto3.ErrorResponse:
		return m.Code, true
	case *pgproto3.NoticeResponse:
		return m.Code, true
	case *pgproto3.NotificationResponse:
		return m.Channel + " " + m.Payload, true
	}
	return "", false
}

func describeClient(m pgproto3.Message) string {
	switch m := m.(type) {
	case *pgproto3.Query:
		return m.String
	case *pgproto3.Parse:
		return strings.TrimSpace(m.Name + " " + m.Query)
	case *pgproto3.Bind:
		return strings.TrimSpace(m.DestinationPortal + " " + m.PreparedStatement)
	case *pgproto3.Describe:
		return strings.TrimSpace(string(m.ObjectType) + " " + m.Name)
	case *pgproto3.Close:
		return strings.TrimSpace(string(m.ObjectType) + " " + m.Name)
	case *pgproto3.Execute:
		return strings.TrimSpace(fmt.Sprintf("%s %d", m.Portal, m.MaxRows))
	case *pgproto3.CopyData:
		return strconv.Itoa(len(m.Data))
	case *pgproto3.CopyFail:
		return m.Message
	}
	return ""
}

// newServerMessage is an empty message of the type that a server's letter stands for.
func newServerMessage(m Message) pgproto3.Message {
	if m.Type == 'R' {
		return newAuthentication(m.Body)
	}
	switch m.Type {
	case 'K':
		return &pgproto3.BackendKeyData{}
	case 'S':
		return &pgproto3.ParameterStatus{}
	case 'Z':
		return &pgproto3.ReadyForQuery{}
	case 'T':
		return &pgproto3.RowDescription{}
	case 'D':
		return &pgproto3.DataRow{}
	case 'C':
		return &pgproto3.CommandComplete{}
	case 'E':
		return &pgproto3.ErrorResponse{}
	case 'N':
		return &pgproto3.NoticeResponse{}
	case 'A':
		return &pgproto3.NotificationResponse{}
	case '1':
		return &pgproto3.ParseComplete{}
	case '2':
		return &pgproto3.BindComplete{}
	case '3':
		return &pgproto3.CloseComplete{}
	case 'n':
		return &pgproto3.NoData{}
	case 's':
		return &pgproto3.PortalSuspended{}
	case 't':
		return &pgproto3.ParameterDescription{}
	case 'I':
		return &pgproto3.EmptyQueryResponse{}
	case 'G':
		return &pgproto3.CopyInResponse{}
	case 'H':
		return &pgproto3.CopyOutResponse{}
	case 'W':
		return &pgproto3.CopyBothResponse{}
	case 'd':
		return &pgproto3.CopyData{}
	case 'c':
		return &pgproto3.CopyDone{}
	case 'V':
		return &pgproto3.FunctionCallResponse{}
	}
	return nil
}

// newAuthentication tells the messages apart that share the letter R, by the number that their body begins with.
func newAuthentication(body []byte) pgproto3.Message {
	if len(body) < 4 {
		return nil
	}
	switch binary.BigEndian.Uint32(body) {
	case pgproto3.AuthTypeOk:
		return &pgproto3.AuthenticationOk{}
	case pgproto3.AuthTypeCleartextPassword:
		return &pgproto3.AuthenticationCleartextPassword{}
	case pgproto3.AuthTypeMD5Password:
		return &pgproto3.AuthenticationMD5Password{}
	case pgproto3.AuthTypeSASL:
		return &pgproto3.AuthenticationSASL{}
	case pgproto3.AuthTypeSASLContinue:
		return &pgproto3.AuthenticationSASLContinue{}
	case pgproto3.AuthTypeSASLFinal:
		return &pgproto3.AuthenticationSASLFinal{}
	}
	return nil
}

// newClientMessage is an empty message of the type that a client's letter stands for.
func newClientMessage(m Message) pgproto3.Message {
	switch m.Type {
	case 'Q':
		return &pgproto3.Query{}
	case 'P':
		return &pgproto3.Parse{}
	case 'B':
		return &pgproto3.Bind{}
	case 'D':
		return &pgproto3.Describe{}
	case 'E':
		return &pgproto3.Execute{}
	case 'C':
		return &pgproto3.Close{}
	case 'S':
		return &pgproto3.Sync{}
	case 'H':
		return &pgproto3.Flush{}
	case 'F':
		return &pgproto3.FunctionCall{}
	case 'd':
		return &pgproto3.CopyData{}
	case 'c':
		return &pgproto3.CopyDone{}
	case 'f':
		return &pgproto3.CopyFail{}
	case 'p':
		return &pgproto3.PasswordMessage{}
	case 'X':
		return &pgproto3.Terminate{}
	}
	return nil
}

// readMessage reads exactly one message: nothing that follows it is taken from r.
func readMessage(r io.Reader, fromClient bool) (Message, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return Message{}, err
	}
	body, err := readBody(r, header[1:])
	return Message{Type: header[0], Body: body, FromClient: fromClient}, err
}

// readBody reads what a length, which counts itself, announces.
func readBody(r io.Reader, length []byte) ([]byte, error) {
	n := binary.BigEndian.Uint32(length)
	if n < 4 || n > 1<<30 {
		return nil, fmt.Errorf("read message: length %d", n)
	}
	body := make([]byte, n-4)
	_, err := io.ReadFull(r, body)
	return body, err
}
