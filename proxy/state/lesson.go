package state

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Lesson learns from a database what it hides: which of its routines change the session that runs them, and what runs those
// without a text showing it. It asks one question after the other, and the answers are read away from any loop, as there
// may be much to read. It has no connection.
//
// First it is given the user's routines with their bodies, and the expressions that call built-in functions which change the
// session. Those that are found to do so by a look at their text are the roots; there are none in most databases, and that is
// the end. Otherwise it asks what depends on the roots, looks for bodies that have one of the names, and asks again with
// these, until nothing new is found. What is too much is taken for harmful.
type Lesson struct {
	routines []routine
	objects  []object
	custom   []string
	hidden   *Hidden
	rounds   int
}

// routine is one of the user's own.
type routine struct {
	oid    string
	body   []byte // ASCII; nil: it is not known what it does, or nobody needs to look any more
	hidden bool
}

// object is something else that calls a built-in function which changes the session.
type object struct{ class, oid string }

// maxRounds bounds the questions. Whatever has not been found harmless by then is taken for harmful.
const maxRounds = 8

var errLesson = errors.New("answer about the database is not understood")

// Question returns the next question, a string of statements for the simple protocol.
func (l *Lesson) Question() []byte {
	if l.rounds == 0 {
		return []byte(routinesSQL())
	}
	var oids []string
	for i := range l.routines {
		if l.routines[i].hidden {
			oids = append(oids, l.routines[i].oid)
		}
	}
	classes, objects := make([]string, len(l.objects)), make([]string, len(l.objects))
	for i, one := range l.objects {
		classes[i], objects[i] = one.class, one.oid
	}
	return []byte(strings.NewReplacer("%routines%", strings.Join(oids, ","), "%classes%", strings.Join(classes, ","),
		"%objects%", strings.Join(objects, ",")).Replace(reachSQL))
}

// Answer takes the DataRow messages, with their headers, that answer the question. It reports whether the lesson is over; else
// there is another question.
func (l *Lesson) Answer(rows []byte) (over bool, err error) {
	l.rounds++
	first := l.rounds == 1
	if !first {
		l.hidden = &Hidden{always: make(map[string]struct{}), written: make(map[string]struct{})}
	}
	for len(rows) > 0 {
		columns, rest, ok := nextRow(rows)
		if !ok || len(columns) != 3 {
			return false, errLesson
		}
		rows = rest
		if first {
			if err := l.root(columns[0], columns[1], columns[2]); err != nil {
				return false, err
			}
			continue
		}
		l.hidden.add(columns[0], columns[1])
	}
	if first {
		return !l.rooted(), nil
	}
	return !l.spread(), nil
}

// Result returns what the database hides, nil if nothing, and the names of the custom settings that are set there.
func (l *Lesson) Result() (hidden *Hidden, custom []string) { return l.hidden, l.custom }

// root takes a row of the first answer: a routine, or an expression.
func (l *Lesson) root(kind, id, text string) error {
	switch {
	case kind != "o" && !isNumber(id):
		return errLesson
	case kind == "f":
		l.routines = append(l.routines, routine{oid: id, body: []byte(text)})
		one := &l.routines[len(l.routines)-1]
		if bodyEffects(one.body) != 0 {
			l.hide(one)
		}
	case kind == "u":
		l.routines = append(l.routines, routine{oid: id, hidden: true})
	case kind == "o":
		class, oid, ok := strings.Cut(id, " ")
		if !ok || !isNumber(class) || !isNumber(oid) {
			return errLesson
		}
		if text != "" && bodyEffects([]byte(text)) == 0 {
			return nil // for the transaction only
		}
		l.objects = append(l.objects, object{class, oid})
		l.custom = append(l.custom, namedSettings([]byte(text))...)
	default:
		return errLesson
	}
	return nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func (l *Lesson) hide(one *routine) {
	l.custom = append(l.custom, namedSettings(one.body)...)
	one.hidden, one.body = true, nil
}

func (l *Lesson) rooted() bool {
	return len(l.objects) > 0 || slices.ContainsFunc(l.routines, func(one routine) bool { return one.hidden })
}

// spread finds the routines that have one of the names that are known to hide something. It reports whether there are any.
func (l *Lesson) spread() bool {
	found := false
	for i := range l.routines {
		one := &l.routines[i]
		if !one.hidden && (l.rounds >= maxRounds || l.hidden.Effects(one.body, bodyShows(one.body)) != 0) {
			l.hide(one)
			found = true
		}
	}
	return found && l.rounds <= maxRounds
}

// bodyShows are the effects of a body that tell whether it may write rows.
func bodyShows(body []byte) (shown Effect) {
	identifiers(body, false, false, func(name []byte, _ token, _ bool) {
		switch string(name) {
		case "insert", "update", "delete", "merge", "copy", "truncate", "create", "alter":
			shown = Write | DDL
		}
	})
	return shown
}

// sorted returns the keys of a set, for people.
func sorted(set map[string]struct{}) []string { return slices.Sorted(maps.Keys(set)) }

// Names lists what is hidden, at most limit names of it, for people.
func (h *Hidden) Names(limit int) []string {
	if h == nil {
		return nil
	}
	names := slices.Concat(sorted(h.always), sorted(h.written), h.operators)
	if len(names) > limit {
		more := len(names) - limit
		names = append(names[:limit], "and "+strconv.Itoa(more)+" more")
	}
	return names
}
