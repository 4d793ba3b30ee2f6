package proxy_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// prelude begins a COPY in the ways that there are: how it is asked for, and what ends it after the data.
type prelude struct {
	ask, end []pgproto3.Message
}

func preludes(sql string) map[string]prelude {
	return map[string]prelude{
		"simple":   {ask: []pgproto3.Message{query(sql)}},
		"extended": {ask: []pgproto3.Message{parse("", sql), bind(""), describePortal(""), execute()}, end: []pgproto3.Message{syncNow()}},
		// libpq sends a Sync ahead of the data, which the server ignores, and another one behind it.
		"with a Sync ahead": {ask: []pgproto3.Message{parse("", sql), bind(""), execute(), ignored{syncNow()}}, end: []pgproto3.Message{syncNow()}},
		"prepared":          {ask: []pgproto3.Message{parse("copy", sql), bind("copy"), execute()}, end: []pgproto3.Message{closeStatement("copy"), syncNow()}},
	}
}

// ignored is a Sync that the server reads among copy data and does not answer.
type ignored struct{ pgproto3.Message }

// PgBouncer's #1025.
func TestCopy_inEveryProtocolWithEveryOutcome(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		name := table(t, c, "a int primary key, b text")
		rows := []pgproto3.Message{copyData("1\tone\n2\t"), copyData("two\n"), copyData("3\tthree\n")}
		for how, begin := range preludes("copy " + name + " from stdin") {
			t.Run(how, func(t *testing.T) {
				p := poolOf(t, c, 1) // a server that is not given back would be missed
				direct, a, b := raw(t, c.URL("postgres", "postgres")), raw(t, p.url()), raw(t, p.url())
				for what, data := range map[string][]pgproto3.Message{
					"success":                  together(rows, copyDone()),
					"no rows":                  {copyDone()},
					"CopyFail":                 together(rows, copyFail("changed my mind")),
					"CopyFail at once":         {copyFail("")},
					"error before CopyDone":    together(copyData("1\tone\nx\ttwo\n"), rows, rows, copyDone()),
					"error at CopyDone":        together(rows, copyData("4"), copyDone()),
					"error in the last row":    together(rows, copyData("1\tagain\n"), copyDone()),
					"Flush among the data":     together(rows, flushNow(), copyData("4\tfour\n"), flushNow(), copyDone()),
					"data behind the end mark": together(rows, copyData("\\.\n"), copyDone()),
				} {
					fresh, count := query("truncate "+name), query("select count(*) from "+name)
					for _, step := range [][]any{
						{fresh, begin.ask, data, begin.end, count},
						{fresh, query("begin"), query("select 1"), begin.ask, data, begin.end, query("select 1"), query("rollback"), count},
						{fresh, query("begin"), begin.ask, data, begin.end, query("commit"), count},
					} {
						send := together(step...)
						require.Equal(t, direct.say(send...), a.say(send...), "%s: %s", what, pgtest.Strings(decoded(t, send)))
						if direct.say(syncNow())[0] == "Z I" {
							require.Equal(t, "D free", b.say(query("select 'free'"))[1], what)
						}
					}
				}
				require.Equal(t, 1, p.idle(t))
			})
		}
	})
}

// The client learns of the server's error in the middle of the data, and goes on sending: data, CopyDone, CopyFail come when
// the server has been given back, or is at another client's service.
// PgBouncer's #1471.
func TestCopy_dataBehindTheErrorGoesNowhere(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		name := table(t, c, "a int")
		for how, begin := range preludes("copy " + name + " from stdin") {
			t.Run(how, func(t *testing.T) {
				p := poolOf(t, c, 1)
				a, b := raw(t, p.url()), raw(t, p.url())
				for range 20 {
					a.Send(append(append([]pgproto3.Message{}, begin.ask...), copyData("not a number\n"))...)
					a.ReceiveUntil('E')
					if begin.end == nil { // simple: the server is free already
						a.Expect("Z I")
						b.say(query("select 1"))
					}
					a.Send(copyData("1\n"))
					if begin.end == nil {
						require.Equal(t, "D 2", b.say(query("select 2"))[1])
					}
					a.Send(copyData("2\n"), copyDone(), copyDone(), copyFail("late"))
					if begin.end != nil {
						require.Equal(t, "Z I", a.say(syncNow())[0])
					}
					require.Equal(t, "D 3", a.say(query("select 3"))[1])
					require.Equal(t, []string{"T count", "D 0", "C SELECT 1", "Z I"}, b.say(query("select count(*) from "+name)))
					a.say(closeStatement("copy"), syncNow())
				}
			})
		}
	})
}

