package proxy_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// liveBytes is how much memory is in use after a collection.
func liveBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// peak watches the memory that is in use while something runs, and returns the most that was seen above what it was before.
func peak(run func()) int64 {
	before := liveBytes()
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		var m runtime.MemStats
		var highest int64
		for {
			runtime.ReadMemStats(&m)
			highest = max(highest, int64(m.HeapInuse))
			select {
			case <-tick.C:
			case <-stop:
				most <- highest
				return
			}
		}
	}()
	run()
	close(stop)
	return <-most - before
}

// buffer is the size of the buffer that the proxy reads into. What is longer does not fit it.
const buffer = 64 << 10

// Names, texts and parameters around the size of the buffer and ten times that.
func TestLarge_namesTextsAndParameters(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	a, b := raw(t, p.url()), raw(t, p.url())
	for _, size := range []int{buffer - 100, buffer - 20, buffer - 1, buffer, buffer + 1, 4*buffer + 1, 10 * buffer, 1<<20 - 20, 1 << 20, 1<<20 + 1, 3 << 20} {
		long := strings.Repeat("n", size)
		text := "select $1::text || 'x' as column /* " + long + " */"
		for _, name := range []string{"", "short", fmt.Sprint(size) + long} {
			heard := a.say(parse(name, text), bind(name, long), describePortal(""), execute(), syncNow())
			requireEqual(t, []string{"1", "2", "T column", "D " + long + "x", "C SELECT 1", "Z I"}, heard, size)
			require.Equal(t, "D b", b.say(together(parse("", "select 'b'"), run(""))...)[2])
			requireEqual(t, []string{"2", "D againx", "C SELECT 1", "Z I"}, a.say(run(name, "again")...), size)
			if len(name) < 10_000 { // the limit of a Close
				a.say(closeStatement(name), syncNow())
			}
		}
		requireEqual(t, []string{"T column", "D " + long, "C SELECT 1", "Z I"}, a.say(query("select '"+long+"' as column")), size)
		heard := a.say(parse("", "select 1"), bindPortal(long, ""), executePortal(long[:9000], 0), syncNow())
		requireEqual(t, []string{"1", "2", "D 1", "C SELECT 1", "Z I"}, heard, size) // the rest of such a name means nothing
	}
}

// requireEqual compares what is too long to be shown.
func requireEqual(t *testing.T, want, got []string, size int) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	short := func(all []string) (out []string) {
		for _, one := range all {
			out = append(out, one[:min(len(one), 60)])
		}
		return out
	}
	t.Fatalf("size %d: want %q, got %q", size, short(want), short(got))
}

// filler yields a number of bytes without holding them.
type filler int64

func (f *filler) Read(b []byte) (int, error) {
	if *f == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(b)), int64(*f))
	for i := range b[:n] {
		b[i] = 'x'
	}
	*f -= filler(n)
	return int(n), nil
}

// sendStreamed sends a Bind of one parameter of so many bytes, that are nowhere held together.
func sendStreamed(t *testing.T, conn net.Conn, statement string, size int) {
	t.Helper()
	head := []byte{'B', 0, 0, 0, 0, 0}
	head = append(append(head, statement...), 0, 0, 0, 0, 1)
	head = binary.BigEndian.AppendUint32(head, uint32(size))
	binary.BigEndian.PutUint32(head[1:], uint32(len(head)-1+size+2))
	rest := filler(size)
	_, err := io.Copy(conn, io.MultiReader(bytes.NewReader(head), &rest, bytes.NewReader([]byte{0, 0})))
	require.NoError(t, err)
}

// A parameter of 200 MB, and a result of 200 MB, pass without being held.
func TestLarge_200MBAreStreamed(t *testing.T) {
	const size = 200 << 20
	p := poolOf(t, pgtest.Shared(t, 0), 1)
	a := raw(t, p.url())
	a.say(parse("length", "select length($1)"), parse("rows", "select repeat('r', 1 << 20) from generate_series(1, 200)"),
		parse("row", "select repeat('y', $1::int)"), syncNow())
	require.NoError(t, a.Conn.SetDeadline(time.Now().Add(2*time.Minute)))
	require.Less(t, peak(func() {
		sendStreamed(t, a.Conn, "length", size)
		a.Send(execute(), syncNow())
		require.NoError(t, a.Conn.SetDeadline(time.Now().Add(2*time.Minute)))
		require.Equal(t, "2", a.Receive().String())
	}), int64(32<<20), "parameter")
	require.Equal(t, []string{fmt.Sprint("D ", size), "C SELECT 1", "Z I"}, a.hear(1))

	for _, ask := range [][]pgproto3.Message{run("rows"), run("row", fmt.Sprint(size))} {
		require.Less(t, peak(func() {
			a.Send(ask...)
			require.NoError(t, a.Conn.SetDeadline(time.Now().Add(2*time.Minute)))
			require.GreaterOrEqual(t, swallow(t, a.Conn), int64(size))
		}), int64(32<<20), "result")
	}
}

