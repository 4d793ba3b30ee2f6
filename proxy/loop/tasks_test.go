package loop

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPost_fromManyGoroutines_runsAllInOrder(t *testing.T) {
	l := start(t, Config{})
	const posters, each = 16, 2000
	var next [posters]int
	ran, inOrder := 0, true
	var wg sync.WaitGroup
	for p := range posters {
		wg.Go(func() {
			for i := range each {
				if !l.Post(taskFunc(func() {
					inOrder = inOrder && next[p] == i
					next[p] = i + 1
					ran++
				})) {
					t.Error("refused while running")
				}
			}
		})
	}
	wg.Wait()
	on(t, l, func() {})
	require.Equal(t, posters*each, ran)
	require.True(t, inOrder)
	require.EqualValues(t, posters*each+1, l.Stats().Posts)
}

func TestPost_toBlockedLoop_wakesItEveryTime(t *testing.T) {
	l := start(t, Config{})
	for range 1000 {
		settled(t, l)
		on(t, l, func() {})
	}
}

func TestPost_beforeRun_isRun(t *testing.T) {
	l, err := New(Config{})
	require.NoError(t, err)
	done := make(chan struct{})
	require.True(t, l.Post(taskFunc(func() { close(done) })))
	run(t, l)
	receive(t, done)
}

func TestPost_acceptedBeforeStop_isRunAndLaterOnesAreRefused(t *testing.T) {
	l, err := New(Config{})
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	release := hold(t, l)
	ran, lateRan := 0, false
	for range 3 {
		require.True(t, l.Post(taskFunc(func() {
			ran++
			l.Later(taskFunc(func() { ran++ }))
		})))
	}
	l.Stop()
	require.False(t, l.Post(taskFunc(func() { lateRan = true })))
	release()
	require.NoError(t, receive(t, ended))
	require.Equal(t, 6, ran)
	require.False(t, l.Post(taskFunc(func() { lateRan = true })))
	require.False(t, lateRan)
}

func TestPost_racingWithStop_runsExactlyWhatWasAccepted(t *testing.T) {
	for range 50 {
		l, err := New(Config{})
		require.NoError(t, err)
		ended := make(chan error, 1)
		go func() { ended <- l.Run() }()
		var wg sync.WaitGroup
		var accepted [4]int
		var ran [4]int
		for p := range accepted {
			wg.Go(func() {
				for l.Post(taskFunc(func() { ran[p]++ })) {
					accepted[p]++
					if accepted[p] == 20 && p == 0 {
						l.Stop()
					}
				}
			})
		}
		wg.Wait()
		require.NoError(t, receive(t, ended))
		require.Equal(t, accepted, ran)
	}
}

func TestLater_tasks_runInOrderAfterTheCallback(t *testing.T) {
	l := start(t, Config{})
	var order []int
	done := make(chan struct{})
	on(t, l, func() {
		l.Later(taskFunc(func() {
			order = append(order, 1)
			l.Later(taskFunc(func() { order = append(order, 3); close(done) }))
		}))
		l.Later(taskFunc(func() { order = append(order, 2) }))
		order = append(order, 0)
	})
	receive(t, done)
	require.Equal(t, []int{0, 1, 2, 3}, order)
}

func TestLater_taskThatRequeuesItself_starvesNobody(t *testing.T) {
	l := start(t, Config{})
	ours, theirs := tcpPair(t)
	startEcho(t, l, ours)
	spinning, turns := true, 0
	var spin taskFunc
	spin = func() {
		if turns++; spinning {
			l.Later(spin)
		}
	}
	var before Stats
	on(t, l, func() { l.Later(spin); before = l.Stats() })
	for range 20 {
		exchange(t, theirs, "still served")
	}
	var after Stats
	var spun int
	on(t, l, func() { spinning, spun, after = false, turns, l.Stats() })
	require.Equal(t, before.Wakeups, after.Wakeups, "it must not block while a task waits")
	require.Greater(t, spun, 20)
}

func TestTasks_afterALargeBurst_letTheMemoryGo(t *testing.T) {
	var q tasks
	for range 2 * maxIdleTasks {
		q.push(&countTask{})
	}
	q.run()
	require.Nil(t, q.running)
}
