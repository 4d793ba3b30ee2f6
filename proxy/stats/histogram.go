package stats

import "time"

// numBounds is the number of finite buckets: 1, 2.5 and 5 times each power of ten from 100 µs to 10 s, which is where a
// pooler's waits and transactions fall.
const numBounds = 16

// Bounds returns the upper bounds of the histograms' finite buckets, inclusive and ascending.
func Bounds() [numBounds]time.Duration {
	return [numBounds]time.Duration{
		100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
		time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
		10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
		100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
		time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
	}
}

// Histogram counts durations in fixed buckets. One goroutine writes it, any goroutine may read it; it never
// allocates, and the zero value is ready.
type Histogram struct {
	counts [numBounds + 1]Counter // The last one takes what is above all bounds.
	sum    Counter                // Nanoseconds.
}

// Observe counts d; a negative d, which a clock may yield, counts as zero. Only the histogram's writer may call it.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Inc()
	h.sum.Add(uint64(d))
}

// bucket returns the index of the first bound that is not below d. It scans from the smallest: most durations are
// found within the first few.
func bucket(d time.Duration) int {
	bounds := Bounds()
	for i := range bounds {
		if d <= bounds[i] {
			return i
		}
	}
	return numBounds
}

// Distribution is what a Histogram held when it was read, or the sum of several.
type Distribution struct {
	Buckets [numBounds + 1]uint64 // Per bucket, not cumulative; the bounds are Bounds(), the last bucket has none.
	Sum     time.Duration
}

// Count returns how many durations were observed.
func (d *Distribution) Count() uint64 {
	var n uint64
	for _, b := range d.Buckets {
		n += b
	}
	return n
}

// AddTo adds what the histogram holds to d. Any goroutine may call it.
func (h *Histogram) AddTo(d *Distribution) {
	for i := range h.counts {
		d.Buckets[i] += h.counts[i].Load()
	}
	d.Sum += time.Duration(h.sum.Load())
}
