package state

import "bytes"

// Statement is what a text does, taken together if it has several statements.
type Statement struct {
	Effects Effect
	// Verb is the first keyword of the first statement.
	Verb Verb
	// Count is the number of statements, empty ones left out: as many CommandCompletes come if none fails.
	Count int
}

// Effects says what a text may do to its session: the union over its statements.
func Effects(sql []byte) Effect { return Classify(sql).Effects }

// Classify looks at a text as a client has sent it, in a Query or a Parse message, without the closing zero. It takes any
// bytes in any client encoding, never fails, and does not allocate. It reads a text whose string constants could end in
// two ways, depending on standard_conforming_strings, in both and adds the effects.
func Classify(sql []byte) Statement {
	statement, doubtful, wellFormed := classify(sql, false)
	if doubtful {
		other, _, otherWellFormed := classify(sql, true)
		switch {
		case !otherWellFormed: // then it would be refused, and do nothing
		case !wellFormed:
			statement = other
		default:
			statement.Effects |= other.Effects
		}
	}
	if bytes.IndexByte(sql, 0) >= 0 {
		statement.Effects |= Unknown
	}
	return statement
}

// classify is Classify in one reading.
func classify(sql []byte, escapes bool) (statement Statement, doubtful, wellFormed bool) {
	s := scanner{lexer: lexer{src: sql, escapes: escapes}}
	for s.scan() {
		if statement.Count == 0 {
			statement.Verb = s.verb
		}
		statement.Count++
		statement.Effects |= s.effects
	}
	if s.unclear {
		statement.Effects |= Unknown
	}
	// What has no end in one encoding may have one in another: an unclear text could always be meant.
	return statement, s.doubtful, !s.malformed || s.unclear
}

// reading chooses how to read a text in detail: whether backslashes escape in its string constants, and whether it could
// be meant either way.
func reading(sql []byte) (escapes, ambiguous bool) {
	_, doubtful, wellFormed := classify(sql, false)
	if !doubtful {
		return false, false
	}
	_, _, otherWellFormed := classify(sql, true)
	return otherWellFormed && !wellFormed, otherWellFormed && wellFormed
}

// Ping tells whether a text has nothing in it but blanks, comments and semicolons, so that PostgreSQL would answer
// EmptyQueryResponse and nothing else.
func Ping(sql []byte) bool {
	l := lexer{src: sql}
	for {
		switch l.next() {
		case ';':
		case end:
			return bytes.IndexByte(sql, 0) < 0
		default:
			return false
		}
	}
}
