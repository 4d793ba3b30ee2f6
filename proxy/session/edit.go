package session

// edit turns a buffer that was read into what is written: mostly the same bytes, with some cut out and some put in. As long
// as nothing is changed nothing is copied. All of it is one write in the end.
type edit struct {
	in   []byte // what was read
	from int    // where in begins that is not yet in out
	out  []byte // beginning of the result, if it differs
}

// cut leaves out in[from:to]. Calls go forward through the buffer.
func (e *edit) cut(from, to int) {
	e.upTo(from)
	e.from = to
}

// upTo takes over everything before a position, so that bytes can be appended to out there.
func (e *edit) upTo(at int) {
	if at > e.from {
		e.out = append(e.out, e.in[e.from:at]...)
		e.from = at
	}
}

// result returns the edited form of in[:end].
func (e *edit) result(end int) []byte {
	if len(e.out) == 0 {
		return e.in[min(e.from, end):end]
	}
	e.upTo(end)
	return e.out
}
