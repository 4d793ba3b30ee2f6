package proxy_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/internal/pgtest"
)

// text is SQL with what a client that sends it has to know: how many parameters it takes, and how many copies it reads.
type text struct {
	sql        string
	parameters int
	copies     int
}

// part is a span of messages that are written together.
type part struct {
	messages []sent
	pause    bool // wait for all answers that these messages make the server give
}

// sent is a message that a client sends; raw is used for what is not a sound one.
type sent struct {
	pgproto3.Message
	raw []byte
}

func (s sent) String() string {
	b := s.encode()
	if s.raw != nil {
		return fmt.Sprintf("%q", b)
	}
	return pgtest.Message{Type: b[0], Body: b[5:], FromClient: true}.String()
}

func (s sent) encode() []byte {
	if s.raw != nil {
		return s.raw
	}
	b, err := s.Message.(interface {
		Encode(dst []byte) ([]byte, error)
	}).Encode(nil)
	if err != nil {
		panic(err)
	}
	return b
}

func (p part) bytes() (b []byte) {
	for _, m := range p.messages {
		b = append(b, m.encode()...)
	}
	return b
}

// drawer draws what one client does. It remembers what it has prepared so that most of it makes sense; whether it does is
// for the server to say.
type drawer struct {
	client  int
	serial  int
	texts   map[string]text // by the name of the statement
	portals map[string]text // that were bound since the latest end of a transaction that there may have been
	parts   []part
	rng     *rand.Rand
}

func (d *drawer) forget() {
	clear(d.texts)
	clear(d.portals)
}

// modelSchema makes the tables of a client.
func modelSchema(client int) string {
	return fmt.Sprintf(`
		create table t%[1]d (a int, b text);
		create table u%[1]d (a int primary key);
		create table d%[1]d (a int unique deferrable initially deferred);
		create table f%[1]d (a int);
		create function fail%[1]d() returns trigger language plpgsql as 'begin raise exception ''not today''; end';
		create trigger fail before insert on f%[1]d for each statement execute function fail%[1]d();`, client)
}

// step draws what a client does up to a point where all is answered.
func (d *drawer) step(rng *rand.Rand) []part {
	d.rng, d.parts = rng, []part{{}}
	for range 1 + rng.IntN(10) {
		d.message()
	}
	d.send(&pgproto3.CopyFail{Message: "end"})
	if d.chance(4) {
		d.send(&pgproto3.Sync{})
		d.send(&pgproto3.Query{String: "rollback"})
	}
	d.send(&pgproto3.Sync{})
	for range marks {
		d.send(&pgproto3.Close{ObjectType: 'P', Name: "none"})
	}
	d.send(&pgproto3.Sync{})
	return d.parts
}

func (d *drawer) send(m pgproto3.Message) {
	switch m.(type) {
	case *pgproto3.Sync, *pgproto3.Query, *pgproto3.FunctionCall:
		clear(d.portals)
	}
	d.add(sent{Message: m})
}

func (d *drawer) add(m sent) {
	last := &d.parts[len(d.parts)-1]
	last.messages = append(last.messages, m)
	if d.chance(12) {
		d.parts = append(d.parts, part{})
		last = &d.parts[len(d.parts)-2]
		last.pause = d.chance(3)
	}
}

// chance is true once in n times.
func (d *drawer) chance(n int) bool { return d.rng.IntN(n) == 0 }

func pick[T any](d *drawer, from ...T) T { return from[d.rng.IntN(len(from))] }

func (d *drawer) statementName() string {
	return pick(d, "", "", "s1", "s1", "s2", "s3", "s4", "unknown")
}

func (d *drawer) portalName() string { return pick(d, "", "", "", "p1", "p2") }

// message draws one message, or a few that belong together.
func (d *drawer) message() {
	switch n := d.rng.IntN(100); {
	case n < 18:
		d.statement(d.statementName(), d.text())
	case n < 36: // the usual sequence
		name, t := d.statementName(), d.text()
		if d.chance(2) {
			d.statement(name, t)
		} else {
			t = d.texts[name]
		}
		if d.chance(3) {
			d.send(&pgproto3.Describe{ObjectType: 'S', Name: name})
		}
		d.bind("", name, t)
		if d.chance(3) {
			d.send(&pgproto3.Describe{ObjectType: 'P'})
		}
		d.execute("")
		if !d.chance(4) {
			d.send(&pgproto3.Sync{})
		}
	case n < 46:
		name := d.statementName()
		d.bind(d.portalName(), name, d.texts[name])
	case n < 54:
		d.execute(d.portalName())
	case n < 56:
		d.suspend()
	case n < 61:
		d.send(&pgproto3.Describe{ObjectType: 'S', Name: d.statementName()})
	case n < 64:
		d.send(&pgproto3.Describe{ObjectType: 'P', Name: d.portalName()})
	case n < 69:
		name := d.statementName()
		d.send(&pgproto3.Close{ObjectType: 'S', Name: name})
		delete(d.texts, name)
	case n < 71:
		d.send(&pgproto3.Close{ObjectType: 'P', Name: d.portalName()})
	case n < 79:
		d.send(&pgproto3.Sync{})
	case n < 83:
		d.send(&pgproto3.Flush{})
	case n < 93:
		t := d.text()
		d.send(&pgproto3.Query{String: t.sql})
		d.copyData(t.copies)
	case n < 95:
		d.functionCall()
	case n < 97:
		d.lateCopy()
	default:
		d.add(sent{raw: d.malformed()})
	}
}

