package proxy

import (
	"runtime/debug"
	"sync"
	"time"
)

// rush gives memory back to the system when many clients have logged in: logins alone leave much garbage, and Go would keep
// its room. The zero value is useful.
type rush struct {
	mu struct { // held for the lines of over and login only
		sync.Mutex
		logins int
		calm   *time.Timer
	}
}

const (
	rushLogins = 100             // fewer leave nothing worth a collection
	rushOver   = time.Second / 2 // without a login
)

// login counts a login.
func (r *rush) login() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.logins++
	switch {
	case r.mu.logins < rushLogins:
	case r.mu.calm == nil:
		r.mu.calm = time.AfterFunc(rushOver, r.over)
	default:
		r.mu.calm.Reset(rushOver)
	}
}

// over runs on the timer's goroutine.
func (r *rush) over() {
	r.mu.Lock()
	r.mu.logins = 0
	r.mu.Unlock()
	debug.FreeOSMemory()
}
