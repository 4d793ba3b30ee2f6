package proxy_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// The model is PostgreSQL itself: random sequences of messages (model_draw_test.go) go, byte for byte the same, over a
// connection of their own to one database and through the proxy to a twin of it, in other pieces. Several clients do so at
// once over fewer servers, so that these change hands. The answers must be equal, message by message.
//
// MODEL_SEED repeats a run, MODEL_SECONDS makes it longer.
//
// What is different on purpose, and therefore is not sent (or, where it says so, let pass):
//   - SQL that names a statement of the protocol otherwise than as the one DEALLOCATE of a text (EXECUTE, or DEALLOCATE among
//     other statements): the proxy does not rewrite SQL.
//   - SQL that leaves something in the session that pins it (PREPARE, temporary tables, advisory locks, WITH HOLD): what pins
//     is shown by tests of its own; here it would take the servers away from the others.
//   - Changes of the schema under prepared statements: the proxy prepares anew what PostgreSQL would refuse for ever.
//   - What statements do in a transaction that has failed, if the server does not hold them any more: they cannot be prepared
//     again then, so there is nothing but the error that the transaction has failed. It is met, as nobody can know before
//     which server holds what; the client then begins anew.
//   - Requests that a client sends into a COPY instead of its data. The server ends the connection at the first of them; the
//     proxy may have answered that one itself, or have put one of its own in front. Behind a Sync, if the COPY has failed before
//     it has read anything, the server answers them all, but the proxy cannot tell which answers are whose and ends the
//     connection with 08006. Both are met.
//   - Lengths that the protocol does not allow: PostgreSQL closes the connection without a word, the proxy with one.

const (
	modelClients = 4
	modelServers = 2
)

// PgBouncer's #1484.
func TestModel_randomPipelinesAreAnsweredAsByPostgreSQL(t *testing.T) {
	seed, limit := rand.Uint64(), 25*time.Second
	if s := os.Getenv("MODEL_SEED"); s != "" {
		var err error
		seed, err = strconv.ParseUint(s, 10, 64)
		require.NoError(t, err)
	}
	if s := os.Getenv("MODEL_SECONDS"); s != "" {
		n, err := strconv.Atoi(s)
		require.NoError(t, err)
		limit = time.Duration(n) * time.Second
	}
	versions := pgtest.Versions(t)
	for _, major := range versions {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) {
			t.Logf("MODEL_SEED=%d", seed)
			runModel(t, pgtest.Shared(t, major), seed, limit/time.Duration(len(versions)))
		})
	}
}

func runModel(t *testing.T, c *pgtest.Cluster, seed uint64, limit time.Duration) {
	t.Helper()
	direct, pooled := c.Database(t), c.Database(t)
	for _, database := range []string{direct, pooled} {
		for i := range modelClients {
			c.ExecIn(t, database, modelSchema(i))
		}
	}
	p := startFor(t, c.URL(pooled, pgtest.Superuser), func(config *proxy.Config) {
		config.Pool.MaxConnections = modelServers
		config.Session.PreparedPerServer = 3 // evicted all the time
	})
	until := time.Now().Add(limit)
	var all sync.WaitGroup
	var mu sync.Mutex
	steps := 0
	for i := range modelClients {
		pairing := newPairing(t, c, p, i, direct, pooled)
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			n := 0
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				steps += n
			}()
			for time.Now().Before(until) && !t.Failed() {
				if err := pairing.step(rng); err != nil {
					t.Errorf("client %d, step %d: %v\n%s", i, n, err, strings.Join(pairing.past, "  ---\n"))
					return
				}
				n++
			}
			if pairing.purposes > 3+n/20 {
				t.Errorf("client %d: %d of %d steps differ on purpose, which is too many", i, pairing.purposes, n)
			}
		})
	}
	all.Wait()
	t.Logf("%d steps", steps)
	if t.Failed() {
		t.Logf("the server's log:\n%s", c.LogTail(20))
	}
}

// pairing is one client twice: at PostgreSQL itself and at the proxy. One goroutine uses it.
type pairing struct {
	t              testing.TB
	cluster        *pgtest.Cluster
	proxied        *testProxy
	direct, pooled *wireEnd
	databases      [2]string
	control        *pgx.Conn // to see when the direct server has answered all that it can
	draw           *drawer
	past           []string // the latest steps, the last one first
	purposes       int      // differences that were met and are on purpose
}

func newPairing(t *testing.T, c *pgtest.Cluster, p *testProxy, number int, databases ...string) *pairing {
	t.Helper()
	w := &pairing{
		t: t, cluster: c, proxied: p, databases: [2]string(databases),
		control: pgtest.Connect(t, c.SocketURL("postgres", pgtest.Superuser)),
		draw:    &drawer{client: number, texts: map[string]text{}, portals: map[string]text{}},
	}
	require.NoError(t, w.connect())
	t.Cleanup(w.close)
	return w
}

