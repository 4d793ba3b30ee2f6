package state

import (
	"bytes"
	"maps"
	"slices"
)

// Hidden is what texts do not show: names in a database behind which something changes the session that uses them, such as a
// table with a trigger that sets something. It is immutable, so every loop may read it; nil hides nothing.
type Hidden struct {
	everything bool                // it is not known what the database hides
	always     map[string]struct{} // folded names of functions, types and relations
	written    map[string]struct{} // names of relations of which only writing matters
	operators  []string
	ddl        bool                // an event trigger does it
	caught     map[uint64]struct{} // fingerprints of texts that were found to leave something
}

// EverythingHidden is what is said of a database that has not been looked at yet.
func EverythingHidden() *Hidden { return &Hidden{everything: true} }

// Effects returns what a text may do that has these effects by what it shows: Unseen if what the database hides is not known,
// Function if the text has a name behind which something is hidden, else nothing. It allocates only where something has
// been caught.
func (h *Hidden) Effects(sql []byte, shown Effect) Effect {
	switch {
	case h == nil:
		return 0
	case h.everything:
		return Unseen
	case h.ddl && shown.Has(DDL):
		return Function
	case len(h.caught) > 0:
		if _, found := h.caught[Fingerprint(sql)]; found {
			return Function
		}
	}
	if h.Len() == 0 {
		return 0
	}
	found, doubtful := h.in(sql, false, shown.Has(writing))
	if doubtful && !found {
		found, _ = h.in(sql, true, shown.Has(writing))
	}
	if found {
		return Function
	}
	return 0
}

// writing are the effects of texts that may write rows.
const writing = Write | DDL | Unknown

// in tells whether a text has one of the names.
func (h *Hidden) in(sql []byte, escapes, writes bool) (found, doubtful bool) {
	doubtful = identifiers(sql, escapes, len(h.operators) > 0, func(name []byte, t token, plain bool) {
		switch {
		case found:
		case t == operator:
			found = slices.ContainsFunc(h.operators, func(one string) bool { return bytes.Contains(name, []byte(one)) })
		case !plain:
			found = true
		default:
			_, found = h.always[string(name)]
			if !found && writes {
				_, found = h.written[string(name)]
			}
		}
	})
	return found, doubtful
}

// With returns what is hidden when texts with these fingerprints, too, leave something.
func (h *Hidden) With(caught map[uint64]struct{}) *Hidden {
	if len(caught) == 0 {
		return h
	}
	other := Hidden{}
	if h != nil {
		other = *h
	}
	other.caught = caught
	return &other
}

// Everything tells whether it is not known what the database hides.
func (h *Hidden) Everything() bool { return h != nil && h.everything }

// Len is how many names there are.
func (h *Hidden) Len() int {
	if h == nil {
		return 0
	}
	return len(h.always) + len(h.written) + len(h.operators)
}

// Equal tells whether two databases, or one at two times, hide the same.
func (h *Hidden) Equal(other *Hidden) bool {
	if h == nil || other == nil {
		return h == other
	}
	return h.everything == other.everything && h.ddl == other.ddl && maps.Equal(h.always, other.always) &&
		maps.Equal(h.written, other.written) && slices.Equal(h.operators, other.operators) && maps.Equal(h.caught, other.caught)
}

// add takes over a row about a name.
func (h *Hidden) add(kind, name string) {
	switch kind {
	case "a":
		h.always[foldString(name)] = struct{}{}
	case "w":
		h.written[foldString(name)] = struct{}{}
	case "q":
		if !slices.Contains(h.operators, name) {
			h.operators = append(h.operators, name)
			slices.Sort(h.operators)
		}
	case "d":
		h.ddl = true
	case "*":
		h.everything = true
	}
}

// ChangesHidden tells whether a text with these effects, as it shows them and as something is hidden in it, may change what its
// database hides: it defines a routine, or something that uses what is not known to be harmless.
func ChangesHidden(sql []byte, effects Effect) bool {
	if effects.Has(Do) {
		return containsFold(sql, "create") || containsFold(sql, "alter")
	}
	if !effects.Has(DDL) {
		return false
	}
	temporary := effects.Has(Temp|TempLocal) && Classify(sql).Count == 1 // what uses it ends with its session
	if effects.Has(lingering&^Temp|Function) && !temporary {
		return true
	}
	defines := false
	identifiers(sql, false, false, func(name []byte, _ token, _ bool) {
		switch string(name) {
		case "function", "procedure", "routine", "aggregate", "extension":
			defines = true
		}
	})
	return defines
}

func containsFold(text []byte, lower string) bool {
	for i := 0; i+len(lower) <= len(text); i++ {
		if equalFold(text[i:i+len(lower)], lower) {
			return true
		}
	}
	return false
}
