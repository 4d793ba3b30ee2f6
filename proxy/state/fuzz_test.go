package state

import (
	"bytes"
	"slices"
	"testing"
)

// corpus is every text of the tests.
func corpus() []string {
	var texts []string
	for _, test := range slices.Concat(settingsStatements, setConfigStatements, temporaryObjectsStatements,
		sessionCommandsStatements, transactionsStatements, queriesStatements, driverStatements) {
		texts = append(texts, test.sql)
	}
	return append(texts, ordinary...)
}

// FuzzEffects looks for a text that crashes the lexer, and for a way to hide what a text does.
func FuzzEffects(f *testing.F) {
	for _, sql := range corpus() {
		f.Add([]byte(sql))
	}
	for _, sql := range []string{"'", `E'\`, "$a$", "/*/*", "\"", "U&'", "\x00", "$\xff$", "e'a'\n'b'", "SELECT '\\'; SET a=1 --'", "((((", "a.b.c.d.e.f.g(", ".(", "::"} {
		f.Add([]byte(sql))
	}
	f.Fuzz(func(t *testing.T, sql []byte) {
		before := bytes.Clone(sql)
		statement := Classify(sql)
		actions := Parse(sql)
		_ = Ping(sql)
		_ = Reason(sql, ^Effect(0))
		_ = Fingerprint(sql)
		if !bytes.Equal(before, sql) {
			t.Fatalf("%q was changed", before)
		}
		if statement.Count < 0 || (statement.Count == 0) != (statement.Verb == VerbNone) {
			t.Fatalf("%q: %+v", sql, statement)
		}
		for _, action := range actions {
			if action.Statement > statement.Count && !statement.Effects.Has(Unknown) {
				t.Fatalf("%q: %+v of %d statements", sql, action, statement.Count)
			}
		}
		if Ping(sql) && statement != (Statement{}) {
			t.Fatalf("%q is empty and %+v", sql, statement)
		}

		requireKept(t, sql, "a comment before", slices.Concat([]byte("/* ; ' */ "), sql))
		requireKept(t, sql, "a line comment before", slices.Concat([]byte("-- ; $$ \"\n"), sql))
		requireKept(t, sql, "blanks before", slices.Concat([]byte(" \t\r\n\f"), sql))
		requireKept(t, sql, "a statement before", slices.Concat([]byte("SELECT 1;"), sql))
		requireKept(t, sql, "a statement behind", slices.Concat(sql, []byte("\n;SELECT 1")))
		requireKept(t, sql, "a comment behind", slices.Concat(sql, []byte("\n-- x")))
		if !bytes.ContainsAny(sql, `"$\`) { // quoted names, tags and E'\x' have a case of their own
			requireKept(t, sql, "capitals", upperASCII(sql))
		}
	})
}

// requireKept fails if a text that does at least the same is said to do less. A text that was not understood may become
// another one; it has to stay one that is checked.
func requireKept(t *testing.T, sql []byte, how string, changed []byte) {
	t.Helper()
	was, is := Effects(sql), Effects(changed)
	if was.Has(Unknown) {
		if !Suspicious(is) && is == 0 {
			t.Fatalf("%q, with %s, is not suspicious any more: %s", sql, how, names(is))
		}
		return
	}
	if lost := was &^ is; lost != 0 {
		t.Fatalf("%q, with %s, loses %s", sql, how, names(lost))
	}
}

func upperASCII(sql []byte) []byte {
	upper := bytes.Clone(sql)
	for i, c := range upper {
		if 'a' <= c && c <= 'z' {
			upper[i] = c - 'a' + 'A'
		}
	}
	return upper
}

// FuzzHidden looks for a text behind which a name, or the command of a body, is overlooked.
func FuzzHidden(f *testing.F) {
	for _, sql := range corpus() {
		f.Add([]byte(sql))
	}
	for _, sql := range []string{"case when a then b else c end", "<<l>>", "begin if x then", "'\\'", "((", "a===b", "U&\"\\0061\"", "$1$", ">>>"} {
		f.Add([]byte(sql))
	}
	hidden := &Hidden{always: map[string]struct{}{"secret": {}}, operators: []string{"==="}}
	f.Fuzz(func(t *testing.T, sql []byte) {
		for _, behind := range []string{"\n;select * from secret", "\n;select a === b", "\n;select a===-1"} {
			text := slices.Concat(sql, []byte(behind))
			if shown := Effects(text); !shown.Has(Unknown) && hidden.Effects(text, shown) == 0 {
				t.Fatalf("%q hides something", text)
			}
		}
		for _, behind := range []string{"\n;begin set work_mem to '1MB'; end", "\n;begin perform set_config('a.b', 'c', false); end"} {
			if body := slices.Concat(sql, []byte(behind)); bodyEffects(body) == 0 && balanced(sql) {
				t.Fatalf("%q changes the session", body)
			}
		}
	})
}

// balanced tells whether the parentheses of a text are, in both readings: PL/pgSQL refuses a body in which they are not.
func balanced(sql []byte) bool {
	for _, escapes := range []bool{false, true} {
		depth := 0
		l := lexer{src: sql, escapes: escapes}
		for t := l.next(); t != end; t = l.next() {
			switch t {
			case '(':
				depth++
			case ')':
				depth--
			}
		}
		if depth != 0 {
			return false
		}
	}
	return true
}
