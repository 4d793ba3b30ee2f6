package wire

import (
	"bytes"
	"encoding/binary"
)

// String returns the NUL-terminated string at the head of b without its terminator, and what follows it. ok is false when
// there is no terminator.
func String(b []byte) (s, rest []byte, ok bool) {
	s, rest, ok = bytes.Cut(b, []byte{0})
	if !ok {
		return nil, b, false
	}
	return s, rest, true
}

// Body returns what follows a message's header.
func Body(message []byte) []byte { return message[headerSize:] }

// ParseParse splits the body of a Parse message into the statement's name, its definition (query text, its terminator and
// the parameter types, as they stand in the message: equal definitions are equal statements) and its query text.
func ParseParse(body []byte) (name, definition, query []byte, ok bool) {
	name, definition, ok = String(body)
	if !ok {
		return nil, nil, nil, false
	}
	query, types, ok := String(definition)
	if !ok || len(types) < 2 || len(types) != 2+4*int(binary.BigEndian.Uint16(types)) {
		return nil, nil, nil, false
	}
	return name, definition, query, true
}

// ParseBind returns the two names at the head of a Bind message's body. ok is false when they are not there in full.
func ParseBind(body []byte) (portal, statement, rest []byte, ok bool) {
	portal, rest, ok = String(body)
	if !ok {
		return nil, nil, nil, false
	}
	statement, rest, ok = String(rest)
	return portal, statement, rest, ok
}

// ParseTarget splits the body of a Describe or Close message: kind is 'S' (statement) or 'P' (portal).
func ParseTarget(body []byte) (kind byte, name []byte, ok bool) {
	if len(body) < 2 {
		return 0, nil, false
	}
	name, rest, ok := String(body[1:])
	return body[0], name, ok && len(rest) == 0
}

// ParseStatus splits the body of a ParameterStatus message.
func ParseStatus(body []byte) (name, value []byte, ok bool) {
	name, rest, ok := String(body)
	if !ok {
		return nil, nil, false
	}
	value, _, ok = String(rest)
	return name, value, ok
}

// ErrorField returns one field of an ErrorResponse's or NoticeResponse's body, or nil: 'S' severity (localised), 'V'
// severity, 'C' SQLSTATE, 'M' message, 'D' detail, 'H' hint, 'R' routine.
func ErrorField(body []byte, field byte) []byte {
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := String(body[1:])
		if !ok {
			return nil
		}
		if body[0] == field {
			return value
		}
		body = rest
	}
	return nil
}
