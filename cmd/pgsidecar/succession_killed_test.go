package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// dialogue is all that two processes say to each other in a handover, and who says it.
var dialogue = []struct {
	message string
	from    side
}{
	{"hello", successor},
	{"welcome", predecessor},
	{"serving", successor},
	{"held", predecessor},
	{"answer to held", successor},
	{"listen", predecessor},
	{"answer to listen", successor},
	{"client", predecessor},
	{"answer to client", successor},
	{"forget", predecessor},
	{"answer to forget", successor},
	{"cancel", successor},
	{"answer to cancel", predecessor},
}

// moments returns every moment between two messages, with either process as the one that dies.
func moments() []moment {
	var all []moment
	for _, d := range dialogue {
		counts := []int{1}
		if strings.HasSuffix(d.message, "client") {
			counts = append(counts, 4) // Some have moved, some have not.
		}
		for _, n := range counts {
			all = append(all, moment{d.message, n, d.from, false}, moment{d.message, n, d.from.other(), false}, moment{d.message, n, d.from.other(), true})
		}
	}
	return all
}

// TestSuccession_killedAtEachStep kills either process before and after each message of the handover, with clients of all kinds
// at work. Clients are lost with the process that had them, and no others; the survivor serves on, and can be succeeded.
func TestSuccession_killedAtEachStep_theSurvivorServesOn(t *testing.T) {
	cluster := pgtest.Start(t, pgtest.Config{})
	cluster.Exec(t, "create table acknowledged (worker int, n int, primary key (worker, n))")
	p := newGeneration(t, cluster, "step", "PGSIDECAR_POOL_MAX_CONNECTIONS=8", "PGSIDECAR_DRAIN_TIMEOUT=1h")
	socket := filepath.Join(p.dir, "takeover")
	for i, m := range moments() {
		t.Log(m)
		r := p.reside(i)
		b := newBetween(t, filepath.Join(p.dir, fmt.Sprint("between", i)), m)
		refuse(b, m)
		next := b.start(p, socket)
		if strings.HasSuffix(m.message, "cancel") {
			b.awaitMessage("held")
			r.cancel(socketOf(p))
		}
		b.await()
		alive := p
		if m.victim == predecessor {
			alive = next
			if m.message == "hello" || m.message == "welcome" {
				socket = alive.takeoverSocket(socket, b.path)
			}
		}
		alive.awaitServing()
		r.check(cluster, b)
		p = alive
	}
	// Nobody dies, and nothing is said that is not in the dialogue.
	r := p.reside(1000)
	b := newBetween(t, filepath.Join(p.dir, "between"), moment{})
	next := b.start(p, socket)
	b.awaitMessage("answer to listen")
	r.cancel(socketOf(p))
	b.awaitMessage("answer to cancel")
	r.leave()
	p.awaitSuccession(next)
	b.running.Wait()
	for name := range b.seen {
		require.True(t, slices.ContainsFunc(dialogue, func(d struct {
			message string
			from    side
		},
		) bool {
			return d.message == name
		}), name)
	}
	next.end(cluster)
}

// refuse makes the successor refuse the first client that listens, where it is about what follows from that.
func refuse(b *between, m moment) {
	if !strings.HasSuffix(m.message, "forget") {
		return
	}
	b.rewrite = func(message string, body []byte) []byte {
		if message == "answer to listen" && b.seen[message] == 1 {
			return []byte(`{"yes":false}`)
		}
		return body
	}
}

func socketOf(p *pod) string { return filepath.Join(p.dir, ".s.PGSQL.6432") }

// takeoverSocket returns where a process that was to be a successor can be succeeded: where the one before it could, or, if
// that had died before it passed its sockets on, where it was told to look for it.
func (p *pod) takeoverSocket(before, told string) string {
	p.awaitLog("msg=serving")
	if strings.Contains(p.stderr.String(), "nobody to take over from") {
		return told
	}
	return before
}

// awaitServing waits until a client is served.
func (p *pod) awaitServing() {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := p.connect(ctx)
		if err != nil {
			return false
		}
		_, err = conn.Exec(ctx, "select 1")
		return conn.Close(ctx) == nil && err == nil
	}, time.Minute, 5*time.Millisecond, "%s", p.stderr)
}

// residents are clients of all kinds.
type residents struct {
	t       *testing.T
	quiet   []*resident
	pinned  []pgtest.Message // The login of the one that never moves.
	workers []*worker
	stop    chan struct{}
	working sync.WaitGroup
}

// resident is a client that asks for nothing while the processes change.
type resident struct {
	*pgtest.Client

	what string
	pid  uint32
	ask  func() // What only its own session can answer.
}

