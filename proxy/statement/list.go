package statement

// list orders slots 1..n by their last use, as a ring of links between their numbers. Slot 0 is the anchor: older than it is
// the newest slot, newer than it the oldest. It holds no values, so that its two users can each keep what they need in a
// slice beside it.
type list struct {
	links []link
	free  []int32
}

type link struct{ newer, older int32 }

// add makes a slot the newest and returns its number: one that was removed before, or the next higher one.
func (l *list) add() int32 {
	var i int32
	if n := len(l.free); n > 0 {
		i, l.free = l.free[n-1], l.free[:n-1]
	} else {
		if len(l.links) == 0 {
			l.links = append(l.links, link{})
		}
		i = int32(len(l.links))
		l.links = append(l.links, link{})
	}
	l.insert(i)
	return i
}

func (l *list) insert(i int32) {
	newest := l.links[0].older
	l.links[i] = link{newer: 0, older: newest}
	l.links[newest].newer = i
	l.links[0].older = i
}

func (l *list) unlink(i int32) {
	at := l.links[i]
	l.links[at.newer].older = at.older
	l.links[at.older].newer = at.newer
}

// touch makes a slot the newest.
func (l *list) touch(i int32) {
	if l.links[0].older != i {
		l.unlink(i)
		l.insert(i)
	}
}

func (l *list) remove(i int32) {
	l.unlink(i)
	l.free = append(l.free, i)
}

// oldest returns the slot whose last use is longest ago, 0 if there is none.
func (l *list) oldest() int32 {
	if len(l.links) == 0 {
		return 0
	}
	return l.links[0].newer
}
