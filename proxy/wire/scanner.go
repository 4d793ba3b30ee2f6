package wire

import (
	"encoding/binary"
	"fmt"
)

// ProtocolError is a stream that is not the PostgreSQL protocol. The connection cannot be used any further.
type ProtocolError struct {
	Text string // what PostgreSQL itself would say
}

func (e *ProtocolError) Error() string { return e.Text }

// SQLState returns protocol_violation.
func (*ProtocolError) SQLState() string { return "08P01" }

// Piece is a message, a part of one, or (class Pass only) a run of messages.
type Piece struct {
	Data  []byte // a part of the buffer given to Next; empty: Next needs more bytes
	Size  int    // of the whole message with its header, if Start
	Type  byte   // of the message; of the first one of a run
	Class Class
	Start bool // Data begins with the message's header
	End   bool // Data ends with the message's last byte
}

// Scanner cuts a byte stream into messages by their headers. It keeps no bytes: what Next has not returned the caller
// presents again, with more behind it.
type Scanner struct {
	classes *Classes
	left    int // bytes of the current message that have not been returned
	limit   int // longest message of class Whole that is waited for
}

// MakeScanner returns a scanner for one direction. Messages of class Whole that are longer than limit bytes come in
// pieces.
func MakeScanner(classes *Classes, limit int) Scanner {
	return Scanner{classes: classes, limit: limit}
}

// Left returns how many bytes of a message that has been returned in part are still to come.
func (s *Scanner) Left() int { return s.left }

// Next returns the first piece of buf. Consecutive messages of class Pass come as one piece. An error is a
// *ProtocolError.
func (s *Scanner) Next(buf []byte) (Piece, error) {
	if s.left > 0 {
		return s.rest(buf), nil
	}
	if len(buf) == 0 {
		return Piece{}, nil
	}
	p := Piece{Type: buf[0], Class: s.classes.class[buf[0]], Start: true}
	if p.Class == Unknown {
		return Piece{}, &ProtocolError{Text: fmt.Sprintf("invalid frontend message type %d", p.Type)}
	}
	if len(buf) < headerSize {
		return Piece{}, nil
	}
	size, ok := s.size(p.Type, buf)
	if !ok {
		return Piece{}, &ProtocolError{Text: "invalid message length"}
	}
	p.Size = size
	switch {
	case p.Class == Pass:
		p.Data = s.run(buf, size)
		p.End = s.left == 0
	case size <= len(buf):
		p.Data, p.End = buf[:size], true
	case p.Class == Whole && size <= s.limit:
		// Data stays empty: all of it is wanted.
	default:
		p.Data = buf
		s.left = size - len(buf)
	}
	return p, nil
}

// Unread takes back the piece just returned, which was the beginning of a message of which the caller wants to see more.
func (s *Scanner) Unread() { s.left = 0 }

func (s *Scanner) rest(buf []byte) Piece {
	n := min(s.left, len(buf))
	s.left -= n
	return Piece{Data: buf[:n], Class: Pass, End: s.left == 0}
}

// run extends a message of class Pass over those that follow it, up to one that is not in order.
func (s *Scanner) run(buf []byte, end int) []byte {
	for end <= len(buf)-headerSize && s.classes.class[buf[end]] == Pass {
		next, ok := s.size(buf[end], buf[end:])
		if !ok {
			break
		}
		end += next
	}
	if end > len(buf) {
		s.left = end - len(buf)
		end = len(buf)
	}
	return buf[:end]
}

// size returns a message's whole size, and whether its length, as an unsigned number, is one that the type allows.
func (s *Scanner) size(t byte, header []byte) (int, bool) {
	length := binary.BigEndian.Uint32(header[1:])
	return int(length) + 1, length >= 4 && length <= s.classes.limit[t]
}
