package state

// reader looks at the tokens of one statement one by one, for the statements whose words have to be understood in order.
type reader struct {
	lexer
	tok token // the token at hand
}

// newReader is a reader of a statement, at its first token, in the reading that delimited the statement.
func newReader(statement []byte, escapes bool) reader {
	r := reader{lexer: lexer{src: statement, escapes: escapes}}
	r.advance()
	return r
}

func (r *reader) advance() { r.tok = r.next() }

// over tells whether the statement has no more tokens.
func (r *reader) over() bool { return r.tok == end }

// is tells whether the token is this keyword, given in lower case.
func (r *reader) is(keyword string) bool { return r.tok == word && equalFold(r.bytes(), keyword) }

// accept passes a keyword if it is the token.
func (r *reader) accept(keyword string) bool {
	if !r.is(keyword) {
		return false
	}
	r.advance()
	return true
}

// acceptClause passes a keyword that begins a clause of SET or RESET. It does not if the word is the name of a setting
// instead: SET local.x = 1 sets local.x.
func (r *reader) acceptClause(keyword string) bool {
	if !r.is(keyword) {
		return false
	}
	after := *r
	after.advance()
	if after.tok == '.' || after.tok == '=' || after.is("to") {
		return false
	}
	*r = after
	return true
}

// name passes an identifier, qualified perhaps, and returns it as it is written; nil if there is none.
func (r *reader) name() []byte {
	if r.tok != word && r.tok != quoted {
		return nil
	}
	first := r.start
	last := r.pos
	r.advance()
	for r.tok == '.' {
		r.advance()
		if r.tok != word && r.tok != quoted {
			break
		}
		last = r.pos
		r.advance()
	}
	return r.src[first:last]
}

// rest is the statement from the token at hand on, without blanks behind it. The reader does not move.
func (r *reader) rest() []byte {
	behind := *r
	last := behind.start
	for !behind.over() {
		last = behind.pos
		behind.advance()
	}
	return r.src[r.start:last]
}

// find passes tokens outside of parentheses until it is at one of two keywords, and returns which.
func (r *reader) find(keyword, or string) string {
	for depth := 0; !r.over(); r.advance() {
		switch {
		case r.tok == '(':
			depth++
		case r.tok == ')':
			depth--
		case depth > 0:
		case r.is(keyword):
			return keyword
		case r.is(or):
			return or
		}
	}
	return ""
}

// equalFold compares a word with one in lower case, as PostgreSQL folds case.
func equalFold(w []byte, lower string) bool {
	if len(w) != len(lower) {
		return false
	}
	for i := range w {
		if fold(w[i]) != lower[i] {
			return false
		}
	}
	return true
}

// hasPrefixFold tells whether a word begins with one in lower case.
func hasPrefixFold(w []byte, lower string) bool {
	return len(w) >= len(lower) && equalFold(w[:len(lower)], lower)
}
