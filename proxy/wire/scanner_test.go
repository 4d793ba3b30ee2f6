package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/wire"
)

// message is one message of a given type and body length.
func message(t byte, body int) []byte {
	b := make([]byte, 5+body)
	b[0] = t
	binary.BigEndian.PutUint32(b[1:], uint32(4+body))
	return b
}

// header is a header alone, with any length word.
func header(t byte, length uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{t}, length)
}

func TestScanner_lengthsAreCheckedByType(t *testing.T) {
	const small, large = 10_000, 0x3ffffffe
	for _, row := range []struct {
		types string
		max   uint32
		from  *wire.Classes
	}{
		{"QPBFd", large, wire.FromClient()},
		{"DCESHXcf", small, wire.FromClient()},
		{"DdTtNAVGHWESCK", 0x7fffffff, wire.FromServer()},
		{"123nIscZ", small, wire.FromServer()},
	} {
		for _, typ := range []byte(row.types) {
			for _, length := range []uint32{0, 3, row.max + 1, 0x80000000, 0xffffffff} {
				s := wire.MakeScanner(row.from, 1<<20)
				p, err := s.Next(header(typ, length))
				require.EqualError(t, err, "invalid message length", "%c %d", typ, length)
				require.Empty(t, p.Data)
				var violation *wire.ProtocolError
				require.ErrorAs(t, err, &violation)
				require.Equal(t, "08P01", violation.SQLState())
			}
			for _, length := range []uint32{4, 5, row.max - 1, row.max} {
				s := wire.MakeScanner(row.from, 1<<20)
				p, err := s.Next(header(typ, length))
				require.NoError(t, err, "%c %d", typ, length)
				require.Equal(t, int(length)+1, p.Size)
			}
		}
	}
}

func TestScanner_typesOfOneDirectionOnly(t *testing.T) {
	for from, known := range map[*wire.Classes]string{
		wire.FromClient(): "QPBFDCESHXcfd",
		wire.FromServer(): "KZTDCENA123nstIGHWdcVS",
	} {
		for typ := range 256 {
			s := wire.MakeScanner(from, 1<<20)
			_, err := s.Next([]byte{byte(typ)}) // the type alone tells, as for the server
			if strings.IndexByte(known, byte(typ)) >= 0 {
				require.NoError(t, err, "%q", typ)
			} else {
				require.EqualError(t, err, fmt.Sprintf("invalid frontend message type %d", typ))
			}
		}
	}
}

func TestScanner_classSaysHowMuchIsWanted(t *testing.T) {
	const limit = 100
	for _, row := range []struct {
		name      string
		msg       []byte
		have      int // bytes of it that are there
		data      int // bytes of it that are returned
		end       bool
		leftAfter int
	}{
		{"no header yet", message(wire.Query, 10), 4, 0, false, 0},
		{"Whole waits for all of it", message(wire.Query, 10), 14, 0, false, 0},
		{"Whole is returned at once", message(wire.Query, 10), 15, 15, true, 0},
		{"Whole of the limit is waited for", message(wire.Query, limit-5), limit - 1, 0, false, 0},
		{"Whole beyond the limit is streamed", message(wire.Query, limit-4), limit - 1, limit - 1, false, 2},
		{"Cut comes as soon as its header", message(wire.Bind, 10), 5, 5, false, 10},
		{"Note comes as soon as its header", message(wire.FunctionCall, 10), 6, 6, false, 9},
		{"Pass comes as soon as its header", message(wire.CopyData, 10), 7, 7, false, 8},
	} {
		s := wire.MakeScanner(wire.FromClient(), limit)
		p, err := s.Next(row.msg[:row.have])
		require.NoError(t, err, row.name)
		require.Len(t, p.Data, row.data, row.name)
		require.Equal(t, row.end, p.End && len(p.Data) > 0, row.name)
		require.Equal(t, row.leftAfter, s.Left(), row.name)
		if row.leftAfter > 0 {
			p, err = s.Next(append(row.msg[row.have:], 'Q'))
			require.NoError(t, err, row.name)
			require.Len(t, p.Data, row.leftAfter, row.name)
			require.True(t, p.End && !p.Start, row.name)
		}
	}
}