// swallow reads messages up to ReadyForQuery without holding them, and returns how many bytes they were.
func swallow(t *testing.T, conn net.Conn) (bytes int64) {
	t.Helper()
	var header [5]byte
	for {
		_, err := io.ReadFull(conn, header[:])
		require.NoError(t, err)
		n, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(header[1:]))-4)
		require.NoError(t, err)
		bytes += n + 5
		if header[0] == 'Z' {
			return bytes
		}
	}
}

// A client that reads nothing holds back its own server and nothing else: no memory, and no other client. When it reads, it
// gets everything.
func TestLarge_clientThatReadsLateGetsEverything(t *testing.T) {
	const size = 64 << 20
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	a, b := raw(t, p.url()), raw(t, p.url())
	require.Less(t, peak(func() {
		a.Send(query(fmt.Sprintf("select repeat('x', 1 << 20) from generate_series(1, %d)", size>>20)))
		await(t, "back-pressure", func() bool { return p.Snapshot().Totals.BytesToClients > 100_000 })
		for i := range 200 {
			require.Equal(t, fmt.Sprint("D ", i), b.say(query(fmt.Sprint("select ", i)))[1])
		}
		require.Less(t, p.Snapshot().Totals.BytesToClients, uint64(size/2), "the server is held back")
		require.GreaterOrEqual(t, swallow(t, a.Conn), int64(size))
	}), int64(16<<20))
	require.Equal(t, "D done", a.say(query("select 'done'"))[1])
}

// A server that does not read (it waits for a lock) holds back its client and nothing else.
func TestLarge_serverThatReadsLateGetsEverything(t *testing.T) {
	const size = 64 << 20
	c := pgtest.Shared(t, 0)
	p := poolOf(t, c, 2)
	a, b := raw(t, p.url()), raw(t, p.url())
	lock := pgtest.Connect(t, c.URL("postgres", "postgres"))
	one(t, lock, "select pg_advisory_lock(61)")
	a.say(parse("length", "select length($1)"), syncNow())
	require.NoError(t, a.Conn.SetDeadline(time.Now().Add(2*time.Minute)))
	require.Less(t, peak(func() {
		a.Send(query("begin"), query("select pg_advisory_xact_lock_shared(61)"))
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			sendStreamed(t, a.Conn, "length", size)
		}()
		await(t, "back-pressure", func() bool { return p.Snapshot().Totals.BytesToServers > 100_000 })
		for i := range 200 {
			require.Equal(t, fmt.Sprint("D ", i), b.say(query(fmt.Sprint("select ", i)))[1])
		}
		require.Less(t, p.Snapshot().Totals.BytesToServers, uint64(size/2), "the client is held back")
		one(t, lock, "select pg_advisory_unlock(61)")
		<-sent
	}), int64(16<<20))
	a.Send(execute(), syncNow(), query("commit"))
	require.Equal(t, []string{
		"C BEGIN", "Z T", "T pg_advisory_xact_lock_shared", "D", "C SELECT 1", "Z T",
		"2", fmt.Sprint("D ", size), "C SELECT 1", "Z T", "C COMMIT", "Z I",
	}, a.hear(4))
}

// Both ways at once: a client that sends far more requests than it reads answers does not lock up with its server.
func TestLarge_pipelineThatIsNotRead(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 1)
	a := raw(t, p.url())
	a.say(parse("s", "select $1 || repeat('x', 1000)"), syncNow())
	const requests, length = 5000, 2000
	parameter := strings.Repeat("p", length)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range requests {
			a.Send(run("s", parameter)...)
		}
	}()
	await(t, "a full pipeline", func() bool { return p.Snapshot().Totals.BytesToClients > 200_000 })
	want := "D " + parameter + strings.Repeat("x", 1000)
	for i := range requests {
		heard := a.hear(1)
		require.Len(t, heard, 4, "request %d: %.200q", i, heard)
		require.Equal(t, want, heard[1], "request %d", i)
	}
	<-sent
}

// A message that claims to be longer, or shorter, than PostgreSQL would take is refused before it comes.
func TestLarge_lengthsThatNoMessageHas(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 1)
	b := raw(t, p.url())
	for _, header := range [][]byte{
		{'Q', 0x7f, 0xff, 0xff, 0xff},
		{'Q', 0xff, 0xff, 0xff, 0xff},
		{'B', 0, 0, 0, 3},
		{'S', 0, 1, 0, 0},
		{'D', 0, 0, 0x4e, 0x20},
		{'y', 0, 0, 0, 4},
	} {
		a := raw(t, p.url())
		a.SendBytes(header)
		a.Expect("E 08P01")
		a.ExpectEnd()
		require.Equal(t, "D 1", b.say(query("select 1"))[1])
	}
	require.Equal(t, 1, p.idle(t))
}
