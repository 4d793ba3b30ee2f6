package proxy_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// terminated is what a server process says that is told to end, as its own routine for that says it.
func terminated() *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Routine: "ProcessInterrupts",
		Message: "terminating connection due to administrator command",
	}
}

// twoServers is a proxy whose first server connection ends during a request as a script says; the second one answers
// whatever it is asked in full.
func twoServers(t *testing.T, first pgtest.Script) *testProxy {
	t.Helper()
	served := pgtest.Serve(t, append(pgtest.Script{pgtest.Welcome()}, first...), pgtest.Script{pgtest.Welcome(), answerAll})
	return startFor(t, "postgres://postgres@"+served.Addr()+"/postgres?sslmode=disable", func(config *proxy.Config) {
		config.Session.SentinelEvery, config.Pool.MaxConnections = 0, 1
	})
}

// answerAll answers every request with success, until the other side ends.
func answerAll(p *pgtest.Peer) error {
	done, ready := &pgproto3.CommandComplete{CommandTag: []byte("DONE")}, pgtest.ReadyForQuery('I')
	m, err := p.Receive()
	for ; err == nil && m.Type != 'X'; m, err = p.Receive() {
		answers := map[byte][]pgproto3.Message{
			'Q': {done, ready}, 'P': {&pgproto3.ParseComplete{}}, 'B': {&pgproto3.BindComplete{}}, 'E': {done}, 'S': {ready},
		}[m.Type]
		if err := p.Send(answers...); err != nil {
			return err
		}
	}
	return nil
}

// fate is what comes of a request whose server ends.
type fate int

const (
	told   fate = iota // the client gets an error and goes on
	closed             // the client is closed: it may have held something on the server
	again              // the request is made again
)

// tooLate waits for longer than a statement may have run that is run again.
func tooLate(*pgtest.Peer) error {
	<-time.After(1100 * time.Millisecond)
	return nil
}

