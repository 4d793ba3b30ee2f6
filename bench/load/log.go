package load

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// transaction is one line of pgbench's transaction log.
type transaction struct {
	client  int
	end     time.Time
	latency time.Duration // without the connection that pgbench -C opens for it
}

// readLogs reads the logs of all threads of one pgbench; each is in order of time.
func readLogs(prefix string) ([]transaction, error) {
	files, err := filepath.Glob(prefix + ".*")
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	var all []transaction
	for _, file := range files {
		if all, err = appendLog(all, file); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func appendLog(all []transaction, path string) ([]transaction, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() { _ = file.Close() }()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		t, err := parseTransaction(lines.Text())
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return all, nil
}

// parseTransaction reads "client_id transaction_no time script_no time_epoch time_us ...", times in microseconds but
// time_epoch, which is in seconds (pgbench's documentation, per-transaction logging).
func parseTransaction(line string) (transaction, error) {
	fields := strings.Fields(line)
	if len(fields) < 6 {
		return transaction{}, fmt.Errorf("parse log: too few fields: %q", line)
	}
	var numbers [6]int64
	for i := range numbers {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return transaction{}, fmt.Errorf("parse log: %w", err)
		}
		numbers[i] = n
	}
	return transaction{
		client:  int(numbers[0]),
		end:     time.Unix(numbers[4], numbers[5]*int64(time.Microsecond)),
		latency: time.Duration(numbers[2]) * time.Microsecond,
	}, nil
}

// within keeps the transactions that ended in (from, to], and demands that transactions ended before and after that time too:
// else it would not have been a measurement of a running load.
func within(all []transaction, from, to time.Time) ([]transaction, error) {
	var kept []transaction
	before, after := false, false
	for _, t := range all {
		switch {
		case t.end.After(to):
			after = true
		case t.end.After(from):
			kept = append(kept, t)
		default:
			before = true
		}
	}
	if !before || !after || len(kept) == 0 {
		return nil, errors.New("read log: the load did not run throughout the measurement")
	}
	return kept, nil
}

// cycles replaces the latency of each transaction by the time since the one before it of the same client has ended, which
// is what a transaction takes that opens its own connection. A client's first one is left out.
func cycles(all []transaction) []transaction {
	last := map[int]time.Time{}
	kept := all[:0]
	for _, t := range all {
		previous, found := last[t.client]
		last[t.client] = t.end
		if found {
			t.latency = t.end.Sub(previous)
			kept = append(kept, t)
		}
	}
	return kept
}

// percentiles are the latencies, in microseconds, below which the given shares (0 to 1) of the transactions lie.
func percentiles(all []time.Duration, shares ...float64) []float64 {
	values := make([]float64, len(shares))
	if len(all) == 0 {
		return values
	}
	slices.Sort(all)
	for i, share := range shares {
		rank := min(int(share*float64(len(all))), len(all)-1)
		values[i] = float64(all[rank].Nanoseconds()) / float64(time.Microsecond)
	}
	return values
}
