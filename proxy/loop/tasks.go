package loop

import "sync"

// Task is something to be run on a loop's goroutine. A pointer is queued without an allocation.
type Task interface{ Run() }

// Later runs t after the callback that is under way and before the loop waits again, in the order of the calls. What a
// task queues in its turn is run in the next turn, after a look at the connections: no task can starve them.
func (l *Loop) Later(t Task) { l.later.push(t) }

// Post runs t on the loop's goroutine, in the order of the calls. Any goroutine may call it. It returns false when the
// loop has been stopped: then t will not be run, and what it carries is still the caller's.
func (l *Loop) Post(t Task) bool {
	accepted, asleep := l.inbox.put(t)
	if asleep {
		l.poller.wake()
	}
	return accepted
}

// runPosts runs what has been posted. It reports whether the loop has been stopped, in which case nothing more will come.
func (l *Loop) runPosts() (stopping bool) {
	stopping = l.inbox.take(&l.posted)
	l.posts.Add(uint64(len(l.posted.waiting)))
	l.posted.run()
	return stopping
}

// maxIdleTasks bounds the capacity that an empty queue holds on to, in tasks.
const maxIdleTasks = 4096

// tasks is a queue that is worked off in batches. Its two arrays take turns, so that it allocates only while it grows.
type tasks struct {
	waiting []Task
	running []Task
}

func (q *tasks) push(t Task) { q.waiting = append(q.waiting, t) }

func (q *tasks) empty() bool { return len(q.waiting) == 0 }

// run runs what is waiting now; tasks that are pushed meanwhile wait for the next call.
func (q *tasks) run() {
	if len(q.waiting) == 0 {
		return
	}
	q.waiting, q.running = q.running[:0], q.waiting
	for i, t := range q.running {
		q.running[i] = nil
		t.Run()
	}
	if cap(q.running) > maxIdleTasks {
		q.running = nil
	}
}

// inbox is where other goroutines leave tasks. Its lock is the only one that
// a loop takes while it serves; nothing blocks under it.
type inbox struct {
	mu       sync.Mutex
	tasks    []Task
	asleep   bool // The loop is blocked or about to be, and nobody has written to its wake-up descriptor yet.
	stopping bool
}

// put adds a task. It reports whether the task was accepted, and whether the caller has to wake the loop.
func (b *inbox) put(t Task) (accepted, asleep bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopping {
		return false, false
	}
	b.tasks = append(b.tasks, t)
	asleep, b.asleep = b.asleep, false
	return true, asleep
}

// take moves all tasks to an empty queue and reports whether the loop is to stop.
func (b *inbox) take(q *tasks) (stopping bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q.waiting, b.tasks = b.tasks, q.waiting
	b.asleep = false
	return b.stopping
}

// sleep announces that the loop is going to block. It reports false when the loop must not, as something has come in.
func (b *inbox) sleep() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asleep = len(b.tasks) == 0 && !b.stopping
	return b.asleep
}

// stop refuses further tasks. It reports whether the caller has to wake the loop.
func (b *inbox) stop() (asleep bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopping = true
	asleep, b.asleep = b.asleep, false
	return asleep
}
