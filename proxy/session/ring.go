package session

// ring is an intrusive doubly linked list: its members carry the links, so that joining and leaving allocate nothing.
type ring[T any, P member[T]] struct {
	first P
	count int
}

type links[T any] struct{ next, prev *T }

type member[T any] interface {
	*T
	ringLinks() *links[T]
}

func (r *ring[T, P]) add(m P) {
	l := m.ringLinks()
	l.next, l.prev = r.first, nil
	if r.first != nil {
		r.first.ringLinks().prev = m
	}
	r.first = m
	r.count++
}

func (r *ring[T, P]) remove(m P) {
	l := m.ringLinks()
	if l.prev != nil {
		P(l.prev).ringLinks().next = l.next
	} else {
		r.first = l.next
	}
	if l.next != nil {
		P(l.next).ringLinks().prev = l.prev
	}
	l.next, l.prev = nil, nil
	r.count--
}

// each calls f with every member. f may remove the member that it is called with.
func (r *ring[T, P]) each(f func(P)) {
	for m := r.first; m != nil; {
		next := P(m.ringLinks().next)
		f(m)
		m = next
	}
}