func TestScanner_runOfPassMessagesIsOnePiece(t *testing.T) {
	rows := bytes.Repeat(message(wire.DataRow, 20), 3)
	s := wire.MakeScanner(wire.FromServer(), 1<<20)
	p, err := s.Next(append(bytes.Clone(rows), message(wire.ReadyForQuery, 1)...))
	require.NoError(t, err)
	require.Equal(t, rows, p.Data)
	require.True(t, p.Start && p.End)

	p, err = s.Next(rows[:60]) // the third row is cut
	require.NoError(t, err)
	require.Len(t, p.Data, 60)
	require.False(t, p.End)
	require.Equal(t, 15, s.Left())
	p, err = s.Next(rows[60:])
	require.NoError(t, err)
	require.True(t, p.End && !p.Start && len(p.Data) == 15)
}

// What stands before a fault is returned, whatever it is in one buffer with.
func TestScanner_faultBehindARunLosesNothing(t *testing.T) {
	rows := bytes.Repeat(message(wire.CopyData, 20), 2)
	s := wire.MakeScanner(wire.FromClient(), 1<<20)
	p, err := s.Next(append(bytes.Clone(rows), header(wire.CopyData, 3)...))
	require.NoError(t, err)
	require.Equal(t, rows, p.Data)
	_, err = s.Next(header(wire.CopyData, 3))
	require.EqualError(t, err, "invalid message length")
}

func TestScanner_unreadGivesTheBeginningBack(t *testing.T) {
	bind := append(message(wire.Bind, 20), message(wire.Sync, 0)...)
	s := wire.MakeScanner(wire.FromClient(), 1<<20)
	p, err := s.Next(bind[:7])
	require.NoError(t, err)
	require.True(t, p.Start && !p.End)
	s.Unread()
	p, err = s.Next(bind)
	require.NoError(t, err)
	require.Equal(t, bind[:25], p.Data)
	require.True(t, p.Start && p.End)
}

func TestScanner_nothingIsAllocated(t *testing.T) {
	client := slicesOf(message(wire.Parse, 50), message(wire.Bind, 60), message(wire.Describe, 5), message(wire.Execute, 5),
		message(wire.CopyData, 90), message(wire.CopyData, 90), message(wire.Sync, 0))
	server := slicesOf(message('1', 0), message('2', 0), message('T', 70), message('D', 30), message('D', 30), message('C', 9), message('Z', 1))
	for _, direction := range []struct {
		classes *wire.Classes
		stream  []byte
	}{{wire.FromClient(), client}, {wire.FromServer(), server}} {
		s := wire.MakeScanner(direction.classes, 1<<20)
		require.Zero(t, testing.AllocsPerRun(100, func() {
			for _, cut := range []int{len(direction.stream), 70} {
				for rest := direction.stream; len(rest) > 0; {
					p, err := s.Next(rest[:min(cut, len(rest))])
					if err != nil || len(p.Data) == 0 {
						p, err = s.Next(rest)
					}
					if err != nil || len(p.Data) == 0 {
						t.Fatal("the stream is sound")
					}
					rest = rest[len(p.Data):]
				}
			}
		}))
	}
}

