package loop

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const tick = int64(1) << tickShift

// wheelLoop returns a loop that has only timers, at a time of the test's choice.
func wheelLoop(now int64) *Loop {
	l := &Loop{now: now}
	l.wheel.init(now)
	return l
}

func (l *Loop) advanceTo(now int64) {
	l.now = now
	l.wheel.advance(now)
}

func TestTimer_expiries_runInOrderAndNeverEarly(t *testing.T) {
	l := wheelLoop(12345 * tick)
	base := l.now
	var order []int
	timers := make([]Timer, 6)
	for i, d := range []time.Duration{50 * time.Hour, time.Millisecond, 3 * time.Second, 0, 10 * time.Minute, 600 * time.Millisecond} {
		l.Arm(&timers[i], d, taskFunc(func() {
			order = append(order, i)
			if early := base + int64(d) - l.now; early > 0 {
				t.Errorf("%v came %v early", d, time.Duration(early))
			}
		}))
	}
	for range 60 * 60 {
		l.advanceTo(l.now + int64(time.Minute))
	}
	require.Equal(t, []int{1, 3, 5, 2, 4, 0}, order)
}

func TestTimer_expiry_isAtMostATickLate(t *testing.T) {
	for _, d := range []time.Duration{
		0, 1, 10 * time.Millisecond, time.Second, time.Minute, time.Hour,
		26 * time.Hour, 30 * 24 * time.Hour, 104 * 24 * time.Hour, 400 * 24 * time.Hour,
	} {
		l := wheelLoop(tick*(1<<31) - 7)
		begin := l.now
		var timer Timer
		count := &countTask{}
		l.Arm(&timer, d, count)
		wakeups := 0
		for count.runs == 0 {
			at, ok := l.wheel.next()
			require.True(t, ok)
			require.Greater(t, at, l.now, "the loop would spin")
			l.advanceTo(at)
			wakeups++
		}
		late := l.now - begin - int64(d)
		require.GreaterOrEqual(t, late, int64(0), d)
		require.LessOrEqual(t, late, 2*tick, d)
		require.LessOrEqual(t, wakeups, levels+5, d)
		require.False(t, timer.Armed())
	}
}

func TestTimer_armedAgain_runsOnceAtTheNewTime(t *testing.T) {
	l := wheelLoop(0)
	var timer Timer
	first, second := &countTask{}, &countTask{}
	l.Arm(&timer, time.Second, first)
	l.advanceTo(int64(900 * time.Millisecond))
	l.Arm(&timer, time.Second, second)
	l.advanceTo(int64(1800 * time.Millisecond))
	require.Zero(t, second.runs)
	l.advanceTo(int64(10 * time.Second))
	require.Zero(t, first.runs)
	require.Equal(t, 1, second.runs)
}

func TestTimer_disarmed_leavesNothingToWakeFor(t *testing.T) {
	l := wheelLoop(0)
	var a, b Timer
	l.Disarm(&a)
	count := &countTask{}
	for _, d := range []time.Duration{time.Millisecond, time.Second, time.Hour, 400 * 24 * time.Hour} {
		l.Arm(&a, d, count)
		l.Arm(&b, d, count)
		require.True(t, a.Armed())
		l.Disarm(&a)
		_, ok := l.wheel.next()
		require.True(t, ok)
		l.Disarm(&b)
		l.Disarm(&b)
		require.False(t, b.Armed())
		_, ok = l.wheel.next()
		require.False(t, ok)
	}
	l.advanceTo(int64(500 * 24 * time.Hour))
	require.Zero(t, count.runs)
}

func TestTimer_taskOfTheSameTick_mayDisarmAndArmOthers(t *testing.T) {
	l := wheelLoop(0)
	var a, b, c Timer
	bRuns, cRuns := &countTask{}, &countTask{}
	aRuns := 0
	var task taskFunc
	task = func() {
		if aRuns++; aRuns == 1 {
			l.Disarm(&b)
			l.Arm(&a, 0, task) // Not in this pass, or it would never end.
		}
	}
	l.Arm(&a, time.Second, task)
	l.Arm(&b, time.Second, bRuns)
	l.Arm(&c, time.Second, cRuns)
	l.advanceTo(int64(1100 * time.Millisecond))
	require.Equal(t, 1, aRuns)
	require.Zero(t, bRuns.runs)
	require.Equal(t, 1, cRuns.runs)
	l.advanceTo(l.now + tick)
	require.Equal(t, 2, aRuns)
}