// reside makes the residents. n tells them from others.
func (p *pod) reside(n int) *residents {
	p.t.Helper()
	r := &residents{t: p.t, stop: make(chan struct{})}
	add := func(what string) (c *resident, login []pgtest.Message) {
		client, login := p.raw()
		k := slices.IndexFunc(login, func(m pgtest.Message) bool { return m.Type == 'K' })
		c = &resident{Client: client, what: what, pid: binary.BigEndian.Uint32(login[k].Body)}
		r.quiet = append(r.quiet, c)
		return c, login
	}
	idle, _ := add("idle")
	idle.ask = func() { idle.Query("select 1") }
	settings, _ := add("with settings")
	settings.Query("set my.own = 'mine'")
	settings.ask = func() { require.Contains(p.t, pgtest.Strings(settings.Query("show my.own")), "D mine") }
	prepared, _ := add("with a prepared statement")
	prepared.Send(&pgproto3.Parse{Name: "named", Query: "select 'named'"}, &pgproto3.Sync{})
	prepared.Expect("1", "Z I")
	prepared.ask = func() {
		prepared.Send(&pgproto3.Bind{PreparedStatement: "named"}, &pgproto3.Execute{}, &pgproto3.Sync{})
		prepared.Expect("2", "D named", "C SELECT 1", "Z I")
	}
	for range 2 {
		listener, _ := add("that listens")
		listener.Query("listen step")
		listener.ask = func() {
			require.Equal(p.t, byte('A'), listener.Receive().Type)
			require.Equal(p.t, []string{"T ?column?", "D 1", "C SELECT 1", "Z I"}, pgtest.Strings(listener.Query("select 1")), "it comes once")
		}
	}
	pinned, login := add("that is pinned")
	pinned.Query("create temp table t ()")
	pinned.ask = func() { require.Contains(p.t, pgtest.Strings(pinned.Query("select from t")), "C SELECT 0") }
	r.pinned = login
	block, _ := add("in a transaction")
	block.Query(fmt.Sprintf("begin; insert into acknowledged values (-1, %d)", n))
	block.ask = func() { require.Equal(p.t, []string{"C COMMIT", "Z I"}, pgtest.Strings(block.Query("commit"))) }
	for i := range 3 {
		r.work(p, 10*n+i)
	}
	return r
}

// cancel asks to cancel what the client that never moves is doing, which is nothing: who is asked has to ask the other process.
func (r *residents) cancel(socket string) {
	i := slices.IndexFunc(r.pinned, func(m pgtest.Message) bool { return m.Type == 'K' })
	packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(r.pinned[i].Body)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102)
	pgtest.Dial(r.t, socket).SendBytes(append(packet, r.pinned[i].Body...))
}

// worker is a client that writes all the time.
type worker struct {
	id, acknowledged int
	pid              uint32
	err              error // Why it has stopped before it was told to.
}

func (r *residents) work(p *pod, id int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	conn, err := p.connect(ctx)
	require.NoError(r.t, err)
	w := &worker{id: id, pid: conn.PgConn().PID()}
	r.workers = append(r.workers, w)
	r.working.Go(func() {
		defer cancel()
		defer func() { _ = conn.Close(ctx) }()
		for last := false; !last; w.acknowledged++ {
			select {
			case <-r.stop:
				last = true // Once more, to see that it still can.
			default:
			}
			if _, w.err = conn.Exec(ctx, "insert into acknowledged values ($1, $2)", w.id, w.acknowledged); w.err != nil {
				return
			}
		}
	})
}

// check checks that those whom the survivor has are served as before, and that the others, whom the dead process had, are told.
func (r *residents) check(cluster *pgtest.Cluster, b *between) {
	r.t.Helper()
	survivor := b.moment.victim.other()
	cluster.Exec(r.t, "notify step, 'now'")
	served := 0
	for _, c := range r.quiet {
		if b.owner(c.pid) != survivor {
			c.ExpectEnd()
			continue
		}
		r.t.Log("served on: the client", c.what)
		c.ask()
		served++
		require.NoError(r.t, c.Conn.Close())
	}
	close(r.stop)
	r.working.Wait()
	for _, w := range r.workers {
		lost := b.owner(w.pid) != survivor
		assert.Equal(r.t, lost, w.err != nil, "worker %d: %v", w.id, w.err)
		have := pgtest.Value[int](r.t, cluster, "select count(*)::int from acknowledged where worker = $1", w.id)
		require.GreaterOrEqual(r.t, have, w.acknowledged)
		require.LessOrEqual(r.t, have, w.acknowledged+1, "what was not acknowledged may be there, once")
	}
	r.t.Logf("%s lives, with %d of %d quiet clients", survivor, served, len(r.quiet))
}

// leave makes all go.
func (r *residents) leave() {
	r.t.Helper()
	close(r.stop)
	r.working.Wait()
	for _, c := range r.quiet {
		require.NoError(r.t, c.Conn.Close())
	}
}