func (w *pairing) connect() (err error) {
	w.close()
	if w.direct, err = dialEnd("unix", w.cluster.SocketFile(), w.databases[0]); err != nil {
		return err
	}
	w.pooled, err = dialEnd("tcp", w.proxied.Addresses()[0], w.databases[1])
	return err
}

func (w *pairing) close() {
	for _, e := range []*wireEnd{w.direct, w.pooled} {
		if e != nil {
			_ = e.conn.Close()
		}
	}
}

// step sends one sequence both ways and compares the answers.
func (w *pairing) step(rng *rand.Rand) error {
	parts := w.draw.step(rng)
	w.past = append([]string{script(parts)}, w.past[:min(len(w.past), 9)]...)
	forced, err := w.sendDirect(parts)
	if err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	want := w.direct.take()
	err = w.sendPooled(rng, parts, forced, want)
	got := w.pooled.take()
	if err != nil {
		return fmt.Errorf("through the proxy: %w\nanswers: %v\ndirect:  %v", err, got, want)
	}
	diff, onPurpose := difference(want, got)
	if onPurpose {
		w.purposes++
		w.draw.forget()
		return w.connect()
	}
	if diff != "" {
		return fmt.Errorf("%s\nanswers: %v\ndirect:  %v", diff, got, want)
	}
	if w.direct.over != w.pooled.over {
		return fmt.Errorf("ended: directly %v, through the proxy %v", w.direct.over, w.pooled.over)
	}
	if w.direct.over {
		w.draw.forget()
		return w.connect()
	}
	return nil
}

// sendDirect returns how many answers there were, at least, behind each part that is followed by a pause.
func (w *pairing) sendDirect(parts []part) (forced []int, err error) {
	for _, p := range parts {
		w.direct.write(p.bytes())
		if p.pause {
			if err := w.quiesce(); err != nil {
				return nil, err
			}
			forced = append(forced, len(w.direct.got))
		}
	}
	return forced, w.direct.readUntil(time.Now().Add(patience), w.direct.marked)
}

// sendPooled waits at each pause until what the direct server has answered there is there as well, and at the end for all. It
// gives up where the answers differ on purpose.
func (w *pairing) sendPooled(rng *rand.Rand, parts []part, forced []int, want []answer) error {
	limit := time.Now().Add(patience)
	readUntil := func(enough func() bool) error {
		return w.pooled.readUntil(limit, func() bool {
			got := answers(w.pooled.got)
			_, onPurpose := difference(want[:min(len(got), len(want))], got)
			return onPurpose || enough()
		})
	}
	for _, p := range parts {
		for b := p.bytes(); len(b) > 0; {
			n := min(len(b), 1+rng.IntN(1+rng.IntN(60)))
			if rng.IntN(3) == 0 {
				n = len(b)
			}
			w.pooled.write(b[:n])
			b = b[n:]
		}
		if p.pause {
			due := forced[0]
			forced = forced[1:]
			if err := readUntil(func() bool { return len(w.pooled.got) >= due }); err != nil {
				return fmt.Errorf("%d answers are due: %w", due, err)
			}
		}
	}
	return readUntil(w.pooled.marked)
}

// quiesce waits until the direct server has read all that was sent and waits for more, and takes what it has answered.
func (w *pairing) quiesce() error {
	limit := time.Now().Add(patience)
	for {
		if err := w.direct.drain(); err != nil || w.direct.over {
			return err
		}
		waits := false
		unsent, err := w.direct.pending(unix.SIOCOUTQ)
		if err != nil {
			return err
		}
		row := w.control.QueryRow(w.t.Context(), `select coalesce(wait_event = 'ClientRead', false) from pg_stat_activity where pid = $1`, w.direct.pid)
		switch err := row.Scan(&waits); {
		case errors.Is(err, pgx.ErrNoRows): // it has ended
			return w.direct.readUntil(limit, func() bool { return false })
		case err != nil:
			return err
		}
		if waits && unsent == 0 {
			return w.direct.drain()
		}
		if time.Now().After(limit) {
			return errors.New("server does not come to rest")
		}
	}
}

// wireEnd is one connection, with what came over it and has not been taken.
type wireEnd struct {
	conn net.Conn
	raw  syscall.RawConn
	pid  uint32
	rest []byte
	got  []pgtest.Message
	over bool // the other side has closed it
}

func dialEnd(network, address, database string) (*wireEnd, error) {
	conn, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	e := &wireEnd{conn: conn}
	if e.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		return nil, err
	}
	startup := &pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30,
		Parameters:      map[string]string{"user": pgtest.Superuser, "database": database},
	}
	b, err := startup.Encode(nil)
	if err != nil {
		return nil, err
	}
	e.write(b)
	ready := func() bool { return len(e.got) > 0 && e.got[len(e.got)-1].Type == 'Z' }
	if err := e.readUntil(time.Now().Add(patience), ready); err != nil {
		return nil, err
	}
	if e.over {
		return nil, fmt.Errorf("login: %v", e.got)
	}
	for _, m := range e.got {
		if m.Type == 'K' {
			e.pid = binary.BigEndian.Uint32(m.Body)
		}
	}
	e.got = nil
	return e, nil
}

