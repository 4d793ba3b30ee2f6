package router

import "pgsidecar/router/probe"

// appointment is an operator's decision about who is going to be the primary.
type appointment struct {
	name string
	upTo probe.LSN
}

// Appoint says that an operator is making a target the primary, until the function that it returns is called: no other target is
// accepted anew, whatever sources say, and the present primary only until the appointed one has been seen to be one. upTo bounds what
// the present one has written on behalf of anybody, as nobody can write there any more; 0: that is not known, and what the next one
// lacks is judged as ever. One appointment is in force at a time.
func (r *Router) Appoint(name string, upTo probe.LSN) (end func()) {
	a := &appointment{name: name, upTo: upTo}
	r.appointed.Store(a)
	r.Look()
	return func() {
		r.appointed.CompareAndSwap(a, nil)
		r.Look()
	}
}
