package state

import "bytes"

// call is a function call with an effect.
type call struct {
	effect    Effect
	function  span // the name, without a schema
	arguments int  // where they begin, behind the parenthesis
}

// parenthesis looks at an opening parenthesis: behind a name it may be a call.
func (s *scanner) parenthesis() {
	if s.prev != word && s.prev != quoted || s.verb == VerbNone || s.at.from == s.verbStart || s.namesNoFunction() {
		return
	}
	effect := s.functionEffect()
	if effect == 0 {
		return
	}
	if effect == Set && s.isLocal() {
		effect = SetLocal
	}
	s.effects |= effect
	if s.calls != nil {
		*s.calls = append(*s.calls, call{effect: effect, function: s.at, arguments: s.pos})
	}
}

// namesNoFunction tells whether the name before the parenthesis stands where no function can: a type behind ::, an
// alias behind ), the table of INSERT INTO t (...), the query of WITH t (...).
func (s *scanner) namesNoFunction() bool {
	switch s.behind {
	case ')', cast:
		return true
	case word:
	default:
		return false
	}
	var buffer, nameBuffer [maxNameLength]byte
	behind := foldInto(&buffer, s.span(s.behindAt))
	switch string(behind) {
	case "into", "as", "with", "recursive", "table", "copy", "exists", "tablesample":
		return true
	}
	if s.qualified || s.prev == quoted {
		return false
	}
	switch string(foldInto(&nameBuffer, s.span(s.at))) {
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

// functionEffect is the effect of calling the name at hand.
func (s *scanner) functionEffect() Effect {
	if s.qualified {
		switch schema := s.span(s.qualifier); {
		case isSchema(schema, "information_schema"):
			return 0 // its functions only compute
		case !isSchema(schema, "pg_catalog"):
			return Function
		}
	}
	name := s.span(s.at)
	if s.prev == quoted {
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
func (s *scanner) isLocal() bool {
	arguments, count := readArguments(s.src[s.pos:], s.escapes)
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
