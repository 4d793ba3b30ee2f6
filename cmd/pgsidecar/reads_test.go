package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// laggards are standbys of which one replays commits late, and the other in jerks.
func laggards(t *testing.T, primary *pgtest.Cluster) (late, jerky *pgtest.Cluster) {
	return primary.Standby(t, map[string]string{"recovery_min_apply_delay": "40ms"}), primary.Standby(t, nil)
}

// jerk lets a standby replay for short moments only, until ctx ends.
func jerk(ctx context.Context, t *testing.T, standby *pgtest.Cluster) {
	conn, err := pgx.Connect(ctx, standby.SocketURL("postgres", pgtest.Superuser))
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for paused := false; ; paused = !paused {
		sql := "select pg_wal_replay_pause()"
		if paused {
			sql = "select pg_wal_replay_resume()"
		}
		_, err := conn.Exec(context.Background(), sql)
		require.NoError(t, err)
		select {
		case <-ctx.Done():
			_, _ = conn.Exec(context.Background(), "select pg_wal_replay_resume()")
			return
		case <-tick.C:
		}
	}
}

// tries counts what clients have read, and where.
type tries struct{ all, onStandby atomic.Int64 }

// read returns a counter as a client sees it, in a transaction that says that it is read-only, or just so.
func (n *tries) read(conn *pgx.Conn, id int) (value int, err error) {
	sql := fmt.Sprintf("select n, pg_is_in_recovery() from counters where id = %d", id)
	if n.all.Load()%2 == 0 {
		sql = "begin read only; " + sql + "; commit"
	}
	results, err := conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		return 0, err
	}
	row := results[len(results)/2].Rows[0]
	n.all.Add(1)
	if string(row[1]) == "t" {
		n.onStandby.Add(1)
	}
	return strconv.Atoi(string(row[0]))
}

// duration is how long the tests of reads try: PGSIDECAR_READS, or a few seconds.
func duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("PGSIDECAR_READS")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// enough is how many reads on standbys show something.
const enough = 30

// staleReads has clients write and read until the time is over, and at least as long as nobody has read enough from standbys. Each
// of them returns the first thing that should not be.
func staleReads(t *testing.T, clients ...func(ctx context.Context, n *tries) error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var n tries
	var running sync.WaitGroup
	faults := make(chan error, len(clients))
	for _, client := range clients {
		running.Go(func() {
			if err := client(ctx, &n); err != nil {
				faults <- err
				stop()
			}
		})
	}
	end := time.Now().Add(duration(t))
	awaitThat(t, "standbys are read from", func() bool {
		return ctx.Err() != nil || (time.Now().After(end) && n.onStandby.Load() >= enough) || time.Now().After(end.Add(50*time.Second))
	})
	stop()
	running.Wait()
	t.Logf("%d reads, %d of them on standbys", n.all.Load(), n.onStandby.Load())
	select {
	case err := <-faults:
		require.NoError(t, err)
	default:
	}
	require.GreaterOrEqual(t, n.onStandby.Load(), int64(enough), "else nothing is shown")
}

