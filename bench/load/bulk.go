package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/bench/contender"
)

// bulkBytes is the payload of one bulk transfer: 100 MB.
const bulkBytes = 100_000_000

// bulkTimeout bounds one bulk transfer.
const bulkTimeout = 60 * time.Second

// Result is one client that reads 100 MB of rows by a simple query, again and again.
type Result struct {
	RowBytes int // size of a row's payload
}

// CopyIn is one client that sends 100 MB of rows by COPY, again and again. The server parses the rows and stores none.
type CopyIn struct {
	RowBytes int // size of a row, its newline included
}

// Run measures transfers for the runner's duration, at least one after the first, unmeasured one.
func (l Result) Run(ctx context.Context, r Runner, target *contender.Contender) (Sample, error) {
	// A set-returning function in the select list streams; in FROM it would fill a temporary file first.
	query := fmt.Sprintf("SELECT repeat('x', %d) FROM (SELECT generate_series(1, %d)) AS row", l.RowBytes, bulkBytes/l.RowBytes)
	return r.bulk(ctx, target, func(ctx context.Context, conn *pgconn.PgConn) (int64, error) {
		return readResult(ctx, conn, query)
	})
}

func readResult(ctx context.Context, conn *pgconn.PgConn, query string) (int64, error) {
	var received int64
	results := conn.Exec(ctx, query)
	for results.NextResult() {
		rows := results.ResultReader()
		for rows.NextRow() {
			received += int64(len(rows.Values()[0]))
		}
	}
	if err := results.Close(); err != nil {
		return 0, fmt.Errorf("read result: %w", err)
	}
	return received, nil
}

// Run measures transfers for the runner's duration, at least one after the first, unmeasured one.
func (l CopyIn) Run(ctx context.Context, r Runner, target *contender.Contender) (Sample, error) {
	rows := newRows(l.RowBytes)
	return r.bulk(ctx, target, func(ctx context.Context, conn *pgconn.PgConn) (int64, error) {
		rows.left = bulkBytes
		if _, err := conn.CopyFrom(ctx, rows, "COPY "+contender.CopyTable+" FROM STDIN WHERE false"); err != nil {
			return 0, fmt.Errorf("copy in: %w", err)
		}
		return bulkBytes, nil
	})
}

// rowReader yields rows of one text column without end but for left, which is a multiple of a row's size.
type rowReader struct {
	block []byte // whole rows
	left  int    // bytes still to be read
	next  int    // offset in block
}

func newRows(rowBytes int) *rowReader {
	const target = 64 << 10
	block := make([]byte, target/rowBytes*rowBytes)
	for i := range block {
		block[i] = 'x'
		if (i+1)%rowBytes == 0 {
			block[i] = '\n'
		}
	}
	return &rowReader{block: block}
}

// Read implements io.Reader.
func (r *rowReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.left)], r.block[r.next:])
	r.left -= n
	r.next = (r.next + n) % len(r.block)
	return n, nil
}

// bulk repeats a transfer over one connection. CPU time is that of a megabyte of payload.
func (r Runner) bulk(ctx context.Context, target *contender.Contender,
	transfer func(context.Context, *pgconn.PgConn) (int64, error),
) (Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Duration+2*bulkTimeout)
	defer cancel()
	m, err := r.newMeter(ctx, target)
	if err != nil {
		return nil, err
	}
	defer m.close()
	conn, err := target.Connect(ctx, false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := transfer(ctx, conn); err != nil {
		return nil, err
	}
	from, err := m.begin(ctx)
	if err != nil {
		return nil, err
	}
	var bytes int64
	var times []time.Duration
	for time.Since(from.at) < r.Duration {
		start := time.Now()
		n, err := transfer(ctx, conn)
		if err != nil {
			return nil, err
		}
		bytes += n
		times = append(times, time.Since(start))
	}
	to, err := m.end(ctx)
	if err != nil {
		return nil, err
	}
	if bytes < bulkBytes/2 {
		return nil, errors.New("transfer in bulk: fewer bytes than asked for")
	}
	megabytes := float64(bytes) / 1e6
	s := Sample{Throughput: megabytes / to.at.Sub(from.at).Seconds(), P50: percentiles(times, 0.5)[0]}
	m.cost(s, from, to, megabytes)
	return s, nil
}
