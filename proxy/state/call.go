package state

import "bytes"

// call is a function call with an effect.
type call struct {
	effect    Effect
	function  []byte // its name as it is written, without a schema
	arguments []byte // the text from behind the parenthesis on
}

// callee is the name before a parenthesis.
type callee struct {
	name, schema passed // schema is what stands before the last dot, the zero value if there is no dot
	behind       passed // what stands before it all
}

// parenthesis looks at an opening parenthesis: behind a name it may be a call.
func (s *scanner) parenthesis() {
	name := s.back(1)
	if name.token != word && name.token != quoted || name.from == s.verbStart || s.verb == VerbNone {
		return
	}
	c := s.callee()
	if s.namesNoFunction(c) {
		return
	}
	effect := s.functionEffect(c)
	if effect == 0 {
		return
	}
	if effect == Set && isLocal(s.src[s.pos:], s.escapes) {
		effect = SetLocal
	}
	s.effects |= effect
	if s.calls != nil {
		*s.calls = append(*s.calls, call{effect, s.text(c.name), s.src[s.pos:]})
	}
}

// callee goes back over the parts of a name. One with more parts than any function's can have is left half-way, at a dot.
func (s *scanner) callee() callee {
	c := callee{name: s.back(1)}
	n := uint(2)
	for ; n < 7 && s.back(n).token == '.'; n += 2 {
		if n == 2 {
			c.schema = s.back(3)
		}
	}
	c.behind = s.back(n)
	return c
}

// namesNoFunction tells whether the name before the parenthesis stands where no function can: a type behind ::, an
// alias behind ), the table of INSERT INTO t (...), the query of WITH t (...).
func (s *scanner) namesNoFunction(c callee) bool {
	switch c.behind.token {
	case ')', cast:
		return true
	case word:
	default:
		return false
	}
	var buffer, nameBuffer [maxNameLength]byte
	behind := foldInto(&buffer, s.text(c.behind))
	switch string(behind) {
	case "into", "as", "with", "recursive", "table", "copy", "exists", "execute", "tablesample":
		return true
	}
	if c.schema.token != 0 || c.name.token == quoted {
		return false
	}
	switch string(foldInto(&nameBuffer, s.text(c.name))) {
	case "conflict":
		return string(behind) == "on"
	case "by":
		return string(behind) == "group" || string(behind) == "order" || string(behind) == "partition"
	case "rollup", "cube":
		return string(behind) == "by"
	case "sets":
		return string(behind) == "grouping"
	case "materialized":
		return string(behind) == "not"
	case "first", "next":
		return string(behind) == "fetch"
	}
	return false
}

// functionEffect is the effect of a call.
func (s *scanner) functionEffect(c callee) Effect {
	if c.schema.token != 0 {
		switch schema := s.text(c.schema); {
		case isSchema(schema, "information_schema"):
			return 0 // its functions only compute
		case !isSchema(schema, "pg_catalog"):
			return Function
		}
	}
	name := s.text(c.name)
	if c.name.token == quoted {
		inner := unquoted(name)
		if inner == nil || syntaxWord(inner) {
			return Function // what is a keyword without its quotes is a function with them
		}
		return functionEffect(inner)
	}
	var buffer [maxNameLength]byte
	return functionEffect(foldInto(&buffer, name))
}

func isSchema(name []byte, schema string) bool {
	if name[0] == '"' {
		return string(unquoted(name)) == schema
	}
	return equalFold(name, schema)
}

// unquoted is what stands in a quoted identifier, or nil if it has escapes.
func unquoted(identifier []byte) []byte {
	if identifier[0] != '"' {
		return nil
	}
	inner := identifier[1 : len(identifier)-1]
	if bytes.IndexByte(inner, '"') >= 0 {
		return nil
	}
	return inner
}

// isLocal looks at the arguments of set_config, from behind the parenthesis: the setting ends with the transaction only if
// the third one is the word true.
func isLocal(sql []byte, escapes bool) bool {
	arguments, count := readArguments(sql, escapes)
	return count == len(arguments) && equalFold(arguments[2], "true")
}

// readArguments cuts the arguments of a call, from behind its parenthesis, at most three of them. It returns how many
// there are.
func readArguments(sql []byte, escapes bool) (arguments [3][]byte, count int) {
	l := lexer{src: sql, escapes: escapes}
	first, last := -1, 0
	for depth := 1; ; {
		t := l.next()
		switch t {
		case '(', '[':
			depth++
		case ')', ']':
			depth--
		case end, broken:
			return arguments, 0
		}
		if depth == 0 || depth == 1 && t == ',' {
			if count < len(arguments) && first >= 0 {
				arguments[count] = sql[first:last]
			}
			count++
			first = -1
			if depth == 0 {
				return arguments, count
			}
			continue
		}
		if first < 0 {
			first = l.start
		}
		last = l.pos
	}
}
