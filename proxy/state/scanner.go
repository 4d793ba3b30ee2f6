package state

// scanner finds the statements of a text and what they do, in one pass. What a statement's verb and the words behind it
// say is left to clauseOf; what may stand anywhere in it is found here: calls of functions, and a few words.
type scanner struct {
	lexer
	calls *[]call // where to note the calls that have an effect; nil if nobody wants to know

	// The statement at hand.
	begun     bool
	first     int // where it begins; it ends with the token at hand when scan returns
	verbStart int
	verb      Verb // VerbNone until it is found
	effects   Effect
	stated    Effect // those that the verb and its clauses state; the others were found on the way
	clause    clause

	explains bool // EXPLAIN came first
	depth    int  // of parentheses
	body     int  // of BEGIN ATOMIC and CASE in the body of a function, which has semicolons of its own

	past   [8]passed // the last tokens; the one before the token at hand is past[(tokens-1)%8]
	tokens uint

	malformed bool // the text ends inside a string, an identifier or a comment
}

// passed is a token that has been passed, src[from:to].
type passed struct {
	token    token
	from, to int
}

// back returns a token before the one at hand: the first before it, the second, up to the eighth.
func (s *scanner) back(n uint) passed { return s.past[(s.tokens-n)%8] }

func (s *scanner) text(p passed) []byte { return s.src[p.from:p.to] }

// scan reads the next statement that is not empty, and tells whether there was one.
func (s *scanner) scan() bool {
	s.begun, s.verb, s.effects, s.stated, s.clause = false, VerbNone, 0, 0, clause{}
	s.explains, s.depth, s.body = false, 0, 0
	for {
		t := s.next()
		switch {
		case t == word:
			s.word()
		case s.verb == VerbNone && !s.seek(t):
			return false
		}
		switch t {
		case ';':
			if s.begun && s.depth == 0 && s.body == 0 {
				return s.finish()
			}
		case end:
			return s.finish()
		case quoted:
			s.identifier()
		case '(':
			s.depth++
			s.parenthesis()
		case ')':
			s.depth = max(0, s.depth-1)
		case broken:
			s.malformed = true
			s.effects |= Unknown
		}
		s.past[s.tokens%8] = passed{t, s.start, s.pos}
		s.tokens++
	}
}

// finish ends a statement with what its clauses say.
func (s *scanner) finish() bool {
	s.clause = clauseOf(s.verb, s.src[s.verbStart:s.start], s.escapes)
	if s.verb == VerbPrepare {
		s.effects &= Unknown // what is prepared does not run
	}
	s.stated |= s.clause.effect
	s.effects |= s.stated
	return true
}

// seek looks at a token that cannot be a verb while there is none: before the verb only parentheses may stand, and the
// options of EXPLAIN. It tells whether the text goes on.
func (s *scanner) seek(t token) bool {
	if !s.begun {
		if t == end || t == ';' {
			return t != end
		}
		s.begin()
	}
	if t != '(' && (t == end || t == ';' || !s.explains || s.depth == 0) {
		s.verb = VerbUnknown
		s.effects |= Unknown
	}
	return true
}

func (s *scanner) begin() {
	if !s.begun {
		s.begun = true
		s.first, s.verbStart = s.start, s.start
	}
}

// word looks at a word: as the verb, or as one of those that matter wherever they stand.
func (s *scanner) word() {
	if s.verb == VerbNone {
		s.seekVerb()
		return
	}
	if classes[s.src[s.start]] == 'n' {
		s.noteworthy()
	}
	if s.verb == VerbCreate {
		s.bodyWord()
	}
}

func (s *scanner) seekVerb() {
	s.begin()
	var buffer [maxNameLength]byte
	verb, effects := verbOf(foldInto(&buffer, s.bytes()))
	if s.explains {
		option := s.depth > 0 && verb == VerbUnknown
		if option || verb == VerbAnalyze || equalFold(s.bytes(), "verbose") {
			return
		}
	}
	if verb == VerbExplain {
		s.explains = true
		return
	}
	s.verb, s.verbStart = verb, s.start
	s.stated = effects
	s.effects |= effects
}

// noteworthy looks at the words that change what a statement does, wherever they stand in it. All begin with a letter
// that classes knows.
func (s *scanner) noteworthy() {
	w := s.bytes()
	switch len(w) {
	case 1, 2, 3:
	case 4:
		switch {
		case equalFold(w, "into"):
			if s.verb != VerbCopy && !s.follows("insert") && !s.follows("merge") {
				s.effects |= DDL // SELECT INTO makes a table
			}
		case equalFold(w, "temp"):
			s.selectIntoTemp()
		}
	case 5:
		if equalFold(w, "merge") || equalFold(w, "share") && (s.follows("for") || s.follows("key")) {
			s.effects |= Write
		}
	case 6:
		if equalFold(w, "insert") || equalFold(w, "update") || equalFold(w, "delete") {
			s.effects |= Write // in WITH; FOR UPDATE; otherwise it is a name, which does no harm
		}
	case 9:
		if equalFold(w, "temporary") {
			s.selectIntoTemp()
		}
		s.relation(w)
	default:
		s.relation(w)
	}
}

// selectIntoTemp notes the temporary table of SELECT ... INTO TEMP. CREATE TEMP is read by its grammar.
func (s *scanner) selectIntoTemp() {
	if s.follows("into") {
		s.effects |= Temp
	}
}

// identifier looks at a quoted identifier.
func (s *scanner) identifier() {
	if inner := s.bytes(); len(inner) > len(`"pg_temp`) && inner[0] == '"' && inner[1] == 'p' {
		s.relation(inner[1 : len(inner)-1])
	}
}

// relation notes the schema and the view that do something of their own: a name in pg_temp makes an object temporary, if
// it makes one, and UPDATE pg_settings is SET.
func (s *scanner) relation(name []byte) {
	switch {
	case len(name) < len("pg_temp") || name[2] != '_':
	case hasPrefixFold(name, "pg_temp"):
		if after := s.lexer; after.next() == '.' && s.verb != VerbDrop {
			s.effects |= Temp
		}
	case equalFold(name, "pg_settings") && s.effects.Has(Write):
		s.effects |= Set
	}
}

// bodyWord follows the body of CREATE FUNCTION ... BEGIN ATOMIC ... END. CASE and END may be labels of columns too, so
// a text with such a body is not understood for sure.
func (s *scanner) bodyWord() {
	w := s.bytes()
	switch {
	case s.depth == 0 && s.body == 0 && equalFold(w, "atomic") && s.follows("begin") && s.createsRoutine():
		s.body = 1
		s.effects |= Unknown
	case s.body > 0 && equalFold(w, "case"):
		s.body++
	case s.body > 0 && equalFold(w, "end"):
		s.body--
	}
}

func (s *scanner) createsRoutine() bool {
	r := newReader(s.src[s.verbStart:s.start], s.escapes)
	r.advance() // CREATE
	if r.accept("or") {
		r.accept("replace")
	}
	return r.is("function") || r.is("procedure")
}

// follows tells whether the token before is a keyword.
func (s *scanner) follows(keyword string) bool {
	before := s.back(1)
	return before.token == word && equalFold(s.text(before), keyword)
}

// foldInto lower-cases a name. One that is longer than PostgreSQL's names becomes the empty name, which nothing has.
func foldInto(buffer *[maxNameLength]byte, name []byte) []byte {
	if len(name) > len(buffer) {
		return nil
	}
	for i, c := range name {
		buffer[i] = fold(c)
	}
	return buffer[:len(name)]
}
