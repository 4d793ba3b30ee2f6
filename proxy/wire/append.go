package wire

import "encoding/binary"

// begin appends a header whose length finish fills in.
func begin(dst []byte, t byte) ([]byte, int) {
	dst = append(dst, t, 0, 0, 0, 0)
	return dst, len(dst) - 4
}

func finish(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

func appendString[S string | []byte](dst []byte, s S) []byte {
	dst = append(dst, s...)
	return append(dst, 0)
}

// AppendEmpty appends a message without a body, such as Sync or ParseComplete.
func AppendEmpty(dst []byte, t byte) []byte { return append(dst, t, 0, 0, 0, 4) }

// AppendReadyForQuery appends a ReadyForQuery message.
func AppendReadyForQuery(dst []byte, status byte) []byte {
	return append(dst, ReadyForQuery, 0, 0, 0, 5, status)
}

// AppendQuery appends a simple Query.
func AppendQuery[S string | []byte](dst []byte, sql S) []byte {
	dst, at := begin(dst, Query)
	return finish(appendString(dst, sql), at)
}

// AppendParse appends a Parse message made of a name and a definition as ParseParse returns it.
func AppendParse[S string | []byte](dst []byte, name string, definition S) []byte {
	dst, at := begin(dst, Parse)
	dst = appendString(dst, name)
	return finish(append(dst, definition...), at)
}

// AppendTarget appends a Describe or Close message (t) for a statement ('S') or portal ('P').
func AppendTarget(dst []byte, t, kind byte, name string) []byte {
	dst, at := begin(dst, t)
	dst = append(dst, kind)
	return finish(appendString(dst, name), at)
}

// AppendBindHead appends the head of a Bind message for a statement of another name; rest bytes of the message follow.
func AppendBindHead(dst, portal []byte, statement string, rest int) []byte {
	size := 4 + len(portal) + 1 + len(statement) + 1 + rest
	dst = append(dst, Bind)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = appendString(dst, portal)
	return appendString(dst, statement)
}

// AppendParseHead appends the head of a Parse message with another name; rest bytes of the message follow.
func AppendParseHead(dst []byte, name string, rest int) []byte {
	dst = append(dst, Parse)
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(name)+1+rest))
	return appendString(dst, name)
}

// AppendCommandComplete appends a CommandComplete message.
func AppendCommandComplete(dst []byte, tag string) []byte {
	dst, at := begin(dst, CommandComplete)
	return finish(appendString(dst, tag), at)
}

// AppendParameterStatus appends a ParameterStatus message.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	dst, at := begin(dst, ParameterStatus)
	return finish(appendString(appendString(dst, name), value), at)
}

// AppendKey appends a BackendKeyData message. secret has 4 bytes in protocol 3.0, up to 256 in 3.2.
func AppendKey(dst []byte, pid uint32, secret []byte) []byte {
	dst, at := begin(dst, BackendKeyData)
	dst = binary.BigEndian.AppendUint32(dst, pid)
	return finish(append(dst, secret...), at)
}

// Error is an error or notice of the proxy's own.
type Error struct {
	Severity string // ERROR, FATAL, NOTICE
	Code     string // SQLSTATE
	Message  string // one sentence
	Detail   string // optional
	Hint     string // optional
}

// AppendError appends an ErrorResponse.
func AppendError(dst []byte, e Error) []byte {
	dst, at := begin(dst, ErrorResponse)
	dst = appendString(append(dst, 'S'), e.Severity)
	dst = appendString(append(dst, 'V'), e.Severity)
	dst = appendString(append(dst, 'C'), e.Code)
	dst = appendString(append(dst, 'M'), e.Message)
	if e.Detail != "" {
		dst = appendString(append(dst, 'D'), e.Detail)
	}
	if e.Hint != "" {
		dst = appendString(append(dst, 'H'), e.Hint)
	}
	return finish(append(dst, 0), at)
}

// AppendNotice appends a NoticeResponse.
func AppendNotice(dst []byte, e Error) []byte {
	at := len(dst)
	dst = AppendError(dst, e)
	dst[at] = NoticeResponse
	return dst
}

// AppendErrorWith appends a copy of an ErrorResponse's body in which one field has another value.
func AppendErrorWith(dst, body []byte, field byte, replacement string) []byte {
	dst, at := begin(dst, ErrorResponse)
	for len(body) > 0 && body[0] != 0 {
		value, rest, ok := String(body[1:])
		if !ok {
			break
		}
		dst = append(dst, body[0])
		if body[0] == field {
			dst = appendString(dst, replacement)
		} else {
			dst = appendString(dst, value)
		}
		body = rest
	}
	return finish(append(dst, 0), at)
}