// pause rests for up to a while, so that clients meet standbys in every state.
func pause(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// ownWrites is a client that writes a counter of its own, and reads it a few times, with and without pauses.
func ownWrites(t *testing.T, to string, id int) func(ctx context.Context, n *tries) error {
	conn := pgtest.Connect(t, to)
	return func(ctx context.Context, n *tries) error {
		for written := 1; ctx.Err() == nil; written++ {
			if _, err := conn.Exec(context.Background(), "update counters set n = $2 where id = $1", id, written); err != nil {
				return err
			}
			for range rand.IntN(12) {
				value, err := n.read(conn, id)
				if err != nil {
					return err
				}
				if value != written {
					return fmt.Errorf("client %d wrote %d and reads %d", id, written, value)
				}
				if rand.IntN(3) == 0 {
					pause(ctx, 150*time.Millisecond)
				}
			}
		}
		return nil
	}
}

// monotonic is a client that reads a counter which only grows.
func monotonic(t *testing.T, to string, id int) func(ctx context.Context, n *tries) error {
	conn := pgtest.Connect(t, to)
	return func(ctx context.Context, n *tries) error {
		for last := 0; ctx.Err() == nil; {
			value, err := n.read(conn, id)
			if err != nil {
				return err
			}
			if value < last {
				return fmt.Errorf("the counter was %d and is %d", last, value)
			}
			last = value
			if rand.IntN(10) == 0 {
				pause(ctx, 20*time.Millisecond)
			}
		}
		return nil
	}
}

// count is a client that makes a counter grow.
func count(t *testing.T, to string, id int) func(ctx context.Context, n *tries) error {
	conn := pgtest.Connect(t, to)
	return func(ctx context.Context, _ *tries) error {
		for ctx.Err() == nil {
			if _, err := conn.Exec(context.Background(), "update counters set n = n + 1 where id = $1", id); err != nil {
				return err
			}
			pause(ctx, 4*time.Millisecond)
		}
		return nil
	}
}

// handOn is a client that writes, and another one that reads what the first has been told is committed.
func handOn(t *testing.T, write, read string, id int) func(ctx context.Context, n *tries) error {
	writer, reader := pgtest.Connect(t, write), pgtest.Connect(t, read)
	return func(ctx context.Context, n *tries) error {
		for written := 1; ctx.Err() == nil; written++ {
			if _, err := writer.Exec(context.Background(), "update counters set n = $2 where id = $1", id, written); err != nil {
				return err
			}
			for range rand.IntN(6) {
				value, err := n.read(reader, id)
				if err != nil {
					return err
				}
				if value < written {
					return fmt.Errorf("%d was committed before and %d is read", written, value)
				}
				pause(ctx, 200*time.Millisecond)
			}
		}
		return nil
	}
}

func TestReads_standbysThatLag_nobodyReadsWhatIsStale(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	late, jerky := laggards(t, primary)
	primary.Exec(t, "create table counters (id int primary key, n int not null)")
	primary.Exec(t, "insert into counters select id, 0 from generate_series(1, 20) as id")
	primary.WaitForStandby(t, late)
	primary.WaitForStandby(t, jerky)
	jerking, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { jerk(jerking, t, jerky); close(ended) }()
	t.Cleanup(func() { stop(); <-ended })

	t.Run("session", func(t *testing.T) {
		f := follow(t, "reads: {read_only_transactions: true}", primary, late, jerky)
		awaitReading(t, f, 2)
		prefer, only, whichever := f.url+"&pgsidecar.route=prefer-standby", f.url+"&pgsidecar.route=standby", f.url+"&pgsidecar.route=any"
		auto := f.url + "&pgsidecar.route=auto"
		staleReads(t, ownWrites(t, auto, 1), ownWrites(t, auto, 2), ownWrites(t, f.url, 3), ownWrites(t, f.url, 4), monotonic(t, f.url, 10), monotonic(t, auto, 10),
			monotonic(t, prefer, 10), monotonic(t, only, 10), monotonic(t, whichever, 10), count(t, f.url, 10))
	})
	t.Run("strict", func(t *testing.T) {
		f := follow(t, "reads: {consistency: strict}", primary, late, jerky)
		awaitReading(t, f, 2)
		prefer := f.url + "&pgsidecar.route=prefer-standby"
		staleReads(t, handOn(t, f.url, prefer, 11), handOn(t, f.url, prefer, 12), handOn(t, f.url, prefer, 13))
	})
}

// awaitReading waits until clients may read from so many standbys.
func awaitReading(t *testing.T, f followed, standbys int) {
	t.Helper()
	seen := make(map[int]bool)
	awaitThat(t, "standbys are read from", func() bool {
		conn, err := pgtest.TryConnect(t, f.url+"&pgsidecar.route=standby") // A new one, as it stays where it is.
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(context.Background())) }()
		var port int
		require.NoError(t, conn.QueryRow(context.Background(), "select current_setting('port')::int").Scan(&port))
		seen[port] = true
		return len(seen) == standbys
	})
}