func TestCopy_outInEveryProtocol(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		for _, sql := range []string{
			"copy (select n, repeat('x', n) from generate_series(1, 50) n) to stdout",
			"copy (select n from generate_series(1, 5) n) to stdout with binary",
			"copy (select 1 where false) to stdout",
			"copy (select 1 / (3 - n) from generate_series(1, 5) n) to stdout", // fails in the middle
		} {
			for _, begin := range preludes(sql) {
				var ask []pgproto3.Message
				for _, m := range begin.ask {
					if early, is := m.(ignored); is {
						m = early.Message // not ignored here: there is nothing to send
					}
					ask = append(ask, m)
				}
				requireSame(t, c, poolOf(t, c, 1),
					[]any{ask, begin.end},
					[]any{query("begin"), query("select 1"), ask, begin.end, query("rollback")},
					[]any{ask, begin.end, query("select 'next'"), closeStatement("copy"), syncNow(), ask, begin.end},
				)
			}
		}
	})
}

// Several COPYs in one Query, and COPYs in one pipeline.
func TestCopy_severalInOnePipeline(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		name := table(t, c, "a int")
		in, out := "copy "+name+" from stdin", "copy "+name+" to stdout"
		requireSame(t, c, poolOf(t, c, 1),
			[]any{query("truncate " + name), query(in + ";" + out + ";" + in), copyData("1\n"), copyDone(), copyData("2\n"), copyDone(), query("select 'next'")},
			[]any{query("truncate " + name), query(in), copyData("3\n"), copyDone(), query(in), copyData("4\n"), copyDone(), query(out)},
			[]any{query("truncate " + name), query(in), copyData("no\n"), copyDone(), query(in), copyData("5\n"), copyDone(), query(out)},
			[]any{query("truncate " + name), parse("in", in), bind("in"), execute(), copyData("6\n"), copyDone(), parse("out", out), bind("out"), execute(), syncNow(), run("out")},
			[]any{bind("in"), execute(), copyData("no\n"), copyDone(), bind("out"), execute(), syncNow(), run("out")},
		)
	})
}

// summed is a reader or writer of COPY data that adds up what passes.
type summed struct {
	hash.Hash
	left int
	row  int
}

// Read makes rows until enough have been made.
func (s *summed) Read(b []byte) (int, error) {
	n := 0
	for s.left > 0 && len(b)-n > 120 {
		row := fmt.Appendf(b[n:n], "%d\t%x\n", s.row, sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(s.row))))
		s.row++
		s.left -= len(row)
		n += len(row)
	}
	_, _ = s.Write(b[:n])
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestCopy_50MBBothWaysAreTheSame(t *testing.T) {
	c := pgtest.Shared(t, 0)
	name := table(t, c, "a int, b text")
	p := poolOf(t, c, 1)
	conn := pgtest.Connect(t, p.url()).PgConn()
	ctx := context.WithoutCancel(t.Context())
	in := &summed{Hash: sha256.New(), left: 50 << 20}
	before := liveBytes()
	tag, err := conn.CopyFrom(ctx, in, "copy "+name+" from stdin")
	require.NoError(t, err)
	require.EqualValues(t, in.row, tag.RowsAffected())
	out := sha256.New()
	tag, err = conn.CopyTo(ctx, out, "copy (select * from "+name+" order by a) to stdout")
	require.NoError(t, err)
	require.EqualValues(t, in.row, tag.RowsAffected())
	require.Equal(t, in.Sum(nil), out.Sum(nil))
	require.Less(t, liveBytes()-before, int64(16<<20))
}