func TestAgain_serverEnds_theRequestIsRunAgainOnlyIfItHadNoEffect(t *testing.T) {
	const insert = "insert into t values (1)"
	extended := func(sql string) []pgproto3.Message { return together(parse("", sql), run("")) }
	named := together(parse("mine", insert), run("mine"))
	complete := &pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")}
	parsed, bound := &pgproto3.ParseComplete{}, &pgproto3.BindComplete{}
	anonymous := terminated()
	anonymous.Routine = ""
	four := pgtest.Expect("P*", "B*", "E*", "S*")
	for name, test := range map[string]struct {
		asks  []pgproto3.Message
		first pgtest.Script
		comes fate
	}{
		"a word that was on its way":                            {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, again},
		"not PostgreSQL's own word":                             {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(anonymous)}, told},
		"no word":                                               {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*")}, told},
		"a reset":                                               {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*"), pgtest.ResetConn()}, told},
		"a statement that has run for long":                     {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*"), tooLate, pgtest.Send(terminated())}, told},
		"a statement that is complete":                          {[]pgproto3.Message{query(insert)}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(complete, terminated())}, told},
		"a statement that commits by itself":                    {[]pgproto3.Message{query("call p()")}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, closed},
		"a function of unknown effects":                         {[]pgproto3.Message{query("select f()")}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, closed},
		"maintenance":                                           {[]pgproto3.Message{query("vacuum t")}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, told},
		"a COMMIT in the string":                                {[]pgproto3.Message{query("insert into t values (1); commit")}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, told},
		"two queries":                                           {[]pgproto3.Message{query(insert), query(insert)}, pgtest.Script{pgtest.Expect("Q*", "Q*"), pgtest.Send(terminated())}, again},
		"the second of two queries":                             {[]pgproto3.Message{query(insert), query(insert)}, pgtest.Script{pgtest.Expect("Q*", "Q*"), pgtest.Send(complete, pgtest.ReadyForQuery('I'), terminated())}, told},
		"BEGIN":                                                 {[]pgproto3.Message{query("begin")}, pgtest.Script{pgtest.Expect("Q*"), pgtest.Send(terminated())}, again},
		"extended: nothing answered":                            {extended(insert), pgtest.Script{four, pgtest.Send(terminated())}, again},
		"extended: nothing answered, of a procedure":            {extended("call p()"), pgtest.Script{four, pgtest.Send(terminated())}, again},
		"extended: bound":                                       {extended(insert), pgtest.Script{four, pgtest.Send(parsed, bound, terminated())}, again},
		"extended: bound, of a procedure":                       {extended("call p()"), pgtest.Script{four, pgtest.Send(parsed, bound, terminated())}, closed},
		"extended: executed and not committed":                  {extended(insert), pgtest.Script{four, pgtest.Send(parsed, bound, complete, terminated())}, again},
		"extended: executed, of a procedure":                    {extended("call p()"), pgtest.Script{four, pgtest.Send(parsed, bound, complete, terminated())}, closed},
		"extended: named":                                       {named, pgtest.Script{four, pgtest.Send(terminated())}, again},
		"extended: named and prepared":                          {named, pgtest.Script{four, pgtest.Send(parsed, terminated())}, again},
		"extended: no word":                                     {extended(insert), pgtest.Script{four}, told},
		"extended: not PostgreSQL's own word, nothing answered": {extended(insert), pgtest.Script{four, pgtest.Send(anonymous)}, told},
	} {
		t.Run(name, func(t *testing.T) {
			p := twoServers(t, test.first)
			c := raw(t, p.url())
			if test.comes == closed {
				c.Send(test.asks...)
				c.ReceiveUntil('E')
				c.ExpectEnd()
				require.Zero(t, p.Snapshot().Totals.Reruns)
				return
			}
			heard := c.say(test.asks...)
			failed := slices.ContainsFunc(heard, func(one string) bool { return one[0] == 'E' })
			require.Equal(t, test.comes == told, failed, "%v", heard)
			require.Equal(t, test.comes == again, p.Snapshot().Totals.Reruns == 1)
			require.Equal(t, failed, len(p.Snapshot().Errors) > 0)
			require.Equal(t, []string{"C DONE", "Z I"}, c.say(query("select 1")), "the session goes on")
		})
	}
}

// A server that ends every connection at the first request must not keep its client in a circle.
func TestAgain_everyServerEnds_theClientIsTold(t *testing.T) {
	served := pgtest.Serve(t, pgtest.Script{pgtest.Welcome(), pgtest.Expect("Q*"), pgtest.Send(terminated())})
	p := startFor(t, "postgres://postgres@"+served.Addr()+"/postgres?sslmode=disable", func(config *proxy.Config) {
		config.Session.SentinelEvery, config.Pool.MaxConnections = 0, 1
	})
	c := raw(t, p.url())
	require.Equal(t, "57P01", c.say(query("select 1"))[0][2:7])
	require.EqualValues(t, 3, p.Snapshot().Totals.Reruns)
}

// What was on the way to the server when it ended is put together from all that the client has sent, in however many pieces.
func TestAgain_requestInPieces_allOfItIsSentAgain(t *testing.T) {
	came := make(chan struct{})
	p := twoServers(t, pgtest.Script{pgtest.Expect("P*"), func(*pgtest.Peer) error { close(came); return nil }, pgtest.Expect("B*", "E*", "S*"), pgtest.Send(terminated())})
	c := raw(t, p.url())
	c.Send(parse("mine", "select 1"))
	<-came
	require.Equal(t, []string{"1", "2", "C DONE", "Z I"}, c.say(run("mine")...))
	require.Equal(t, []string{"2", "C DONE", "Z I"}, c.say(run("mine")...))
}

// Servers are ended at random while clients write, in every form of the protocol: nobody gets an error, and every row is there once.
func TestAgain_serversTerminatedUnderLoad_nobodyNoticesAndNothingRunsTwice(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		role := c.Role(t)
		table := "written_" + role
		c.Exec(t, "create table "+table+" (id int); grant all on "+table+" to "+role)
		t.Cleanup(func() { c.Exec(t, "drop table "+table) })
		p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) { config.Pool.MaxConnections = 8 })
		ctx, stop := context.WithCancel(t.Context())
		modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement}
		var clients sync.WaitGroup
		written := make([]int, 12)
		faults := make(chan error, len(written))
		for i := range written {
			conn := pgtest.Connect(t, p.url())
			clients.Go(func() {
				for ctx.Err() == nil {
					_, err := conn.Exec(context.Background(), "insert into "+table+" values ($1)", modes[i%3], i*1_000_000+written[i])
					if err != nil {
						faults <- err
						return
					}
					written[i]++
				}
			})
		}
		server := watch(t, c)
		await(t, "enough were ended while they were used", func() bool {
			server.terminate("usename = $1", role)
			return p.Snapshot().Totals.Reruns >= 5 || len(faults) > 0
		}, p)
		stop()
		clients.Wait()
		close(faults)
		for err := range faults {
			require.NoError(t, err)
		}
		total := 0
		for _, n := range written {
			total += n
		}
		require.Equal(t, fmt.Sprintf("%d %d", total, total),
			pgtest.Value[string](t, c, "select count(*) || ' ' || count(distinct id) from "+table))
		require.Empty(t, p.Snapshot().Errors)
	})
}

// When one server process crashes, PostgreSQL ends all others: those that are idle are not missed.
func TestAgain_serverProcessesCrash_whoIsBetweenTransactionsNoticesNothing(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	p := start(t, c, func(config *proxy.Config) { config.Pool.Hold = patience })
	conns := []*pgx.Conn{pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url()), pgtest.Connect(t, p.url())}
	for _, conn := range conns {
		one(t, conn, "begin")
	}
	pid, err := strconv.Atoi(pidOf(t, conns[0]))
	require.NoError(t, err)
	for _, conn := range conns {
		one(t, conn, "commit")
	}
	p.idle(t)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	await(t, "PostgreSQL ends all of them", func() bool { return p.Snapshot().Pools[0].Idle == 0 }, p)
	for _, conn := range conns {
		require.Equal(t, "1", one(t, conn, "select 1"))
	}
	require.Empty(t, p.Snapshot().Errors)
}
