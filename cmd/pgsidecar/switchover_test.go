package main

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// patient are the flags for a machine that is busy with other things.
var patient = []string{"--finish", "1m", "--catch-up", "1m", "--wait", "1m"}

// pause returns the longest time in which no commit was acknowledged, from a moment on.
func (l *ledger) pause(from time.Time) (longest time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.at); i++ {
		if l.at[i-1].After(from) {
			longest = max(longest, l.at[i].Sub(l.at[i-1]))
		}
	}
	return longest
}

// snapshot returns what has been acknowledged so far.
func (l *ledger) snapshot() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.acked)
}

// switchover runs the command, again if the machine was too busy for it to begin: then nothing was changed.
func (f *followed) switchover(arguments ...string) (code int, out string) {
	f.t.Helper()
	awaitThat(f.t, "a switchover that begins", func() bool {
		code, out = f.ask(append([]string{"switchover"}, arguments...)...)
		return !strings.Contains(out, "there is no primary") && !strings.Contains(out, "context deadline exceeded") &&
			!strings.Contains(out, "Client.Timeout")
	})
	return code, out
}

// writers let clients write through the proxy until the function that it returns is called.
func (f *followed) writers(l *ledger, n int) (stop func()) {
	ctx, cancel := context.WithCancel(f.t.Context())
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() { l.write(ctx, f.t, f.url, i*1_000_000, 2*time.Millisecond) })
	}
	awaitThat(f.t, "all write", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.acked) > 200 })
	return func() { cancel(); clients.Wait() }
}

// moveOver starts a proxy in front of a primary and a standby with a table, and waits until it knows both.
func moveOver(t *testing.T, version int) (primary, standby *pgtest.Cluster, f followed) {
	t.Helper()
	primary = pgtest.Start(t, pgtest.Config{Major: version})
	standby = primary.Standby(t, nil)
	primary.Exec(t, "create table ledger (id int primary key)")
	f = follow(t, "failover: {hold: 1m}", primary, standby)
	awaitThat(t, "both are known", func() bool {
		_, out := f.ask("status")
		return strings.Contains(out, "primary") && strings.Contains(out, "standby")
	})
	return primary, standby, f
}

func TestSwitchover_byTheProxy_noErrorAndNothingIsMissing(t *testing.T) {
	for _, version := range []int{15, 18} {
		t.Run(strconv.Itoa(version), func(t *testing.T) {
			t.Parallel()
			primary, standby, f := moveOver(t, version)
			l := &ledger{errors: make(map[string]int)}
			stop := f.writers(l, 8)
			began := time.Now()
			code, out := f.switchover(append([]string{"--promote", "--to", standby.Addr()}, patient...)...)
			require.Equal(t, exitOK, code, out)
			require.Contains(t, out, standby.Addr()+" has taken over from "+primary.Addr())
			switched := time.Now()
			awaitThat(t, "writes go on", func() bool { return !l.firstAfter(switched).IsZero() })
			stop()
			t.Logf("PostgreSQL %d: no commit for %v at most\n%s", version, l.pause(began.Add(-time.Second)).Round(time.Millisecond), out)
			require.Empty(t, l.errors)
			require.Empty(t, missing(t, standby, l.acked))
			require.Equal(t, "on", pgtest.Value[string](t, primary, "show default_transaction_read_only"), "the old primary is fenced")
			awaitThat(t, "the old primary is refused", func() bool {
				_, status := f.ask("status")
				return strings.Contains(status, primary.Addr()+" is an old primary") && !strings.Contains(status, "ATTENTION")
			})
		})
	}
}

func TestSwitchover_byTheOperator_isToldWhen(t *testing.T) {
	primary, standby, f := moveOver(t, 0)
	l := &ledger{errors: make(map[string]int)}
	stop := f.writers(l, 4)
	var out buffer
	ended := make(chan int, 1)
	go func() {
		for {
			code := run(context.Background(), invocation{
				args: append([]string{"switchover", "--json", "--http", f.socket}, patient...), stdout: &out, stderr: &out, open: openProxy,
			})
			if said := lines(out.String()); code == exitOK || !strings.Contains(said[len(said)-1], "nobody was held") {
				ended <- code
				return
			}
		}
	}()
	awaitThat(t, "it is the operator's turn", func() bool { return strings.Contains(out.String(), `"step":"ready"`) })
	primary.Stop(t, pgcluster.Fast)
	standby.Promote(t)
	require.Equal(t, exitOK, <-ended, out.String())
	switched := time.Now()
	awaitThat(t, "writes go on", func() bool { return !l.firstAfter(switched).IsZero() })
	stop()
	require.Empty(t, l.errors)
	require.Empty(t, missing(t, standby, l.acked))
	last := lines(out.String())
	require.Contains(t, last[len(last)-1], `"step":"done"`)
}

