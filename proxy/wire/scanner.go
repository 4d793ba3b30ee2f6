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
	if len(buf) < headerSize {
		return Piece{}, nil
	}
	p := Piece{Type: buf[0], Class: s.classes.class[buf[0]], Start: true}
	size, err := s.size(p.Type, p.Class, buf)
	if err != nil {
		return Piece{}, err
	}
	p.Size = size
	switch {
	case p.Class == Pass:
		p.Data, err = s.run(buf, size)
		p.End = s.left == 0
		return p, err
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

// run extends a message of class Pass over those that follow it.
func (s *Scanner) run(buf []byte, size int) ([]byte, error) {
	end := size
	for end <= len(buf)-headerSize {
		t := buf[end]
		if s.classes.class[t] != Pass {
			break
		}
		next, err := s.size(t, Pass, buf[end:])
		if err != nil {
			return nil, err
		}
		end += next
	}
	if end > len(buf) {
		s.left = end - len(buf)
		end = len(buf)
	}
	return buf[:end], nil
}

// size returns a message's whole size after checking it, as an unsigned number, against what the type allows.
func (s *Scanner) size(t byte, class Class, header []byte) (int, error) {
	length := binary.BigEndian.Uint32(header[1:])
	if class == Unknown {
		return 0, &ProtocolError{Text: fmt.Sprintf("invalid frontend message type %d", t)}
	}
	limit := uint32(smallMessage)
	if s.classes.large[t] {
		limit = largeMessage
	}
	if length < 4 || length > limit {
		return 0, &ProtocolError{Text: "invalid message length"}
	}
	return int(length) + 1, nil
}
