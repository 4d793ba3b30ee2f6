package state

import (
	"bytes"
	"strings"
)

// Action is one thing that a statement does to its session, with what it is about. Parse returns them in the order in
// which PostgreSQL does them, transactions and savepoints included, so that whoever follows them knows what a rollback
// takes back.
type Action struct {
	// Effect is what is done: one effect, or several that belong together (Commit and Begin of COMMIT AND CHAIN).
	Effect Effect
	// Statement is the index of the statement in its text, empty ones not counted: that of its CommandComplete.
	Statement int
	// Name is the setting (canonical), the channel, cursor, savepoint, prepared statement or temporary object as PostgreSQL
	// knows it, or the function called. It is empty if there is none, or if the text does not say it: set_config($1, ...).
	// A name of several parts is joined with dots.
	Name string
	// Value is what the statement says about it, as it is written: the value of a setting; the text of a prepared
	// statement, whose effects are those of Effects(Value); the library of LOAD.
	Value string
}

// Parse says in detail what Effects says in sum. It is for texts that have effects, and allocates.
//
// A text whose string constants could end in two ways is read with standard_conforming_strings on; a last action, Unknown,
// tells so, as it does for a text that was not understood.
func Parse(sql []byte) []Action {
	escapes, ambiguous := reading(sql)
	var calls []call
	s := scanner{lexer: lexer{src: sql, escapes: escapes}, calls: &calls}
	p := parser{}
	for ; s.scan(); p.statement++ {
		left := s.effects &^ (s.stated | unnamed)
		p.verb(&s)
		if s.verb != VerbPrepare {
			for _, one := range calls {
				if !unnamed.Has(one.effect) {
					p.call(one, escapes)
					left &^= one.effect
				}
			}
		}
		calls = calls[:0]
		if left != 0 {
			p.add(left, "", nil)
		}
	}
	if ambiguous || Effects(sql).Has(Unknown) {
		p.add(Unknown, "", nil)
	}
	return p.actions
}

// unnamed are the effects that are no actions, because there is nothing to say about them.
const unnamed Effect = DDL | Write | Copy | Unknown

// parser collects the actions of a text.
type parser struct {
	actions   []Action
	statement int
}

func (p *parser) add(effect Effect, name string, value []byte) {
	p.actions = append(p.actions, Action{Effect: effect, Statement: p.statement, Name: name, Value: string(value)})
}

// verb adds what the statement's verb and its clauses state.
func (p *parser) verb(s *scanner) {
	effect, c := s.stated&^unnamed, s.clause
	switch {
	case effect == 0:
	case c.setting == sessionCharacteristics:
		p.characteristics(c.value, s.escapes)
	case c.setting != "":
		p.add(effect, c.setting, c.value)
	case effect.Has(Set | SetLocal | Reset | ResetUser | Seed):
		p.add(effect, canonicalName(decodeName(c.name)), c.value)
	default:
		p.add(effect, decodeName(c.name), c.value)
	}
}

// characteristics adds the settings that SET SESSION CHARACTERISTICS AS TRANSACTION changes.
func (p *parser) characteristics(modes []byte, escapes bool) {
	r := newReader(modes, escapes)
	for !r.over() {
		switch {
		case r.accept("isolation"):
			r.accept("level")
			level := r.src[r.start:r.pos]
			if r.accept("read") || r.accept("repeatable") {
				level = bytes.Join([][]byte{level, r.bytes()}, []byte(" "))
			}
			p.add(Set, "default_transaction_isolation", bytes.ToLower(level))
		case r.accept("read"):
			p.add(Set, "default_transaction_read_only", onOff(r.is("only")))
		case r.accept("not"):
			p.add(Set, "default_transaction_deferrable", onOff(false))
		case r.is("deferrable"):
			p.add(Set, "default_transaction_deferrable", onOff(true))
		}
		r.advance()
	}
}

func onOff(on bool) []byte {
	if on {
		return []byte("on")
	}
	return []byte("off")
}

// call adds what a function call does.
func (p *parser) call(one call, escapes bool) {
	if !one.effect.Has(Set | SetLocal) {
		p.add(one.effect, decodeName(one.function), nil)
		return
	}
	arguments, count := readArguments(one.arguments, escapes)
	setting, ok := constant(string(arguments[0]))
	if count != len(arguments) || !ok {
		p.add(one.effect, "", nil)
		return
	}
	p.add(one.effect, canonicalName(setting), arguments[1])
}

// decodeName is an identifier as PostgreSQL keeps it: folded unless quoted, and cut at the length of its names. Parts are
// joined with dots. One with Unicode escapes is kept as it is written.
func decodeName(written []byte) string {
	var b strings.Builder
	l := lexer{src: written}
	for {
		switch l.next() {
		case end, broken:
			return b.String()
		case word:
			b.WriteString(cut(foldString(string(l.bytes()))))
		case quoted:
			name := l.bytes()
			if name[0] == '"' {
				name = bytes.ReplaceAll(name[1:len(name)-1], []byte(`""`), []byte(`"`))
			}
			b.WriteString(cut(string(name)))
		case '.':
			b.WriteByte('.')
		}
	}
}

func cut(name string) string {
	if len(name) > maxNameLength {
		return name[:maxNameLength] // PostgreSQL cuts at a character of the encoding, which is not known here
	}
	return name
}

// Literal is the text that a value stands for, if it is a single word, number or string constant that reads the same in
// every session: the name in SET name TO value, the first argument of set_config. ok is false for anything else, such as
// a list, a parameter, or a constant with backslashes.
func Literal(value string) (literal string, ok bool) {
	l := lexer{src: []byte(value)}
	t := l.next()
	token := string(l.bytes())
	sign := ""
	if (t == '-' || t == '+') && l.next() == number {
		sign, t, token = strings.TrimPrefix(token, "+"), number, string(l.bytes())
	}
	if l.next() != end {
		return "", false
	}
	switch t {
	case word:
		return foldString(token), !strings.EqualFold(token, "default")
	case number:
		return sign + token, true
	case quoted:
		return decodeName([]byte(token)), token[0] == '"'
	case text:
		return constant(token)
	}
	return "", false
}

// constant is what a string constant stands for, if it has no prefix and no backslash.
func constant(value string) (literal string, ok bool) {
	l := lexer{src: []byte(value)}
	if l.next() != text || value[0] != '\'' || l.next() != end || strings.Contains(value, `\`) {
		return "", false
	}
	return strings.ReplaceAll(value[1:len(value)-1], "''", "'"), true
}
