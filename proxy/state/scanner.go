package state

// scanner finds the statements of a text and what they do, in one pass. What a statement's verb and the words behind it
// say is left to clauseOf; what may stand anywhere in it is found here: calls of functions, and a few words.
type scanner struct {
	lexer
	calls *[]call // where to note the calls of a statement that have an effect; nil if nobody wants to know

	// The statement at hand.
	begun     bool
	first     int // its text is src[first:last]
	last      int
	verbStart int
	verb      Verb // VerbNone until it is found
	effects   Effect
	clause    clause

	explains bool // EXPLAIN came first
	depth    int  // of parentheses
	body     int  // of BEGIN ATOMIC and CASE in the body of a function, which has semicolons of its own

	prev      token // the token before
	at        span  // the last name: a word or a quoted identifier
	behind    token // what came before the name, or before the whole name if it is qualified
	behindAt  span  // where that is, if it is a name
	qualified bool
	qualifier span // the part before the last

	malformed bool // the text ends inside a string, an identifier or a comment
}

// span is a part of the text, src[from:to].
type span struct{ from, to int }

func (s *scanner) span(at span) []byte { return s.src[at.from:at.to] }

// scan reads the next statement that is not empty, and tells whether there was one.
func (s *scanner) scan() bool {
	s.begun, s.verb, s.effects, s.clause = false, VerbNone, 0, clause{}
	s.explains, s.depth, s.body, s.prev = false, 0, 0, ';'
	for {
		t := s.next()
		switch t {
		case ';':
			if !s.begun {
				continue
			}
			if s.depth == 0 && s.body == 0 {
				return s.finish()
			}
		case end:
			return s.begun && s.finish()
		case word:
			s.named(word)
			s.word()
		case quoted:
			s.named(quoted)
			s.seek(quoted)
			s.identifier()
		case '(':
			s.seek(t)
			s.depth++
			s.parenthesis()
		case ')':
			s.seek(t)
			s.depth = max(0, s.depth-1)
		case broken:
			s.malformed = true
			s.seek(t)
			s.effects |= Unknown
		default:
			s.seek(t)
		}
		s.prev = t
		s.last = s.pos
	}
}

// finish ends a statement with what its clauses say.
func (s *scanner) finish() bool {
	if s.verb == VerbNone {
		s.effects |= Unknown // EXPLAIN or a parenthesis, and nothing behind it
		s.verb = VerbUnknown
	}
	s.clause = clauseOf(s.verb, s.src[s.verbStart:s.last], s.escapes)
	if s.verb == VerbPrepare {
		s.effects &= Unknown // what is prepared does not run
	}
	s.effects |= s.clause.effect
	return true
}

// named moves the names on: the token is a part of one.
func (s *scanner) named(t token) {
	if s.prev == '.' {
		s.qualified = true
		s.qualifier = s.at
	} else {
		s.qualified = false
		s.behind = s.prev
		s.behindAt = s.at
	}
	s.at = span{s.start, s.pos}
}

// seek looks at a token that cannot be a verb. Before the verb only parentheses may stand, and the options of EXPLAIN.
func (s *scanner) seek(t token) {
	if !s.begun {
		s.begun = true
		s.first, s.verbStart = s.start, s.start
	}
	if s.verb != VerbNone || t == '(' || s.explains && s.depth > 0 {
		return
	}
	s.verb = VerbUnknown
	s.effects |= Unknown
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
	if !s.begun {
		s.begun = true
		s.first = s.start
	}
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
	s.effects |= effects
}

// noteworthy looks at the words that change what a statement does, wherever they stand in it. All begin with a letter
// that classes knows.
func (s *scanner) noteworthy() {
	w := s.bytes()
	switch len(w) {
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
	}
	s.relation(w)
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

// follows tells whether the name at hand comes behind a word.
func (s *scanner) follows(keyword string) bool {
	return s.behind == word && equalFold(s.span(s.behindAt), keyword)
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
