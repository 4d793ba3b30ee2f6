package loop

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkLoop_echo is one round trip over loopback: four system calls and two wake-ups, of which half are the loop's.
func BenchmarkLoop_echo(b *testing.B) {
	l, err := New(Config{})
	require.NoError(b, err)
	ended := make(chan error, 1)
	go func() { ended <- l.Run() }()
	ours, theirs := tcpPair(b)
	tr, err := Take(ours)
	require.NoError(b, err)
	p := &probe{}
	p.readable = p.echo
	l.Post(taskFunc(func() { _ = l.Attach(&p.conn, tr, p) }))
	message := make([]byte, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := theirs.Write(message); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(theirs, message); err != nil {
			b.Fatal(err)
		}
	}
	l.Stop()
	require.NoError(b, <-ended)
}

// BenchmarkTimer_rearm is what a timeout that never expires costs a transaction.
func BenchmarkTimer_rearm(b *testing.B) {
	l := wheelLoop(0)
	timers := make([]Timer, 5000)
	task := &countTask{}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		l.now += 1000
		l.Arm(&timers[i], 30*time.Second, task)
		if i++; i == len(timers) {
			i = 0
		}
	}
}

// BenchmarkPost is a task from another goroutine to a busy loop.
func BenchmarkPost(b *testing.B) {
	var box inbox
	var taken tasks
	task := &countTask{}
	b.ReportAllocs()
	for b.Loop() {
		box.put(task)
		box.take(&taken)
		taken.run()
	}
}
