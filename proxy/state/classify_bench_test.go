package state

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkEffects reports processor time, which a busy machine does not change much.
func BenchmarkEffects(b *testing.B) {
	for _, test := range []struct{ name, sql string }{
		{"begin", "BEGIN"},
		{"select 1", "SELECT 1"},
		{"select", ordinary[0]},
		{"insert", ordinary[1]},
		{"update", ordinary[2]},
		{"delete", ordinary[3]},
	} {
		b.Run(test.name, func(b *testing.B) {
			text := []byte(test.sql)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			before := processorTime(b)
			for b.Loop() {
				Effects(text)
			}
			used := processorTime(b) - before
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/float64(len(text)), "cpu-ns/B")
		})
	}
}

// processorTime is what this thread has used.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano())
}
