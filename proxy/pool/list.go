package pool

import "iter"

// link makes its owner a member of at most one ring. It is embedded by value, so that queueing allocates nothing and
// removal needs no search.
type link[T any] struct {
	prev, next *link[T]
	owner      *T
}

// linked reports whether the owner is in a ring.
func (l *link[T]) linked() bool { return l.next != nil }

// ring is an intrusive doubly linked list. The zero value is an empty ring.
type ring[T any] struct {
	root link[T]
	n    int
}

func (r *ring[T]) front() *T {
	if r.n == 0 {
		return nil
	}
	return r.root.next.owner
}

func (r *ring[T]) back() *T {
	if r.n == 0 {
		return nil
	}
	return r.root.prev.owner
}

func (r *ring[T]) pushFront(l *link[T], owner *T) {
	r.open()
	r.insert(l, owner, &r.root)
}

func (r *ring[T]) pushBack(l *link[T], owner *T) {
	r.open()
	r.insert(l, owner, r.root.prev)
}

// pushBefore puts owner in front of the first member that follows says comes later, and at the end when there is none.
// It looks from the front, where the members that come back are.
func (r *ring[T]) pushBefore(l *link[T], owner *T, later func(*T) bool) {
	r.open()
	at := r.root.next
	for at != &r.root && !later(at.owner) {
		at = at.next
	}
	r.insert(l, owner, at.prev)
}

func (r *ring[T]) remove(l *link[T]) {
	l.prev.next, l.next.prev = l.next, l.prev
	*l = link[T]{}
	r.n--
}

// all walks from the front to the back. The member that the walk stands on may be removed.
func (r *ring[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if r.n == 0 {
			return
		}
		for l := r.root.next; l != &r.root; {
			next := l.next
			if !yield(l.owner) {
				return
			}
			l = next
		}
	}
}

// open closes the circle of a ring that has never held anything.
func (r *ring[T]) open() {
	if r.root.next == nil {
		r.root.next, r.root.prev = &r.root, &r.root
	}
}

func (r *ring[T]) insert(l *link[T], owner *T, after *link[T]) {
	l.owner = owner
	l.prev, l.next = after, after.next
	after.next.prev = l
	after.next = l
	r.n++
}
