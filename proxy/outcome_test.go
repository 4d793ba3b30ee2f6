package proxy_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// commitForm is a form in which a client may say COMMIT, and how it is told of its success.
type commitForm struct {
	asks  []pgproto3.Message
	heard []string
}

func commitForms() []commitForm {
	return []commitForm{
		{[]pgproto3.Message{query("commit")}, []string{"C COMMIT", "Z I"}},
		{together(parse("mine", "commit"), bind("mine"), describePortal(""), execute(), syncNow()), []string{"1", "2", "n", "C COMMIT", "Z I"}},
	}
}

// lostCommit is a client, of a proxy of its own, whose COMMIT waits for a standby.
type lostCommit struct {
	*rawClient
	commitForm
	p   *testProxy
	row int // What it has written into the table t.
	pid int // Of its server process.
}

// loseCommits makes a client for each form write a row and say COMMIT, and returns when all of them wait for standbys.
func loseCommits(t *testing.T, primary *pgtest.Cluster, upstream string) (all []*lostCommit) {
	t.Helper()
	w := watch(t, primary)
	for i, form := range commitForms() {
		c := &lostCommit{commitForm: form, row: i + 1}
		c.p = startFor(t, upstream, func(config *proxy.Config) {
			config.Session.ResolveCommit, config.Session.SentinelEvery, config.Pool.Hold = true, 0, patience
		})
		c.rawClient = raw(t, c.p.url())
		c.say(query("begin"))
		c.say(query(fmt.Sprint("insert into t values (", c.row, ")")))
		var err error
		c.pid, err = strconv.Atoi(strings.TrimPrefix(c.rawClient.pid(), "D "))
		require.NoError(t, err)
		c.Send(form.asks...)
		await(t, "the commit waits for a standby", func() bool {
			return w.count("select count(*) from pg_stat_activity where pid = $1 and wait_event = 'SyncRep'", c.pid) == 1
		}, c.p)
		all = append(all, c)
	}
	return all
}

// goesOn checks that the client is in order, and whether its row is there.
func (c *lostCommit) goesOn(rows int) {
	c.t.Helper()
	require.Equal(c.t, []string{"T count", fmt.Sprint("D ", rows), "C SELECT 1", "Z I"}, c.say(query(fmt.Sprint("select count(*) from t where n = ", c.row))))
}

func TestResolveCommit_newPrimaryHasIt_theClientIsToldOfItsSuccess(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{Settings: map[string]string{"synchronous_standby_names": "*", "synchronous_commit": "remote_apply"}})
	standby := primary.Standby(t, map[string]string{"synchronous_standby_names": ""})
	primary.Exec(t, "create table t (n int)")
	standby.PauseReplay(t)
	all := loseCommits(t, primary, primary.URL("postgres", pgtest.Superuser))
	await(t, "the standby has received them", func() bool {
		written := pgtest.Value[string](t, primary, "select pg_current_wal_flush_lsn()::text")
		return pgtest.Value[bool](t, standby, "select pg_last_wal_receive_lsn() >= $1::text::pg_lsn", written)
	})
	primary.Kill(t)
	for _, c := range all {
		c.p.Detain("the primary is gone")
	}
	standby.Promote(t)
	for _, c := range all {
		c.p.Redirect(placeOf(standby), 2)
		require.Equal(t, c.heard, c.hear(1))
		c.goesOn(1)
		require.Empty(t, c.p.Snapshot().Errors)
	}
}

// The new primary gives the ids of transactions that it has never heard of to others, which commit. They must not be taken for the clients'.
func TestResolveCommit_newPrimaryHasNotGotIt_theClientIsToldToTryAgain(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{Settings: map[string]string{"synchronous_standby_names": "*"}})
	standby := primary.Standby(t, map[string]string{"synchronous_standby_names": ""})
	primary.Exec(t, "create table t (n int)")
	primary.WaitForStandby(t, standby)
	standby.Stop(t, pgtest.Fast)
	for range 5 { // Ids and WAL that the standby does not know.
		primary.Exec(t, "set synchronous_commit to local; insert into t values (0)")
	}
	all := loseCommits(t, primary, primary.URL("postgres", pgtest.Superuser))
	primary.Kill(t)
	for _, c := range all {
		c.p.Detain("the primary is gone")
	}
	standby.StartAgain(t)
	standby.Promote(t)
	for range 20 {
		standby.Exec(t, "insert into t values (0)")
	}
	for _, c := range all {
		c.p.Redirect(placeOf(standby), 2)
		heard := c.hear(1)
		want := []string{"E 40001 the transaction was rolled back: its server was lost before it was committed", "Z I"}
		require.Equal(t, want, heard[len(heard)-2:])
		c.goesOn(0)
	}
}

