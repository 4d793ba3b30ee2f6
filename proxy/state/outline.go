package state

import (
	"bytes"
	"hash/fnv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Outline is a text as a log or a page shows it: in one line, without comments, and without the values in it. Every constant
// becomes a question mark, a list of them one with an ellipsis. It is cut at limit bytes, and where it cannot be said what is
// a constant. It is valid UTF-8 whatever the text's encoding is.
func Outline(sql []byte, limit int) string {
	escapes, ambiguous := reading(sql)
	o := outline{lexer: lexer{src: sql, escapes: escapes}}
	for len(o.out) <= limit && o.token(ambiguous) {
	}
	out := strings.Map(oneLine, strings.ToValidUTF8(string(o.out), "?"))
	if len(out) <= limit {
		return out
	}
	for limit > 0 && !utf8.RuneStart(out[limit]) {
		limit--
	}
	return out[:limit] + ellipsis
}

const (
	ellipsis       = "..."
	rest     token = 'r' // stands for the further constants of a list
)

// oneLine keeps what a quoted identifier may hold from breaking the line, or from steering a terminal.
func oneLine(r rune) rune {
	if unicode.IsControl(r) {
		return ' '
	}
	return r
}

// outline writes tokens.
type outline struct {
	lexer
	out    []byte
	behind int   // where the last token ends in the text
	last   token // text for every constant, rest for the further ones of a list
	before token // the one before it
	comma  int   // where the last comma stands in out
	digits bool  // the last token was a number
}

// token takes over one token, and reports false when there is no more to say.
func (o *outline) token(ambiguous bool) bool {
	t := o.next()
	if t == end {
		return false
	}
	blank := o.start > o.behind && len(o.out) > 0
	o.behind = o.pos
	if t == broken || o.unclear || (t == text && ambiguous && bytes.IndexByte(o.bytes(), '\\') >= 0) {
		o.write(blank, ellipsis, t)
		return false
	}
	tail := t == word && o.digits && !blank // of a number: 0x1F, 1e9, 1_000
	o.digits = t == number || tail
	if tail {
		return true
	}
	constant := t == text || t == number
	switch {
	case constant && o.last == ',' && (o.before == text || o.before == rest):
		o.out = o.out[:o.comma]
		if o.before == text {
			o.out = append(o.out, ", "+ellipsis...)
		}
		o.before, o.last = ',', rest
	case constant:
		o.write(blank, "?", text)
	default:
		if t == ',' {
			o.comma = len(o.out)
		}
		o.write(blank, string(o.bytes()), t)
	}
	return true
}

func (o *outline) write(blank bool, what string, t token) {
	if blank {
		o.out = append(o.out, ' ')
	}
	o.out = append(o.out, what...)
	o.before, o.last = o.last, t
}

// fingerprinted bounds how much of a text its fingerprint is made of, in bytes.
const fingerprinted = 16 << 10

// Fingerprint is a number that texts share if they differ in constants, comments, blanks or the case of letters only, and
// hardly any others.
func Fingerprint(sql []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(strings.ToLower(Outline(sql, fingerprinted)))) // a hash takes everything
	return h.Sum64()
}