func slicesOf(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// seen is a message as the reader of a stream has seen it.
type seen struct {
	at, size int
	typ      byte
}

// outcome is what becomes of a stream: the messages that began, how many bytes were taken, and the error behind them.
type outcome struct {
	messages []seen
	taken    int
	fault    string
}

// whole reads a stream that is there at once, message by message, without a Scanner.
func whole(stream []byte, types string, limits map[byte]uint32, waits string, limit int) (o outcome) {
	for at := 0; ; {
		rest := stream[at:]
		o.taken = at
		switch {
		case len(rest) == 0:
			return o
		case strings.IndexByte(types, rest[0]) < 0:
			o.fault = fmt.Sprintf("invalid frontend message type %d", rest[0])
			return o
		case len(rest) < 5:
			return o
		}
		length := binary.BigEndian.Uint32(rest[1:])
		most, small := limits[rest[0]]
		if !small {
			most = limits[0]
		}
		if length < 4 || length > most {
			o.fault = "invalid message length"
			return o
		}
		size := int(length) + 1
		if len(rest) < size && strings.IndexByte(waits, rest[0]) >= 0 && size <= limit {
			return o // it is wanted whole and is not there yet
		}
		o.messages = append(o.messages, seen{at, size, rest[0]})
		at += size
		if at >= len(stream) {
			o.taken = len(stream)
			return o
		}
	}
}

// inChunks reads a stream as it arrives in chunks. A piece of class Cut is given back until eager bytes of it are there.
func inChunks(t *testing.T, s wire.Scanner, stream, cuts []byte, eager int) (o outcome) {
	t.Helper()
	var out []byte
	arrived := 0
	for i := 0; arrived < len(stream); i++ {
		arrived = min(len(stream), arrived+1+chunk(cuts, i))
		for o.taken < arrived {
			p, err := s.Next(stream[o.taken:arrived])
			if err != nil {
				var violation *wire.ProtocolError
				require.ErrorAs(t, err, &violation)
				require.Empty(t, p.Data)
				o.fault = err.Error()
				return o
			}
			if p.Class == wire.Cut && p.Start && !p.End && len(p.Data) < eager && arrived < len(stream) {
				s.Unread()
				break
			}
			if len(p.Data) == 0 {
				break
			}
			o.note(t, p)
			out = append(out, p.Data...)
			o.taken += len(p.Data)
			require.Equal(t, p.End, s.Left() == 0)
		}
	}
	require.Equal(t, string(stream[:o.taken]), string(out))
	return o
}

// note takes the messages that a piece begins.
func (o *outcome) note(t *testing.T, p wire.Piece) {
	t.Helper()
	if !p.Start {
		return
	}
	for at := 0; at < len(p.Data); {
		size := int(binary.BigEndian.Uint32(p.Data[at+1:])) + 1
		o.messages = append(o.messages, seen{o.taken + at, size, p.Data[at]})
		if at == 0 {
			require.Equal(t, size, p.Size)
			require.Equal(t, p.Data[0], p.Type)
		} else {
			require.Equal(t, wire.Pass, p.Class, "only messages that pass come in runs")
		}
		at += size
	}
}

// chunk is the length of the i-th chunk, less one.
func chunk(cuts []byte, i int) int {
	if len(cuts) == 0 {
		return 0
	}
	return int(cuts[i%len(cuts)])
}

// Whatever way a stream is cut, in either direction, the same messages, the same bytes and the same error come out, at the
// same places.
func FuzzScanner(f *testing.F) {
	small := map[byte]uint32{0: 0x3ffffffe}
	for _, typ := range []byte("DCESHXcf") {
		small[typ] = 10_000
	}
	replies := map[byte]uint32{0: 0x7fffffff}
	for _, typ := range []byte("123nIscZ") {
		replies[typ] = 10_000
	}
	f.Add(false, uint16(100), byte(9), []byte{0}, slicesOf(message('P', 20), message('B', 30), message('E', 5), message('S', 0)))
	f.Add(false, uint16(10), byte(90), []byte{6, 0, 3}, slicesOf(message('Q', 20), message('d', 30), message('d', 5), header('d', 3)))
	f.Add(false, uint16(10), byte(0), []byte{255}, slicesOf(message('d', 200), message('d', 3), message('c', 0), header('f', 10_001)))
	f.Add(true, uint16(50), byte(0), []byte{3, 1}, slicesOf(message('T', 20), message('D', 30), message('D', 0), message('C', 9), message('Z', 1), []byte("Q")))
	f.Add(true, uint16(0), byte(0), []byte{4}, slicesOf(message('E', 40), message('S', 10), header('D', 0xffffffff)))
	f.Fuzz(func(t *testing.T, server bool, limit uint16, eager byte, cuts, stream []byte) {
		classes, types, limits, waits := wire.FromClient(), "QPBFDCESHXcfd", small, "QPDC"
		if server {
			classes, types, limits, waits = wire.FromServer(), "KZTDCENA123nstIGHWdcVS", replies, "ESCKZ"
		}
		want := whole(stream, types, limits, waits, int(limit))
		got := inChunks(t, wire.MakeScanner(classes, int(limit)), stream, cuts, int(eager))
		require.Equal(t, want, got)
	})
}