func TestResolveCommit_onlyTheConnectionIsLost_theServerItselfTells(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{Settings: map[string]string{"synchronous_standby_names": "nobody", "synchronous_commit": "on"}})
	primary.Exec(t, "set synchronous_commit to local; create table t (n int)")
	relay := pgtest.StartRelay(t, primary.Addr())
	all := loseCommits(t, primary, relay.URL(t, primary.URL("postgres", pgtest.Superuser)))
	relay.Cut()
	w := watch(t, primary)
	await(t, "the server is asked, and does not know yet", func() bool {
		return w.count("select count(*) from pg_stat_activity where query like 'SELECT CASE WHEN recovers%'") == len(all)
	})
	primary.Exec(t, "alter system set synchronous_standby_names to ''")
	primary.Exec(t, "select pg_reload_conf()")
	for _, c := range all {
		require.Equal(t, c.heard, c.hear(1))
		c.goesOn(1)
	}
}

// A server process that is told to end while its commit waits for a standby says so in a WARNING and has committed.
func TestResolveCommit_serverProcessTerminated_theServerItselfTells(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{Settings: map[string]string{"synchronous_standby_names": "nobody"}})
	primary.Exec(t, "set synchronous_commit to local; create table t (n int)")
	all := loseCommits(t, primary, primary.URL("postgres", pgtest.Superuser))
	w := watch(t, primary)
	for _, c := range all {
		require.Equal(t, 1, w.terminate("pid = $1", c.pid))
		heard := c.hear(1)
		require.Contains(t, heard, "N 57P01")
		require.Equal(t, c.heard, slices.DeleteFunc(heard, func(one string) bool { return one == "N 57P01" }))
		c.goesOn(1)
	}
}

// scriptedCommit is a proxy in front of a server that ends when it has got a COMMIT and the question in front of it, to which it answers as told.
func scriptedCommit(t *testing.T, answer ...pgtest.Step) *testProxy {
	t.Helper()
	began := []pgproto3.Message{&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}, pgtest.ReadyForQuery('T')}
	script := pgtest.Script{pgtest.Welcome(), pgtest.Expect("Q begin"), pgtest.Send(began...), pgtest.Expect("Q*", "Q commit")}
	served := pgtest.Serve(t, append(script, answer...))
	return startFor(t, "postgres://postgres@"+served.Addr()+"/postgres?sslmode=disable", func(config *proxy.Config) {
		config.Session.SentinelEvery, config.Session.ResolveCommit = 0, true
	})
}

// A transaction without an id has written nothing that could be lost.
func TestResolveCommit_nothingWasWritten_isNotLookedUp(t *testing.T) {
	c := raw(t, scriptedCommit(t, pgtest.Send(
		&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("case")}}},
		&pgproto3.DataRow{Values: [][]byte{[]byte("0/1000 1.5 - 00000001 ")}},
		&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, pgtest.ReadyForQuery('T'))).url())
	c.say(query("begin"))
	require.Equal(t, []string{"C COMMIT", "Z I"}, c.say(query("commit")))
}

// Nobody can tell what has become of a COMMIT if not even its transaction's id is known.
func TestResolveCommit_idNotKnown_isSaid(t *testing.T) {
	c := raw(t, scriptedCommit(t).url())
	c.say(query("begin"))
	heard := c.say(query("commit"))
	require.Equal(t, "08007", heard[0][2:7])
}

// A ROLLBACK whose server is lost has succeeded. Behind a COMMIT the client is in no block, whatever has become of it.
func TestLost_blockEnds_theClientIsInNoBlock(t *testing.T) {
	for name, test := range map[string]struct {
		asks  []pgproto3.Message
		heard []string
	}{
		"rollback":           {[]pgproto3.Message{query("rollback")}, []string{"C ROLLBACK", "Z I"}},
		"rollback, extended": {together(parse("", "rollback"), run("")), []string{"1", "2", "C ROLLBACK", "Z I"}},
		"commit":             {[]pgproto3.Message{query("commit")}, []string{"E 08006", "Z I"}},
		"commit and another": {[]pgproto3.Message{query("commit; begin")}, []string{"E 08006", "Z E"}},
		"statement":          {[]pgproto3.Message{query("select 1")}, []string{"E 08006", "Z E"}},
	} {
		t.Run(name, func(t *testing.T) {
			began := []pgproto3.Message{&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}, pgtest.ReadyForQuery('T')}
			last := "Q*"
			if len(test.asks) > 1 {
				last = "S"
			}
			p := twoServers(t, pgtest.Script{pgtest.Expect("Q begin"), pgtest.Send(began...), func(p *pgtest.Peer) error {
				for {
					if m, err := p.Receive(); err != nil || m.Type == last[0] {
						return err
					}
				}
			}})
			c := raw(t, p.url())
			c.say(query("begin"))
			c.Send(test.asks...)
			require.Equal(t, test.heard, pgtest.Strings(c.ReceiveUntil('Z')))
		})
	}
}