// write ignores that the other side has closed: reading finds that.
func (e *wireEnd) write(b []byte) { _, _ = e.conn.Write(b) }

// pending returns the number of bytes in the socket, read (FIONREAD) or written (SIOCOUTQ) but not yet taken.
func (e *wireEnd) pending(request uint) (n int, err error) {
	if cerr := e.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), request) }); cerr != nil {
		return 0, cerr
	}
	return n, err
}

// drain takes what is there without waiting.
func (e *wireEnd) drain() error {
	for {
		n, err := e.pending(unix.TIOCINQ)
		if err != nil || n == 0 {
			return err
		}
		if err := e.read(time.Now().Add(patience)); err != nil || e.over {
			return err
		}
	}
}

func (e *wireEnd) readUntil(limit time.Time, enough func() bool) error {
	for !enough() && !e.over {
		if err := e.read(limit); err != nil {
			return err
		}
	}
	return nil
}

func (e *wireEnd) read(limit time.Time) error {
	if err := e.conn.SetReadDeadline(limit); err != nil {
		return err
	}
	var buf [16 << 10]byte
	n, err := e.conn.Read(buf[:])
	e.rest = append(e.rest, buf[:n]...)
	for len(e.rest) >= 5 {
		size := 1 + int(binary.BigEndian.Uint32(e.rest[1:]))
		if size < 5 || len(e.rest) < size {
			break
		}
		e.got = append(e.got, pgtest.Message{Type: e.rest[0], Body: slices.Clone(e.rest[5:size])})
		e.rest = e.rest[size:]
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		e.over = true
		return nil
	}
	return err
}

// take returns the answers so far.
func (e *wireEnd) take() []answer {
	taken := answers(e.got)
	e.got = nil
	return taken
}

// answer is a message of a server, as it was and as it is compared.
type answer struct {
	pgtest.Message
	normal []byte
}

func answers(messages []pgtest.Message) []answer {
	list := make([]answer, len(messages))
	for i, m := range messages {
		list[i] = answer{m, normalised(m)}
	}
	return list
}

// normalised returns a message without the identity of tables: those of the twin are other ones.
func normalised(m pgtest.Message) []byte {
	if m.Type != 'T' {
		return m.Bytes()
	}
	decoded, err := m.Decode()
	if err != nil {
		return m.Bytes()
	}
	row := decoded.(*pgproto3.RowDescription)
	for i := range row.Fields {
		row.Fields[i].TableOID = 0
	}
	b, err := row.Encode(nil)
	if err != nil {
		return m.Bytes()
	}
	return b
}

// difference says where two lists of answers differ, and whether that is on purpose.
func difference(want, got []answer) (text string, onPurpose bool) {
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(got):
			return fmt.Sprintf("answer %d is missing: %s", i, want[i]), false
		case i >= len(want):
			return fmt.Sprintf("answer %d is one too many: %s", i, got[i]), false
		case !bytes.Equal(want[i].normal, got[i].normal):
			text = fmt.Sprintf("answer %d is %q instead of %q", i, got[i].normal, want[i].normal)
			return text, confused(want[i]) || confused(got[i]) || cannotPrepare(want[i], got[i]) || notCopyData(want, got, i)
		}
	}
	return "", false
}

// confused tells whether the server (15 to 18) has lost track of its own transaction, as it can after a simple query that comes
// behind an Execute without a Sync.
func confused(a answer) bool {
	return a.String() == "E XX000" && bytes.Contains(a.Body, []byte("unexpected state"))
}

// cannotPrepare tells whether the server could not prepare a statement because the transaction has failed. The place in its
// source tells that it was not the client's own message that failed.
func cannotPrepare(want, got answer) bool {
	return got.String() == "E 25P02" && bytes.Contains(got.Body, []byte("Rexec_parse_message\x00")) && (want.Type == 't' || want.Type == 'E')
}

// notCopyData tells whether something else than data has been sent into the copy whose answers differ from answer i on.
func notCopyData(want, got []answer, i int) bool {
	if bytes.Contains(want[i].Body, []byte("during COPY from stdin")) {
		return true
	}
	failedAtOnce := i >= 2 && want[i-2].Type == 'G' && want[i-1].Type == 'E'
	return got[i].String() == "E 08006" && failedAtOnce
}

// marks is how many portals are closed at the end of each step, to know the end of its answers: more in a row than are
// drawn.
const marks = 7

// marked tells whether the answer to the marker has come.
func (e *wireEnd) marked() bool {
	const n = marks + 2
	if len(e.got) < n {
		return false
	}
	var types strings.Builder
	for _, m := range e.got[len(e.got)-n:] {
		types.WriteByte(m.Type)
	}
	return types.String() == "Z"+strings.Repeat("3", marks)+"Z"
}

// script shows what was sent.
func script(parts []part) string {
	var b strings.Builder
	for _, p := range parts {
		for _, m := range p.messages {
			fmt.Fprintf(&b, "  %s\n", m)
		}
		if p.pause {
			b.WriteString("  (pause)\n")
		}
	}
	return b.String()
}
