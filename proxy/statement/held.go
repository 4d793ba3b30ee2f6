package statement

// Held is the set of statements that a server has prepared under their shared names, in the order of their last use. Zero
// value: empty. It belongs to the server connection's loop.
//
// A Parse or Close counts as soon as it is sent, under a number of its own (op). Until the server has answered, that may be
// relied on only within the same segment (the messages up to a Sync): an error drops the rest of a segment, so there either
// all of it comes to pass or nothing does. What is Doubtful can always be closed and prepared anew: closing a statement
// that does not exist is no error.
type Held struct {
	index map[*Statement]int32
	slots []held
	order list

	// How many statements the segment that was the latest to close any has closed. They are gone for what follows in it.
	closes   int
	closesIn uint32
}

type held struct {
	st      *Statement
	op      uint32 // the latest Parse or Close that was sent
	segment uint32 // in which that was; 0: the server has confirmed the Parse
	closing bool   // it is a Close
	stale   uint32 // the statement's staleness when it was prepared
	catalog uint32 // the catalog's age when it was prepared
}

// noSegment is no segment that could be current.
const noSegment = ^uint32(0)

// Standing says whether a statement may be used on a server.
type Standing uint8

// What Held knows of a statement.
const (
	Missing  Standing = iota // has to be prepared
	Doubtful                 // may exist, or is stale: has to be closed and prepared
	Ready                    // may be used
)

// Len returns how many statements the server holds, counting those of which that is not known.
func (h *Held) Len() int { return len(h.index) }

// Standing reports on a statement for use in the given segment, and marks it as used.
func (h *Held) Standing(st *Statement, segment uint32) Standing {
	i, ok := h.index[st]
	if !ok {
		return Missing
	}
	h.order.touch(i)
	s := &h.slots[i]
	switch {
	case s.segment != 0 && s.segment != segment:
		return Doubtful
	case s.closing:
		return Missing
	case s.stale != st.stale.Load():
		return Doubtful
	}
	return Ready
}

// Fresh tells whether the statement was prepared since the catalog reached the given age. Standing must not be Missing.
func (h *Held) Fresh(st *Statement, catalog uint32) bool {
	return h.slots[h.index[st]].catalog == catalog
}

// Prepare notes that the statement's Parse is sent in a segment.
func (h *Held) Prepare(st *Statement, op, segment, catalog uint32) {
	h.put(h.slot(st), held{st: st, op: op, segment: segment, stale: st.stale.Load(), catalog: catalog})
}

// Close notes that a Close of the statement is sent in a segment.
func (h *Held) Close(st *Statement, op, segment uint32) {
	if h.closesIn != segment {
		h.closes, h.closesIn = 0, segment
	}
	h.put(h.slot(st), held{st: st, op: op, segment: segment, closing: true})
}

// put replaces what is in a slot.
func (h *Held) put(i int32, now held) {
	if h.gone(i) {
		h.closes--
	}
	h.slots[i] = now
	if h.gone(i) {
		h.closes++
	}
}

// gone tells whether the segment that was the latest to close any has closed this one.
func (h *Held) gone(i int32) bool { return h.slots[i].closing && h.slots[i].segment == h.closesIn }

// slot returns the statement's slot, the newest from now on.
func (h *Held) slot(st *Statement) int32 {
	i, ok := h.index[st]
	if ok {
		h.order.touch(i)
		return i
	}
	if h.index == nil {
		h.index = make(map[*Statement]int32)
	}
	i = h.order.add()
	for int(i) >= len(h.slots) {
		h.slots = append(h.slots, held{})
	}
	h.index[st] = i
	return i
}

// Done notes that the server has carried out a Parse or Close.
func (h *Held) Done(st *Statement, op uint32) {
	i, ok := h.index[st]
	switch {
	case !ok || h.slots[i].op != op: // a later one decides
	case h.slots[i].closing:
		h.Remove(st)
	default:
		h.slots[i].segment = 0
	}
}

// Skipped notes that the server has skipped a Parse or Close.
func (h *Held) Skipped(st *Statement, op uint32) {
	if i, ok := h.index[st]; ok && h.slots[i].op == op {
		now := h.slots[i]
		now.segment, now.closing = noSegment, false
		h.put(i, now)
	}
}

// Refused notes that the server has refused a Parse.
func (h *Held) Refused(st *Statement, op uint32) {
	if i, ok := h.index[st]; ok && h.slots[i].op == op {
		h.Remove(st)
	}
}

// Remove notes that the server does not hold the statement.
func (h *Held) Remove(st *Statement) {
	i, ok := h.index[st]
	if !ok {
		return
	}
	delete(h.index, st)
	h.put(i, held{})
	h.order.remove(i)
}

// Surplus returns a statement that has to be closed in the given segment before another is prepared there, so that the
// server never holds more than bound: the one that was used longest ago. It returns nil when there is room, and when those
// that are left could not be prepared again.
func (h *Held) Surplus(segment uint32, bound int) *Statement {
	held := len(h.index)
	if h.closesIn == segment {
		held -= h.closes
	}
	if held < bound {
		return nil
	}
	for range h.index {
		i := h.order.oldest()
		if one := &h.slots[i]; (!one.closing || one.segment != segment) && one.st.Kept() {
			return one.st
		}
		h.order.touch(i)
	}
	return nil
}

// Clear notes that the server holds none.
func (h *Held) Clear() { *h = Held{} }
