package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// contender is a way for clients to find the primary.
type contender struct {
	name      string
	url       func() string // For the next connection.
	rearrange func(*stage)  // Is told of the new order when all is well again.
	table     string
	ledger    ledger
	written   [clientsEach]counter
}

// clientsEach is how many clients each contender has.
const clientsEach = 8

// patienceOfClients is how long a client waits for an answer.
const patienceOfClients = 10 * time.Second

func newSidecarContender(t *testing.T, s *stage) *contender {
	t.Helper()
	f := followURL(t, "", s.url(""))
	return &contender{name: "pgsidecar", url: func() string { return f.url }, rearrange: func(*stage) {}}
}

// newBouncerContender is PgBouncer with a list of hosts, of which it takes the first that lets it in. The list is in the order in which the servers are to
// become the primary; a script that knows puts it in that order again after each failover, but not sooner. It is nil, with the reason logged, where there is no PgBouncer.
func newBouncerContender(t *testing.T, s *stage) *contender {
	t.Helper()
	program, err := exec.LookPath(cmp.Or(os.Getenv("PGBOUNCER"), "pgbouncer"))
	if err != nil {
		t.Log("PgBouncer is neither on the PATH nor where PGBOUNCER says: it is left out")
		return nil
	}
	target := func(s *stage) string {
		var hosts []string
		for _, m := range s.members {
			host, _, _ := strings.Cut(m.way.Addr(), ":")
			hosts = append(hosts, host)
		}
		return "host=" + strings.Join(hosts, ",") + " port=5432 user=postgres load_balance_hosts=disable"
	}
	p := startBouncer(t, program, "postgres", target(s))
	return &contender{
		name: "PgBouncer", url: func() string { return "host=" + p.dir + " port=6432 user=postgres dbname=postgres" },
		rearrange: func(s *stage) {
			configureBouncer(t, p.dir, target(s))
			require.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
		},
	}
}

// newLibpqContender is clients that choose among all hosts by themselves.
func newLibpqContender(s *stage) *contender {
	hosts := s.url("&target_session_attrs=read-write&connect_timeout=2")
	return &contender{name: "libpq", url: func() string { return hosts }, rearrange: func(*stage) {}}
}

// work lets the clients of all contenders write until the returned function is called.
func (s *stage) work(t *testing.T, contenders []*contender) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i, c := range contenders {
		c.table = fmt.Sprintf("ledger_%d", i)
		c.ledger.errors = make(map[string]int)
		s.members[0].Exec(t, "create table "+c.table+" (id bigint)")
		for n := range clientsEach {
			all.Go(func() { c.client(ctx, n) })
		}
		c.awaitAll(t)
	}
	return func() {
		stop()
		all.Wait()
	}
}

// counter is how many transactions one client has been told are committed.
type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

func (c *counter) value() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// awaitAll waits until each client has written twice more.
func (c *contender) awaitAll(t *testing.T) {
	t.Helper()
	for i := range c.written {
		before := c.written[i].value()
		awaitThat(t, fmt.Sprintf("client %d of %s writes", i, c.name), func() bool { return c.written[i].value() > before+1 })
	}
}

// client writes rows, each with a number that it uses once, until ctx ends. Half of the clients do so in statements of their own, half in blocks.
func (c *contender) client(ctx context.Context, number int) {
	var conn *pgx.Conn
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for id := number * 100_000_000; ctx.Err() == nil; id += 2 {
		if conn == nil || conn.IsClosed() {
			conn = c.connect()
		}
		if conn != nil {
			c.note(c.transact(conn, number, id), conn, number, id)
		}
		<-tick.C
	}
	if conn != nil {
		_ = conn.Close(context.Background())
	}
}

func (c *contender) connect() *pgx.Conn {
	ctx, cancel := context.WithTimeout(context.Background(), patienceOfClients)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url())
	if err != nil {
		return nil
	}
	return conn
}

// transact writes the row id, or in a block the rows id and id+1.
func (c *contender) transact(conn *pgx.Conn, number, id int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patienceOfClients)
	defer cancel()
	mode := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement}[number/2%2]
	insert := "insert into " + c.table + " values ($1)"
	if number%2 == 0 {
		_, err := conn.Exec(ctx, insert, mode, id)
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insert, mode, id)
		if err == nil {
			_, err = tx.Exec(ctx, insert, mode, id+1)
		}
		return err
	})
}

func (c *contender) note(err error, conn *pgx.Conn, number, id int) {
	l := &c.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		c.written[number].add()
		l.acked, l.at = append(l.acked, id), append(l.at, time.Now())
		if number%2 == 1 {
			l.acked, l.at = append(l.acked, id+1), append(l.at, time.Now())
		}
		return
	}
	code := "connection lost"
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		code = e.Code
	} else if errors.Is(err, context.DeadlineExceeded) {
		code = "no answer"
	}
	l.errors[code]++
	if conn.IsClosed() {
		l.lost++
	}
}

// verify counts the rows that were acknowledged and are not there, and those that are there twice.
func (c *contender) verify(t *testing.T, primary *pgtest.Cluster) (missing, doubled int) {
	t.Helper()
	c.ledger.mu.Lock()
	acked := slices.Clone(c.ledger.acked)
	c.ledger.mu.Unlock()
	missing = pgtest.Value[int](t, primary, "select count(*) from unnest($1::bigint[]) a where not exists (select from "+c.table+" where id = a)", acked)
	doubled = pgtest.Value[int](t, primary, "select count(*) - count(distinct id) from "+c.table)
	return missing, doubled
}
