package statement

// Held is the set of statements that a server has prepared under their shared names, in the order of their last use. Zero
// value: empty. It belongs to the server connection's loop.
//
// A statement enters it when its Parse is sent. Until the server has confirmed it, it may be relied on only within the
// same segment (the messages up to a Sync): an error drops the rest of a segment, so there either both come to pass or
// neither.
type Held struct {
	index map[*Statement]int32
	slots []held
	order list
}

type held struct {
	st      *Statement
	segment uint32 // in which its Parse was sent; 0: confirmed
	stale   uint32 // the statement's staleness when it was prepared
	catalog uint32 // the catalog's age when it was prepared
}

// Standing says whether a statement may be used on a server.
type Standing uint8

// What Held knows of a statement.
const (
	Missing  Standing = iota // has to be prepared
	Doubtful                 // may exist, or is stale: has to be closed and prepared
	Ready                    // may be used
)

// Len returns how many statements the server holds, as far as is known.
func (h *Held) Len() int { return len(h.index) }

// Standing reports on a statement for use in the given segment, and marks it as used.
func (h *Held) Standing(st *Statement, segment uint32) Standing {
	i, ok := h.index[st]
	if !ok {
		return Missing
	}
	h.order.touch(i)
	s := &h.slots[i]
	if (s.segment != 0 && s.segment != segment) || s.stale != st.stale.Load() {
		return Doubtful
	}
	return Ready
}

// Fresh tells whether the statement was prepared since the catalog reached the given age. Standing must not be Missing.
func (h *Held) Fresh(st *Statement, catalog uint32) bool {
	return h.slots[h.index[st]].catalog == catalog
}

// Add notes that the statement's Parse is sent in a segment.
func (h *Held) Add(st *Statement, segment, catalog uint32) {
	i, ok := h.index[st]
	if !ok {
		if h.index == nil {
			h.index = make(map[*Statement]int32)
		}
		i = h.order.add()
		for int(i) >= len(h.slots) {
			h.slots = append(h.slots, held{})
		}
		h.index[st] = i
	}
	h.slots[i] = held{st: st, segment: segment, stale: st.stale.Load(), catalog: catalog}
}

// Confirm notes that the server has prepared the statement.
func (h *Held) Confirm(st *Statement) {
	if i, ok := h.index[st]; ok {
		h.slots[i].segment = 0
	}
}

// Remove notes that the server does not hold the statement (any more).
func (h *Held) Remove(st *Statement) {
	i, ok := h.index[st]
	if !ok {
		return
	}
	delete(h.index, st)
	h.slots[i] = held{}
	h.order.remove(i)
}

// Oldest returns the statement that was used longest ago, or nil.
func (h *Held) Oldest() *Statement {
	if i := h.order.oldest(); i != 0 {
		return h.slots[i].st
	}
	return nil
}

// Clear notes that the server holds none.
func (h *Held) Clear() { *h = Held{} }
