package state

import (
	"bytes"
	"strings"
)

// lingering are the effects by which the body of a routine changes the session that runs it, as far as another session on
// the same server would notice.
const lingering = Set | Reset | ResetUser | ResetAll | Temp | Listen | AdvisoryLock | HoldCursor | Prepare | Do |
	DiscardAll | Seed | Load | Opaque | Unknown

// bodyEffects says what a routine's body in SQL or PL/pgSQL, or an expression, may do to the session that runs it, apart
// from what the user's own routines and tables do that it names. Unknown is SQL that the text does not show: EXECUTE.
func bodyEffects(body []byte) Effect {
	effects, doubtful := readBody(body, false)
	if doubtful {
		other, _ := readBody(body, true)
		effects |= other
	}
	return effects & lingering
}

// readBody is bodyEffects in one reading. Calls and the like are looked for in the body as it is, commands where PL/pgSQL
// has a statement begin.
func readBody(body []byte, escapes bool) (effects Effect, doubtful bool) {
	var calls []call
	s := scanner{lexer: lexer{src: body, escapes: escapes}, calls: &calls}
	for s.scan() {
		effects |= s.effects &^ (s.stated | Unknown)
	}
	for _, one := range calls {
		if runsText(one.function) {
			effects |= Unknown
		}
	}
	split, executes := splitBody(body, escapes)
	if executes || s.malformed || s.unclear {
		effects |= Unknown
	}
	commands := scanner{lexer: lexer{src: split, escapes: escapes}}
	for commands.scan() {
		effects |= commands.stated &^ Unknown
	}
	return effects, s.doubtful
}

// splitBody returns a body in which a semicolon stands wherever one of PL/pgSQL's statements may begin, and whether it has the word
// EXECUTE, which runs a text.
func splitBody(body []byte, escapes bool) (split []byte, executes bool) {
	split = bytes.Clone(body)
	l := lexer{src: body, escapes: escapes}
	for last := token(0); ; {
		t := l.next()
		switch t {
		case end, broken:
			return split, executes
		case word:
			w := l.bytes()
			executes = executes || equalFold(w, "execute")
			if equalFold(w, "begin") || equalFold(w, "then") || equalFold(w, "else") || equalFold(w, "loop") {
				blank(split[l.start:l.pos])
			}
		case '>':
			if last == '>' {
				blank(split[l.start:l.pos]) // of a label
			}
		}
		last = t
	}
}

func blank(b []byte) {
	for i := range b {
		b[i] = ' '
	}
	b[0] = ';'
}

// namedSettings are the custom settings that a body sets under a name that it shows.
func namedSettings(body []byte) []string {
	body = bytes.ReplaceAll(body, []byte("'::text"), []byte("'")) // as PostgreSQL writes expressions
	escapes, _ := reading(body)
	split, _ := splitBody(body, escapes)
	var names []string
	for _, text := range [][]byte{body, split} {
		for _, action := range Parse(text) {
			if action.Effect.Has(Set) && strings.Contains(action.Name, ".") {
				names = append(names, action.Name)
			}
		}
	}
	return names
}

// identifiers calls each for the identifiers of a text, folded whether or not they are quoted, and, with operators, for
// the runs of characters that operators are made of. plain is false for an identifier whose bytes do not say which one it is:
// beyond ASCII (the case and the encoding), with escapes, or longer than names are.
func identifiers(sql []byte, escapes, operators bool, each func(name []byte, t token, plain bool)) (doubtful bool) {
	var buffer [maxNameLength]byte
	l := lexer{src: sql, escapes: escapes}
	from, to := 0, 0 // a run of such characters
	for {
		t := l.next()
		if operators {
			if isOperator(t) && (to == 0 || l.start == to) {
				if to == 0 {
					from = l.start
				}
				to = l.pos
				continue
			}
			if to > 0 {
				each(sql[from:to], operator, true)
				from, to = 0, 0
			}
			if isOperator(t) {
				from, to = l.start, l.pos
				continue
			}
		}
		switch t {
		case end, broken:
			return l.doubtful
		case word:
			folded := foldInto(&buffer, l.bytes())
			each(folded, word, folded != nil && isPlain(folded))
		case quoted:
			inner := unquoted(l.bytes())
			folded := foldInto(&buffer, inner)
			each(folded, word, len(folded) > 0 && isPlain(folded))
		}
	}
}

// operator is the token that identifiers passes for a run of operator characters.
const operator token = 'o'

func isOperator(t token) bool {
	return t < 0x80 && strings.IndexByte("+-*/<>=~!@#%^&|`?", byte(t)) >= 0
}

func isPlain(name []byte) bool {
	for _, c := range name {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
