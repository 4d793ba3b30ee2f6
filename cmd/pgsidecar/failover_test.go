package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// followed is a proxy in front of a primary and standbys.
type followed struct {
	*running

	url string // for clients
}

func follow(t *testing.T, content string, clusters ...*pgtest.Cluster) followed {
	t.Helper()
	target := url.URL{Scheme: "postgres", User: url.User(pgcluster.Superuser), Path: "/postgres", RawQuery: "sslmode=disable"}
	for i, c := range clusters {
		if i > 0 {
			target.Host += ","
		}
		target.Host += c.Addr()
	}
	return followURL(t, content, target.String())
}

// followURL is follow for servers that a URL names.
func followURL(t *testing.T, content, upstream string) followed {
	t.Helper()
	r := start(t, openProxy, content, "DATABASE_URL="+upstream)
	dir := filepath.Dir(r.socket)
	f := followed{running: r, url: "postgres://postgres@/postgres?host=" + url.QueryEscape(dir) + "&port=6432"}
	awaitThat(t, "the proxy listens", func() bool {
		conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.6432"))
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	t.Cleanup(func() { r.signals <- os.Interrupt; <-r.code })
	return f
}

func awaitThat(t testing.TB, what string, is func() bool) {
	t.Helper()
	limit, tick := time.NewTimer(time.Minute), time.NewTicker(5*time.Millisecond)
	defer limit.Stop()
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-limit.C:
			require.Fail(t, "not seen: "+what)
		}
	}
}

// ledger is what clients have been told is committed, and what they were told else.
type ledger struct {
	mu     sync.Mutex
	acked  []int
	at     []time.Time
	errors map[string]int // by SQLSTATE, or by text
	lost   int            // connections that did not survive an error
}

func (l *ledger) note(id int, err error, conn *pgx.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.acked, l.at = append(l.acked, id), append(l.at, time.Now())
		return
	}
	code := err.Error()
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = e.Code
	}
	l.errors[code]++
	if conn.IsClosed() {
		l.lost++
	}
}

// firstAfter returns when the first commit was acknowledged after a moment.
func (l *ledger) firstAfter(moment time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range l.at {
		if at.After(moment) {
			return at
		}
	}
	return time.Time{}
}

// write inserts rows until ctx ends, resting between two for as long as it is told.
func (l *ledger) write(ctx context.Context, t *testing.T, to string, first int, rest time.Duration) {
	conn := pgtest.Connect(t, to)
	tick := time.NewTicker(rest)
	defer tick.Stop()
	for id := first; ; id++ {
		_, err := conn.Exec(context.Background(), "insert into ledger values ($1)", id)
		l.note(id, err, conn)
		if conn.IsClosed() {
			conn = pgtest.Connect(t, to)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func TestFailover_primaryKilled_clientsGoOnAndNothingIsLost(t *testing.T) {
	for _, version := range []int{15, 18} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			primary := pgtest.Start(t, pgtest.Config{Major: version, Settings: map[string]string{"synchronous_standby_names": "*"}})
			standby := primary.Standby(t, map[string]string{"synchronous_standby_names": ""})
			primary.Exec(t, "create table ledger (id int primary key)")
			f := follow(t, "", primary, standby)
			l := &ledger{errors: make(map[string]int)}
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for i := range 8 {
				clients.Go(func() { l.write(ctx, t, f.url, i*1_000_000, 2*time.Millisecond) })
			}
			awaitThat(t, "all write", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.acked) > 200 })
			waits := pgtest.Connect(t, f.url)
			primary.Kill(t)
			began := time.Now()
			tookOver := make(chan time.Time, 1)
			go func() { tookOver <- firstWrite(standby, "create table taken_over ()") }()
			standby.Promote(t)
			_, err := waits.Exec(context.Background(), "insert into ledger values (-1)")
			require.NoError(t, err, "who was between transactions sees no error")
			accepted := <-tookOver
			awaitThat(t, "writes go on", func() bool { return !l.firstAfter(accepted).IsZero() })
			stop()
			clients.Wait()
			first := l.firstAfter(began)
			t.Logf("PostgreSQL %d: errors %v, connections lost %d, first write %v after the new primary accepted one",
				version, l.errors, l.lost, first.Sub(accepted).Round(time.Millisecond))
			require.Zero(t, l.lost)
			require.Empty(t, missing(t, standby, l.acked), "acknowledged commits are there")
			code, out := f.ask("status")
			require.Equal(t, 0, code)
			require.Contains(t, out, "primary")
		})
	}
}

// firstWrite returns when a server first accepted a write.
func firstWrite(c *pgtest.Cluster, sql string) time.Time {
	conn, err := pgx.Connect(context.Background(), c.SocketURL("postgres", pgcluster.Superuser))
	if err != nil {
		return time.Time{}
	}
	defer func() { _ = conn.Close(context.Background()) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := conn.Exec(context.Background(), sql); err == nil {
			break
		}
	}
	return time.Now()
}

// missing returns the rows that are not there.
func missing(t *testing.T, c *pgtest.Cluster, acked []int) (gone []string) {
	t.Helper()
	there := make(map[string]bool)
	for _, row := range c.Query(t, "select id from ledger") {
		there[row[0]] = true
	}
	for _, id := range acked {
		if !there[fmt.Sprint(id)] {
			gone = append(gone, fmt.Sprint(id))
		}
	}
	return gone
}

func TestHold_byHTTP_lastsUntilResume(t *testing.T) {
	f := follow(t, "", pgtest.Shared(t, 0))
	conn := pgtest.Connect(t, f.url)
	ask := func(path string) int {
		code, _, err := newClient(f.socket).ask(t.Context(), http.MethodPost, path)
		require.NoError(t, err)
		return code
	}
	require.Equal(t, http.StatusConflict, ask("/resume"))
	require.Equal(t, http.StatusOK, ask("/hold"))
	ended := make(chan error, 1)
	go func() { _, err := conn.Exec(context.Background(), "select 1"); ended <- err }()
	awaitThat(t, "it waits", func() bool { _, out := f.ask("status"); return strings.Contains(out, "1 waiting") })
	_, out := f.ask("status")
	require.Contains(t, out, "transactions are held: an operator holds them")
	require.Equal(t, http.StatusOK, ask("/resume"))
	require.NoError(t, <-ended)
}
