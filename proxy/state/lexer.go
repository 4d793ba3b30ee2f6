package state

import "bytes"

// token is the kind of a token. A token that is none of those below is one byte of punctuation, and its kind is that byte.
type token byte

const (
	end    token = 'z'  // the text is over
	word   token = 'a'  // a keyword or an identifier without quotes
	quoted token = '"'  // "identifier" or U&"identifier"
	text   token = '\'' // a string constant of any kind, dollar-quoted ones too
	number token = '0'
	param  token = '$' // $1; also a dollar sign that begins nothing
	cast   token = 'c' // ::
	broken token = 'b' // a string, an identifier or a comment without its end: PostgreSQL refuses the whole text
)

// classes has one letter for what each byte may begin. Lower-case letters are the bytes that may continue a word, so one
// comparison finds its end. A byte beyond ASCII is part of a word in every encoding that PostgreSQL knows.
//
// d: digit, e: dollar sign, a: other letters, n: the first letters of the words that noteworthy looks at.
const classes = "" +
	".........     .." + // 0x00
	"................" + // 0x10
	" .\".e..'.....-./" + // 0x20
	"dddddddddd:....." + // 0x30
	".aaanaaaanaaanaa" + // 0x40
	"naannnaaaaa....a" + // 0x50
	".aaanaaaanaaanaa" + // 0x60
	"naannnaaaaa....." + // 0x70
	highBytes + highBytes + highBytes + highBytes

const highBytes = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// lexer cuts SQL into tokens as PostgreSQL's scanner does, without copying. Its rules are those of PostgreSQL 15 to 18;
// where older versions took what these refuse (1and), it takes it too.
//
// Two things it cannot know from the text. Whether a backslash escapes in '...' depends on
// standard_conforming_strings: escapes says which reading this is, and doubtful tells that there was a literal that ends
// elsewhere under the other one. And some client encodings (SJIS, BIG5, GBK) have characters whose second byte looks
// like a backslash: unclear tells that one may have been taken for an escape.
type lexer struct {
	src        []byte
	start, pos int // the token is src[start:pos]
	escapes    bool
	doubtful   bool
	unclear    bool
}

func (l *lexer) bytes() []byte { return l.src[l.start:l.pos] }

// next reads a token. Behind broken there is only the end.
func (l *lexer) next() token {
	src, p := l.src, l.pos
	for p < len(src) {
		c := src[p]
		class := classes[c]
		if class == ' ' {
			p++
			continue
		}
		l.start = p
		p++
		switch class {
		case 'a', 'n':
			for p < len(src) && classes[src[p]] >= 'a' {
				p++
			}
			l.pos = p
			if p-l.start == 1 && p < len(src) && (src[p] == '\'' || src[p] == '&') {
				return l.prefixed(c)
			}
			return word
		case 'd':
			for p < len(src) && (classes[src[p]] == 'd' || src[p] == '.') {
				p++
			}
			l.pos = p
			return number
		case '\'':
			if l.escapes {
				return l.escaped(p)
			}
			return l.plain(p)
		case '"':
			return l.until('"', p, quoted)
		case 'e':
			return l.dollar(p)
		case '-':
			if p < len(src) && src[p] == '-' {
				p = lineEnd(src, p)
				continue
			}
		case '/':
			if p < len(src) && src[p] == '*' {
				if p = commentEnd(src, p+1); p < 0 {
					return l.broken()
				}
				continue
			}
		case ':':
			if p < len(src) && src[p] == ':' {
				l.pos = p + 1
				return cast
			}
		}
		l.pos = p
		return token(c)
	}
	l.start, l.pos = p, p
	return end
}

// broken ends the text at what has no end.
func (l *lexer) broken() token {
	l.pos = len(l.src)
	return broken
}

