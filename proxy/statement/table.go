package statement

import "pgsidecar/proxy/state"

// Table interns statement definitions. It belongs to one loop and is not safe for concurrent use.
//
// It is bounded by two generations: lookups promote into the young one, and when that is full it becomes the old one and
// what nobody asked for in the meantime is forgotten. A forgotten statement stays valid for who holds it; its definition
// merely gets a second name when it turns up again.
type Table struct {
	numbers    *Numbers
	young, old map[meaning]*Statement
	bytes      int // of definitions in young
	maxCount   int
	maxBytes   int
}

// meaning is what makes a statement: what it says, and under which settings it is read.
type meaning struct{ reading, definition string }

// Bounds of a generation: with the old one, twice as much may be held.
const (
	DefaultCount = 4096
	DefaultBytes = 8 << 20
)

// NewTable returns an empty table whose generations hold up to count statements (0: DefaultCount) and DefaultBytes bytes.
func NewTable(numbers *Numbers, count int) *Table {
	if count <= 0 {
		count = DefaultCount
	}
	return &Table{numbers: numbers, young: make(map[meaning]*Statement), maxCount: count, maxBytes: DefaultBytes}
}

// Len returns how many statements the table knows.
func (t *Table) Len() int { return len(t.young) + len(t.old) }

// Intern returns the statement of a definition, whose query text is the first query bytes of it, under a reading. It
// allocates only for one that the table does not know.
func (t *Table) Intern(reading string, definition []byte, query int) *Statement {
	if st, ok := t.young[meaning{reading, string(definition)}]; ok {
		return st
	}
	st, ok := t.old[meaning{reading, string(definition)}]
	if ok {
		delete(t.old, st.meaning())
	} else {
		st = t.create(reading, definition, query)
	}
	if len(t.young) >= t.maxCount || t.bytes+len(definition) > t.maxBytes {
		t.old, t.young, t.bytes = t.young, make(map[meaning]*Statement), 0
	}
	t.young[st.meaning()] = st
	t.bytes += len(definition)
	return st
}

func (t *Table) create(reading string, definition []byte, query int) *Statement {
	st := &Statement{
		Name:       t.numbers.serial.name(),
		Definition: string(definition),
		Reading:    reading,
		Effects:    state.Effects(definition[:query]),
	}
	st.Rereads = st.Effects.Has(state.SettingEffects) && state.ChangesReading(definition[:query])
	return st
}

func (s *Statement) meaning() meaning { return meaning{s.Reading, s.Definition} }

// Anonymous returns a statement whose definition is too large to be kept: it exists only where it is being prepared.
func (t *Table) Anonymous() *Statement {
	return &Statement{Name: t.numbers.serial.name(), Effects: state.Unknown}
}