func (d *drawer) statement(name string, t text) {
	d.send(&pgproto3.Parse{Name: name, Query: t.sql})
	d.texts[name] = t
}

func (d *drawer) bind(portal, name string, t text) {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: name}
	n := t.parameters
	if d.chance(15) {
		n = d.rng.IntN(3)
	}
	for range n {
		m.Parameters = append(m.Parameters, pick(d, []byte("1"), []byte("42"), []byte("7"), nil, []byte("word")))
	}
	if d.chance(5) {
		m.ResultFormatCodes = []int16{1}
	}
	d.send(m)
	d.portals[portal] = t
}

// execute executes a portal that was bound since the latest Sync, or none that exists: PostgreSQL (15 to 18) crashes when one
// is executed that is left from before its transaction has failed.
func (d *drawer) execute(portal string) {
	if _, ok := d.portals[portal]; !ok {
		portal = "none"
	}
	d.send(&pgproto3.Execute{Portal: portal, MaxRows: pick[uint32](d, 0, 0, 0, 1, 2)})
	if d.chance(8) && d.portals[portal].copies > 0 {
		d.send(&pgproto3.Sync{}) // as a client does that does not know what it executes
	}
	d.copyData(d.portals[portal].copies)
}

// suspend executes a portal bit by bit, with Syncs between. Its name is its own.
func (d *drawer) suspend() {
	d.serial++
	portal := fmt.Sprint("suspended", d.serial)
	if d.chance(2) {
		d.send(&pgproto3.Query{String: "begin"})
	}
	d.statement("", text{sql: fmt.Sprintf("select g, 'c%d' from generate_series(1, 5) g", d.client)})
	d.bind(portal, "", text{})
	for range 1 + d.rng.IntN(3) {
		d.send(&pgproto3.Execute{Portal: portal, MaxRows: 2})
		if d.chance(3) {
			d.send(&pgproto3.Sync{})
		}
	}
}

// copyData draws the data of copies that have perhaps begun.
func (d *drawer) copyData(copies int) {
	for range copies {
		if d.chance(20) {
			return // what comes instead ends the connection, if a copy has begun
		}
		for range d.rng.IntN(4) {
			switch d.rng.IntN(12) {
			case 0:
				d.send(&pgproto3.Sync{})
			case 1:
				d.send(&pgproto3.Flush{})
			case 2:
				d.send(&pgproto3.CopyData{Data: []byte("bad\tdata\tindeed\n")})
			case 3:
				d.send(&pgproto3.CopyData{Data: []byte("5\tno end")})
			default:
				d.send(&pgproto3.CopyData{Data: fmt.Appendf(nil, "%d\trow of c%d\n", d.rng.IntN(100), d.client)})
			}
		}
		if d.chance(5) {
			d.send(&pgproto3.CopyFail{Message: "no more"})
		} else {
			d.send(&pgproto3.CopyDone{})
		}
		if d.chance(2) {
			d.send(&pgproto3.Sync{})
		}
	}
}

// lateCopy draws copy messages that come when no copy is going on, most of the time.
func (d *drawer) lateCopy() {
	for range 1 + d.rng.IntN(3) {
		d.send(pick[pgproto3.Message](d, &pgproto3.CopyData{Data: []byte("1\tlate\n")}, &pgproto3.CopyDone{}, &pgproto3.CopyFail{Message: "late"}))
	}
}

// functionCall calls abs(int4), or nothing that exists.
func (d *drawer) functionCall() {
	d.send(&pgproto3.FunctionCall{
		Function: pick[uint32](d, 1397, 1397, 1397, 1), ArgFormatCodes: []uint16{0},
		Arguments: [][]byte{pick(d, []byte("-5"), []byte("x"), nil)}, ResultFormatCode: 0,
	})
}

