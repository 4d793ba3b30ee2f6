package proxy

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

// memory tells whether so much is in use that another client might be one too many. Logins ask it, loops never.
//
// What counts is what the last collection found alive, as garbage makes room: only what is nearly the limit is looked at
// more closely, by a collection. That costs, so it is done once in a while only, and by one at a time.
type memory struct {
	used    func() int64 // Bytes that no collection would free.
	limit   func() int64 // Bytes; math.MaxInt64 is none.
	collect func()

	mu struct { // Held over a collection: whoever finds it held takes the last answer.
		sync.Mutex
		next time.Time // Until then the last answer holds.
	}
	last struct {
		sync.Mutex
		full bool
	}
}

// How long an answer holds. A collection of a heap of 100 MB takes some 50 ms of one CPU.
const (
	roomHolds = 100 * time.Millisecond
	fullHolds = time.Second
)

// newMemory returns what looks at this process.
func newMemory() *memory {
	return &memory{used: memoryInUse, limit: func() int64 { return debug.SetMemoryLimit(-1) }, collect: runtime.GC}
}

// full reports whether the percentage of the limit is in use; 0 never is.
func (m *memory) full(percent int) bool {
	if percent == 0 {
		return false
	}
	if m.mu.TryLock() {
		if now := time.Now(); !now.Before(m.mu.next) {
			m.look(now, percent)
		}
		m.mu.Unlock()
	}
	m.last.Lock()
	defer m.last.Unlock()
	return m.last.full
}

// look finds the answer anew.
func (m *memory) look(now time.Time, percent int) {
	limit, full := m.limit(), false
	if limit < math.MaxInt64 {
		most := limit / 100 * int64(percent)
		if full = m.used() >= most; full {
			m.collect()
			full = m.used() >= most
		}
	}
	m.mu.next = now.Add(roomHolds)
	if full {
		m.mu.next = now.Add(fullHolds)
	}
	m.last.Lock()
	m.last.full = full
	m.last.Unlock()
}

// memoryInUse returns what counts against the memory limit, less garbage and free parts of the heap.
func memoryInUse() int64 {
	samples := []metrics.Sample{
		{Name: "/memory/classes/total:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/released:bytes"}, // From here on what does not count.
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, // With garbage; those alive are counted above.
	}
	metrics.Read(samples)
	var used int64
	for i, s := range samples {
		if s.Value.Kind() != metrics.KindUint64 {
			continue // A Go release that does not know it; the rest is still something.
		}
		if i < 2 {
			used += int64(s.Value.Uint64())
		} else {
			used -= int64(s.Value.Uint64())
		}
	}
	return used
}
