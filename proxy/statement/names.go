package statement

// Names maps a client's own statement names to statements, up to a bound: beyond it the name that was used longest ago
// is forgotten, and the client gets the server's "does not exist" for it. Zero value: empty. Not safe for concurrent use.
type Names struct {
	index map[string]int32
	slots []name
	order list
}

type name struct {
	name string
	st   *Statement
}

// Len returns the number of names.
func (n *Names) Len() int { return len(n.index) }

// Get returns the statement that the client calls key, or nil.
func (n *Names) Get(key []byte) *Statement {
	st, _ := n.Find(key)
	return st
}

// Find is Get, and returns the key as a string that may be kept, without making one.
func (n *Names) Find(key []byte) (*Statement, string) {
	i, ok := n.index[string(key)]
	if !ok {
		return nil, ""
	}
	n.order.touch(i)
	return n.slots[i].st, n.slots[i].name
}

// Put names a statement. It forgets the oldest name when there are more
// than bound (0: no bound).
func (n *Names) Put(key string, st *Statement, bound int) {
	if i, ok := n.index[key]; ok {
		n.slots[i].st = st
		n.order.touch(i)
		return
	}
	if bound > 0 && len(n.index) >= bound {
		n.Delete(n.slots[n.order.oldest()].name)
	}
	if n.index == nil {
		n.index = make(map[string]int32)
	}
	i := n.order.add()
	for int(i) >= len(n.slots) {
		n.slots = append(n.slots, name{})
	}
	n.slots[i] = name{name: key, st: st}
	n.index[key] = i
}

// Delete forgets a name.
func (n *Names) Delete(key string) {
	i, ok := n.index[key]
	if !ok {
		return
	}
	delete(n.index, key)
	n.slots[i] = name{}
	n.order.remove(i)
}

// Clear forgets all names.
func (n *Names) Clear() { *n = Names{} }

// All calls f with each name until it returns false.
func (n *Names) All(f func(key string, st *Statement) bool) {
	for key, i := range n.index {
		if !f(key, n.slots[i].st) {
			return
		}
	}
}

// InOrder calls f with each name, the one that was used longest ago first.
func (n *Names) InOrder(f func(key string, st *Statement)) {
	for i := n.order.oldest(); i != 0; i = n.order.links[i].newer {
		f(n.slots[i].name, n.slots[i].st)
	}
}