// text draws SQL. What it returns tells the client, and often the very text.
func (d *drawer) text() text {
	d.serial++
	table := func(format string) string { return fmt.Sprintf(format, d.client) }
	own := func(format string) string { return fmt.Sprintf(format, d.client, d.serial) }
	return pick(
		d,
		text{sql: own("select 'c%d-%d'")},
		text{sql: own("select 'c%d', 'n' || %d")},
		text{sql: table("select 'c%d'")},
		text{sql: "select 'shared by all'"},
		text{sql: "select $1::int4 + 1", parameters: 1},
		text{sql: "select $1::text, $2::int4", parameters: 2},
		text{sql: own("select $1::text || 'c%d-%d'"), parameters: 1},
		text{sql: table("select g, 'c%d' from generate_series(1, 5) g")},
		text{sql: table("select g, 'c%d' from generate_series(1, 5) g")},
		text{sql: "select 1 / (3 - g) from generate_series(1, 5) g"},
		text{sql: "select 1 / 0"},
		text{sql: "selec nonsense"},
		text{sql: "select * from nosuch"},
		text{sql: table("insert into t%d values (1, 'x')")},
		text{sql: table("insert into t%d values ($1, $2) returning a"), parameters: 2},
		text{sql: table("insert into u%d values (1)")},
		text{sql: table("insert into d%d values (1)")},
		text{sql: table("delete from u%[1]d; delete from d%[1]d; delete from t%[1]d")},
		text{sql: table("delete from d%d")},
		text{sql: table("select count(*), 'c%[1]d' from t%[1]d")},
		text{sql: "begin"}, text{sql: "begin"}, text{sql: "begin"},
		text{sql: "commit"}, text{sql: "commit"}, text{sql: "rollback"}, text{sql: "rollback"},
		text{sql: "savepoint a"}, text{sql: "rollback to a"}, text{sql: "release a"},
		text{sql: ""}, text{sql: " ; -- nothing"},
		text{sql: table("copy t%d from stdin"), copies: 1},
		text{sql: table("copy t%d from stdin"), copies: 1},
		text{sql: table("copy f%d from stdin"), copies: 1},
		text{sql: table("copy t%d from stdin (format csv, delimiter e'\\t')"), copies: 1},
		text{sql: table("copy t%[1]d from stdin; select 'c%[1]d'; copy t%[1]d from stdin"), copies: 2},
		text{sql: "copy nosuch from stdin", copies: 1},
		text{sql: "copy (select g from generate_series(1, 3) g) to stdout"},
		text{sql: "copy (select 1 / (2 - g) from generate_series(1, 3) g) to stdout (format binary)"},
		text{sql: own("select 1; select 'c%d-%d'; select 1 / 0; select 2")},
		text{sql: own("select 1; select 'c%d-%d'")},
		text{sql: "begin; select 1"}, text{sql: "commit; begin"}, text{sql: "begin; select 1 / 0"},
		text{sql: "set local work_mem = '5MB'"}, text{sql: "show work_mem"},
		text{sql: "declare cur cursor for select g from generate_series(1, 5) g"},
		text{sql: "fetch 2 from cur"}, text{sql: "close cur"},
		text{sql: "deallocate s1"}, text{sql: "deallocate s2"}, text{sql: "deallocate all"}, text{sql: "deallocate nosuch"},
		text{sql: "discard all"},
		text{sql: "do $$begin raise notice 'heard'; end$$"},
	)
}

// malformed draws a message whose body is not what its type asks for. Its length is right.
func (d *drawer) malformed() []byte {
	framed := func(t byte, body string) []byte {
		b := binary.BigEndian.AppendUint32([]byte{t}, uint32(4+len(body)))
		return append(b, body...)
	}
	return pick(
		d,
		framed('Q', ""), framed('Q', "select 1"), framed('Q', ";"), framed('Q', ";\x00more"), framed('Q', "select 1\x00more"),
		framed('P', ""), framed('P', "s1\x00"), framed('P', "s1\x00select 1\x00"), framed('P', "s1\x00select 1\x00\x00\x02\x00\x00\x00\x17"),
		framed('P', "\x00select 1\x00\x00\x00more"),
		framed('B', ""), framed('B', "\x00"), framed('B', "\x00s1\x00"), framed('B', "\x00\x00\x00\x00\x00\x05\x00\x00"),
		framed('B', "\x00s1\x00\x00\x02\x00\x00\x00\x01"), framed('B', "\x00unknown"),
		framed('D', ""), framed('D', "S"), framed('D', "Xs1\x00"), framed('D', "Ss1\x00more"), framed('D', "Ss1"),
		framed('C', ""), framed('C', "Xs1\x00"), framed('C', "Ss1"), framed('C', "Ss1\x00more"),
		framed('E', ""), framed('E', "\x00"), framed('E', "\x00\x00\x00\x00\x00more"),
		framed('S', "more"), framed('H', "more"), framed('F', ""), framed('F', "\x00\x00\x05\x75\x00\x00"), framed('c', "more"),
	)
}