func TestSwitchover_thatCannotBeFinished_isUndone(t *testing.T) {
	primary, standby, f := moveOver(t, 0)
	works := pgtest.Connect(t, f.url)
	goesOn := func() {
		t.Helper()
		_, err := works.Exec(t.Context(), "insert into ledger select count(*) from ledger")
		require.NoError(t, err)
		require.Equal(t, "off", pgtest.Value[string](t, primary, "show default_transaction_read_only"))
		require.True(t, pgtest.Value[bool](t, standby, "select pg_is_in_recovery()"))
	}
	attempt := func(why string, arguments ...string) {
		t.Helper()
		code, out := f.switchover(arguments...)
		require.Equal(t, exitFailure, code, out)
		require.Contains(t, out, why)
		require.Contains(t, out, "nothing was changed")
	}

	busy := pgtest.Connect(t, f.url)
	tx, err := busy.Begin(t.Context())
	require.NoError(t, err)
	attempt("1 transactions did not end within 1s", "--promote", "--finish", "1s")
	goesOn()
	require.NoError(t, tx.Commit(t.Context()), "it has lost nothing")

	other := pgtest.Connect(t, primary.URL("postgres", pgcluster.Superuser))
	tx, err = other.Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), "insert into ledger values (-1)")
	require.NoError(t, err)
	attempt("1 transactions of others did not end within 1s", "--promote", "--finish", "1s")
	require.NoError(t, tx.Rollback(t.Context()))
	awaitThat(t, "writes are switched on again", func() bool {
		return pgtest.Value[string](t, primary, "show default_transaction_read_only") == "off"
	})
	goesOn()

	standby.PauseReplay(t)
	attempt("and nobody was held", "--promote", "--catch-up", "200ms")
	standby.ResumeReplay(t)
	attempt("no server is called", "--to", "pg9")
	attempt("is the primary already", "--to", primary.Addr())
	goesOn()
}

func TestSwitchover_roleThatMayNot_isToldBeforeAnybodyIsHeld(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	role := primary.Role(t)
	primary.WaitForStandby(t, standby)
	r := start(t, openProxy, "", "DATABASE_URL=postgres://"+role+"@"+primary.Addr()+","+standby.Addr()+"/postgres?sslmode=disable")
	awaitThat(t, "both are known", func() bool {
		_, out := r.ask("status")
		return strings.Contains(out, "primary") && strings.Contains(out, "standby")
	})
	f := followed{running: r}
	code, out := f.switchover("--promote")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "the role may not fence "+primary.Addr())
	r.signals <- os.Interrupt
	require.Equal(t, exitOK, <-r.code)
}

func TestDrain_ofATarget_nobodyNotices(t *testing.T) {
	primary, standby, f := moveOver(t, 0)
	l := &ledger{errors: make(map[string]int)}
	stop := f.writers(l, 4)
	code, out := f.ask("drain", "--target", standby.Addr())
	require.Equal(t, exitOK, code, out)
	_, out = f.switchover("--promote")
	require.Contains(t, out, "there is no standby that could take over")
	code, out = f.ask("drain", "--target", standby.Addr(), "--restore")
	require.Equal(t, exitOK, code, out)

	code, out = f.ask("drain", "--target", primary.Addr())
	require.Equal(t, exitOK, code, out)
	awaitThat(t, "nobody is connected there", func() bool {
		return pgtest.Value[int](t, primary, `select count(*)::int from pg_stat_activity where backend_type = 'client backend'
			and application_name <> 'pgsidecar-probe' and pid <> pg_backend_pid()`) == 0
	})
	_, out = f.ask("status")
	require.Contains(t, out, primary.Addr()+" has been taken out of service by an operator")
	before := len(l.snapshot())
	code, out = f.ask("drain", "--target", primary.Addr(), "--restore")
	require.Equal(t, exitOK, code, out)
	awaitThat(t, "writes go on", func() bool { return len(l.snapshot()) > before })

	code, out = f.ask("drain", "--target", "pg9")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, `no server is called "pg9"`)
	stop()
	require.Empty(t, l.errors)
	require.Empty(t, missing(t, primary, l.acked))
}