// A random walk over arming, disarming and the passage of time, compared with a plain list.
func TestTimer_randomWalk_agreesWithAList(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	l := wheelLoop(r.Int64N(1 << 50))
	type entry struct {
		timer Timer
		due   int64 // 0 when not armed.
		ran   bool
	}
	entries := make([]entry, 200)
	span := func(bits int) int64 { return r.Int64N(int64(1) << (10 + r.IntN(bits))) }
	for range 20000 {
		switch e := &entries[r.IntN(len(entries))]; r.IntN(4) {
		case 0, 1:
			d := span(46)
			l.Arm(&e.timer, time.Duration(d), taskFunc(func() { e.ran = true }))
			e.due = max(l.now>>tickShift+1, (l.now+d+tick-1)>>tickShift)
		case 2:
			l.Disarm(&e.timer)
			e.due = 0
		default:
			l.advanceTo(l.now + span(40))
			for i := range entries {
				e := &entries[i]
				expired := e.due != 0 && e.due <= l.now>>tickShift
				if e.ran != expired || e.timer.Armed() != (e.due != 0 && !expired) {
					t.Fatalf("timer %d: due at %d, now %d, ran %v, armed %v", i, e.due, l.now>>tickShift, e.ran, e.timer.Armed())
				}
				if expired {
					e.due, e.ran = 0, false
				}
			}
		}
	}
}

func TestTimer_armAndDisarm_allocateNothing(t *testing.T) {
	l := wheelLoop(0)
	var timer Timer
	task := &countTask{}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		l.Arm(&timer, time.Minute, task)
		l.Disarm(&timer)
		l.Arm(&timer, 0, task)
		l.advanceTo(l.now + tick)
	}))
}

func TestTimer_onALoop_runsInTimeAndInOrder(t *testing.T) {
	l := start(t, Config{})
	var order []time.Duration
	done := make(chan struct{})
	begin := Nanos()
	delays := []time.Duration{120 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond}
	timers := make([]Timer, len(delays))
	on(t, l, func() {
		for i, d := range delays {
			l.Arm(&timers[i], d, taskFunc(func() {
				if order = append(order, d); len(order) == len(delays) {
					close(done)
				}
			}))
		}
	})
	receive(t, done)
	require.True(t, slices.IsSorted(order))
	require.GreaterOrEqual(t, Nanos()-begin, int64(115*time.Millisecond))
	require.LessOrEqual(t, l.Stats().Wakeups, uint64(12), "the loop wakes for timers that are not due")
}

func TestTimer_withTheTestsClock_runsAfterDays(t *testing.T) {
	l, err := New(Config{})
	require.NoError(t, err)
	var clock atomic.Int64
	l.clock = clock.Load
	l.now = 0
	l.wheel.init(0)
	run(t, l)
	var timer Timer
	task := &countTask{}
	on(t, l, func() { l.Arm(&timer, 48*time.Hour, task) })
	clock.Store(int64(47 * time.Hour))
	on(t, l, func() {})
	var runs int
	on(t, l, func() { runs = task.runs })
	require.Zero(t, runs)
	clock.Store(int64(49 * time.Hour))
	on(t, l, func() {})
	var now int64
	on(t, l, func() { runs, now = task.runs, l.Nanos() })
	require.Equal(t, 1, runs)
	require.EqualValues(t, 49*time.Hour, now)
}

func TestTimer_armedForEver_doesNotOverflow(t *testing.T) {
	l := wheelLoop(1 << 60)
	var timer Timer
	task := &countTask{}
	l.Arm(&timer, math.MaxInt64, task)
	l.advanceTo(l.now + int64(10*365*24*time.Hour))
	require.Zero(t, task.runs)
	require.True(t, timer.Armed())
	l.Arm(&timer, math.MinInt64, task)
	l.advanceTo(l.now + tick)
	require.Equal(t, 1, task.runs)
}