// prefixed decides about a word of one letter before a quote or an ampersand.
func (l *lexer) prefixed(letter byte) token {
	p := l.pos
	switch quote := l.src[p]; {
	case quote == '\'' && fold(letter) == 'e':
		return l.escaped(p + 1)
	case quote == '\'' && (fold(letter) == 'b' || fold(letter) == 'x'):
		return l.until('\'', p+1, text)
	case quote == '&' && fold(letter) == 'u' && p+1 < len(l.src) && l.src[p+1] == '\'':
		return l.until('\'', p+2, text)
	case quote == '&' && fold(letter) == 'u' && p+1 < len(l.src) && l.src[p+1] == '"':
		return l.until('"', p+2, quoted)
	}
	return word
}

// until reads to a closing quote from p, behind the opening one. A doubled quote stands for itself.
func (l *lexer) until(quote byte, p int, t token) token {
	for {
		i := bytes.IndexByte(l.src[p:], quote)
		if i < 0 {
			return l.broken()
		}
		p += i + 1
		if p == len(l.src) || l.src[p] != quote {
			l.pos = p
			return t
		}
		p++
	}
}

// plain is until for '...' in which a backslash is an ordinary character. What follows on the next line after a quote
// continues the constant in PostgreSQL; here it is another token, and ends at the same place.
func (l *lexer) plain(p int) token {
	for {
		i := bytes.IndexByte(l.src[p:], '\'')
		if i < 0 {
			return l.broken()
		}
		p += i + 1
		if l.src[p-2] == '\\' {
			l.doubtful = true
		}
		if p == len(l.src) || l.src[p] != '\'' {
			l.pos = p
			return text
		}
		p++
	}
}

// escaped reads a constant in which backslashes escape, from p, behind its opening quote. One that is continued on the
// next line keeps its escapes.
func (l *lexer) escaped(p int) token {
	src := l.src
	for p < len(src) {
		switch src[p] {
		case '\\':
			l.unclear = l.unclear || src[p-1] >= 0x80
			p += 2
		case '\'':
			p++
			if p < len(src) && src[p] == '\'' {
				p++
			} else if more := continuation(src, p); more > 0 {
				p = more
			} else {
				l.pos = p
				return text
			}
		default:
			p++
		}
	}
	return l.broken()
}

// dollar reads what a dollar sign begins: a parameter, a dollar-quoted string, or nothing. p is behind the sign.
func (l *lexer) dollar(p int) token {
	src, high := l.src, false
	l.pos = p
	if p < len(src) && classes[src[p]] == 'd' {
		for l.pos < len(src) && classes[src[l.pos]] == 'd' {
			l.pos++
		}
		return param
	}
	for p < len(src) && classes[src[p]] >= 'a' && src[p] != '$' {
		high = high || src[p] >= 0x80
		p++
	}
	if p == len(src) || src[p] != '$' {
		l.unclear = l.unclear || high // the second byte of a character may look like the end of the tag
		return param
	}
	p++
	i := bytes.Index(src[p:], src[l.start:p])
	if i < 0 {
		return l.broken()
	}
	l.pos = p + i + p - l.start
	return text
}

// lineEnd is where a -- comment ends.
func lineEnd(src []byte, p int) int {
	for p < len(src) && src[p] != '\n' && src[p] != '\r' {
		p++
	}
	return p
}

// commentEnd is where a comment ends whose opening is before p. Comments nest. It is negative if there is no end.
func commentEnd(src []byte, p int) int {
	for depth := 1; ; p++ {
		i := bytes.IndexAny(src[p:], "*/")
		if i < 0 || p+i+1 >= len(src) {
			return -1
		}
		p += i
		switch {
		case src[p] == '/' && src[p+1] == '*':
			depth++
			p++
		case src[p] == '*' && src[p+1] == '/':
			depth--
			p++
		}
		if depth == 0 {
			return p + 1
		}
	}
}

// continuation is where a string constant goes on after a quote before p: behind a quote that follows on another line
// with nothing but blanks and -- comments between. It is 0 if it does not go on.
func continuation(src []byte, p int) int {
	newline := false
	for p < len(src) {
		switch c := src[p]; {
		case c == '\n' || c == '\r':
			newline = true
		case classes[c] == ' ':
		case c == '-' && p+1 < len(src) && src[p+1] == '-':
			p = lineEnd(src, p)
			continue
		case c == '\'' && newline:
			return p + 1
		default:
			return 0
		}
		p++
	}
	return 0
}
