package stats

import (
	"cmp"
	"slices"
	"sync"
)

// Origin says who made an error.
type Origin uint8

// The origins of an error that a client was told.
const (
	FromServer Origin = iota // PostgreSQL sent the ErrorResponse.
	FromProxy                // The proxy made it.
)

// String returns the word used in labels.
func (o Origin) String() string {
	if o == FromProxy {
		return "proxy"
	}
	return "server"
}

// maxErrorKinds bounds the map of ErrorCounts: PostgreSQL has some 260 codes, but functions may raise any they like.
const maxErrorKinds = 300

// otherState stands for codes that came after the map was full and for texts that are no SQLSTATE.
const otherState = "other"

// ErrorCount is how often clients were told one SQLSTATE by one origin.
type ErrorCount struct {
	SQLState string // Five characters, or "other".
	Origin   Origin
	Count    uint64
}

// ErrorCounts counts ErrorResponses by SQLSTATE. Any goroutine may use it; the zero value is ready. It is for the slow
// path, as it takes a lock.
type ErrorCounts struct {
	mu struct { // Held for a map access, never over I/O.
		sync.Mutex
		kinds map[errorKind]*uint64
	}
}

type errorKind struct {
	state  string
	origin Origin
}

// Add counts one error. The state need not be valid; bytes may be reused after the call.
func (e *ErrorCounts) Add(state []byte, origin Origin) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.mu.kinds[errorKind{string(state), origin}]; n != nil { // A look-up converts without allocating.
		*n++
		return
	}
	kind := errorKind{otherState, origin}
	if validState(state) && len(e.mu.kinds) < maxErrorKinds {
		kind.state = string(state)
	}
	n := e.mu.kinds[kind]
	if n == nil {
		if e.mu.kinds == nil {
			e.mu.kinds = make(map[errorKind]*uint64)
		}
		n = new(uint64)
		e.mu.kinds[kind] = n
	}
	*n++
}

// validState reports whether state is five upper case letters or digits, as the SQL standard wants it.
func validState(state []byte) bool {
	if len(state) != 5 {
		return false
	}
	for _, c := range state {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}

// Snapshot returns the counts, ordered by state and origin.
func (e *ErrorCounts) Snapshot() []ErrorCount {
	e.mu.Lock()
	counts := make([]ErrorCount, 0, len(e.mu.kinds))
	for kind, n := range e.mu.kinds {
		counts = append(counts, ErrorCount{kind.state, kind.origin, *n})
	}
	e.mu.Unlock()
	slices.SortFunc(counts, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(a.SQLState, b.SQLState), cmp.Compare(a.Origin, b.Origin))
	})
	return counts
}
