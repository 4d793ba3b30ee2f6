package loop

import (
	"math/bits"
	"time"
)

// The timing wheel has five levels of 64 slots. A slot of level 0 lasts one tick, a slot of each further level as long as
// the whole level below. Arming puts a timer into the slot of its expiry on the lowest level that reaches so far; when
// time comes to a slot of a higher level, its timers move down. All of it together reaches 104 days; what lies beyond
// waits in the last slot and is put in again.
const (
	tickShift  = 23 // A tick is 2^23 ns, 8.4 ms.
	levelShift = 6
	levels     = 5
	slots      = 1 << levelShift
	reach      = 1 << (levels * levelShift) // Ticks.
)

// forever is the longest time that a timer is armed for, 146 years: a longer one could overflow.
const forever = time.Duration(1 << 62)

// Timer runs a task once after a while. It is embedded by value in what it belongs to; the zero value is ready. It belongs
// to the loop that it is armed on, and must not be copied while it is armed.
type Timer struct {
	next, prev *Timer // Neighbours in the slot's ring; nil when not armed.
	task       Task
	due        int64 // The tick of the expiry; in the head of a ring, the number of the slot.
}

// Armed reports whether the timer is going to run its task.
func (t *Timer) Armed() bool { return t.next != nil }

// Arm makes t run task once, d from now, and forgets what it was armed for before. It may be up to a tick (8.4 ms) and the
// length of the loop's turn late, and is never early by the loop's own clock (see Loop.Nanos).
func (l *Loop) Arm(t *Timer, d time.Duration, task Task) {
	l.wheel.remove(t)
	t.task = task
	d = min(d, forever)
	t.due = max(l.now>>tickShift+1, (l.now+int64(d)+1<<tickShift-1)>>tickShift)
	l.wheel.insert(t)
}

// Disarm makes t run nothing. It does nothing when t is not armed.
func (l *Loop) Disarm(t *Timer) { l.wheel.remove(t) }

// wheel holds a loop's armed timers.
type wheel struct {
	tick   int64                 // All timers that were due at this tick have been run.
	filled [levels]uint64        // One bit a slot that is not empty.
	heads  [levels * slots]Timer // Heads of the slots' rings.
	due    Timer                 // Head of the ring of those being run.
}

func (w *wheel) init(now int64) {
	w.tick = now >> tickShift
	for i := range w.heads {
		w.heads[i].clear(int64(i))
	}
	w.due.clear(-1)
}

// clear makes the head of an empty ring.
func (t *Timer) clear(slot int64) { t.next, t.prev, t.due = t, t, slot }

// insert puts a timer into the slot of its expiry, which is not before the wheel's tick.
func (w *wheel) insert(t *Timer) {
	at := min(t.due, w.tick+reach-1)
	level := max(0, bits.Len64(uint64(at-w.tick))-1) / levelShift
	index := at >> (level * levelShift) & (slots - 1)
	head := &w.heads[int64(level*slots)+index]
	t.prev, t.next = head.prev, head
	t.prev.next, head.prev = t, t
	w.filled[level] |= 1 << index
}

// remove takes a timer out of its slot, if it is in one.
func (w *wheel) remove(t *Timer) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	if head := t.next; head == t.prev && head.due >= 0 { // It was the only one of a slot.
		w.filled[head.due/slots] &^= 1 << (head.due % slots)
	}
	t.next, t.prev, t.task = nil, nil, nil
}

// next returns the time at which the wheel has something to do, in nanoseconds; ok is false when it has nothing.
func (w *wheel) next() (at int64, ok bool) {
	tick, ok := w.nextTick()
	return tick << tickShift, ok
}

// nextTick returns the first tick after the current one at which a slot that is not empty begins.
func (w *wheel) nextTick() (tick int64, ok bool) {
	for level, filled := range w.filled {
		if filled == 0 {
			continue
		}
		shift := level * levelShift
		current := w.tick >> shift
		ahead := bits.TrailingZeros64(bits.RotateLeft64(filled, -int((current+1)&(slots-1)))) + 1
		if t := (current + int64(ahead)) << shift; !ok || t < tick {
			tick, ok = t, true
		}
	}
	return tick, ok
}

// advance runs the timers that are due at the given time, in the order of their expiry.
func (w *wheel) advance(now int64) {
	end := now >> tickShift
	for {
		tick, ok := w.nextTick()
		if !ok || tick > end {
			break
		}
		w.tick = tick
		w.cascade()
		w.expire()
	}
	w.tick = max(w.tick, end)
}

// cascade moves the timers of the higher slots that begin at the wheel's tick down to where they now belong.
func (w *wheel) cascade() {
	for level := levels - 1; level > 0; level-- {
		shift := level * levelShift
		if w.tick&(1<<shift-1) != 0 {
			continue
		}
		w.take(level, w.tick>>shift&(slots-1))
		for t := w.due.next; t != &w.due; t = w.due.next {
			w.due.next, t.next.prev = t.next, &w.due
			w.insert(t)
		}
	}
}

// expire runs the timers of the slot that the wheel's tick is. A task may disarm any of the others, and arm any again.
func (w *wheel) expire() {
	w.take(0, w.tick&(slots-1))
	for t := w.due.next; t != &w.due; t = w.due.next {
		task := t.task
		w.remove(t)
		task.Run()
	}
}

// take moves the ring of a slot to the due ring, which is empty.
func (w *wheel) take(level int, index int64) {
	head := &w.heads[int64(level*slots)+index]
	w.filled[level] &^= 1 << index
	if head.next == head {
		return
	}
	w.due.next, w.due.prev = head.next, head.prev
	w.due.next.prev, w.due.prev.next = &w.due, &w.due
	head.next, head.prev = head, head
}
