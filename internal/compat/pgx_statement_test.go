package compat_test

import (
	"crypto/md5"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

func (p pgxPlay) types(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, one := range []struct {
		sql   string
		value any
	}{
		{"$1::int2", int16(-7)},
		{"$1::int4", int32(1 << 30)},
		{"$1::int8", int64(math.MinInt64)},
		{"$1::float8", 1.0 / 3},
		{"$1::numeric", "12345678901234567890.123456789"},
		{"$1::text", `it's "quoted" \ and % $1 ?`},
		{"$1::bool", true},
		{"$1::bytea", []byte{0, 1, '\\', '\'', 255}},
		{"$1::timestamptz", time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC)},
		{"$1::date", time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)},
		{"$1::interval", "1 year 2 mons 3 days 04:05:06.789"},
		{"$1::uuid", "00112233-4455-6677-8899-aabbccddeeff"},
		{"$1::jsonb", `{"a": [1, null, "ü"]}`},
		{"$1::int4[]", []int32{1, 2, 3}},
		{"$1::text[]", []string{"a,b", `c"d`, ""}},
		{"$1::inet", "192.168.0.1/24"},
		{"$1::text::mood", "happy"},
		{"$1::int4range", "[1,10)"},
	} {
		all = append(all, p.rows(s, conn, "select "+one.sql+", pg_typeof("+one.sql+")::text", one.value))
	}
	return all
}

func (p pgxPlay) nulls(s *scene) any {
	conn := p.connect(s)
	got := p.rows(s, conn, "select $1::text, $2::int, $3::text[], coalesce($1::text, 'was null'), ''", nil, nil, nil)
	p.exec(s, conn, "insert into item values (1, 'nothing', $1, $2, $3)", nil, nil, nil)
	return append(got, p.rows(s, conn, "select * from item where price is not distinct from $1", nil)...)
}

func (p pgxPlay) unicode(s *scene) any {
	conn := p.connect(s)
	const name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t"
	p.exec(s, conn, `create temp table "Tab ä" ("Spalte 名" text)`)
	p.exec(s, conn, `insert into "Tab ä" values ($1)`, name)
	return p.rows(s, conn, `select *, length("Spalte 名"), octet_length("Spalte 名") from "Tab ä" where "Spalte 名" = $1`, name)
}

// bigSize is larger than every buffer on the way, and than what the proxy holds of one message.
const bigSize = 5 << 20

func (p pgxPlay) bigValues(s *scene) any {
	conn := p.connect(s)
	big := strings.Repeat("0123456789abcde\n", bigSize/16)
	var echoed string
	var raw []byte
	s.check(conn.QueryRow(s.ctx, "select $1::text", big).Scan(&echoed))
	s.check(conn.QueryRow(s.ctx, "select $1::bytea", []byte(big)).Scan(&raw))
	var length int
	s.check(conn.QueryRow(s.ctx, "select length('"+big+"')").Scan(&length)) // the text of the statement is as long
	return []any{len(echoed), echoed == big, len(raw), fmt.Sprintf("%x", md5.Sum(raw)), length, p.rows(s, conn, "select 1")}
}

func (p pgxPlay) prepared(s *scene) any {
	conn := p.connect(s)
	var all []any
	sum := 0
	for i := range 25 {
		var n int
		s.check(conn.QueryRow(s.ctx, "select $1::int * 2", i).Scan(&n))
		sum += n
	}
	for range 3 {
		_, err := conn.Prepare(s.ctx, "mine", "select id, a from wide where id = $1")
		s.check(err)
		for i := range 3 {
			all = append(all, p.rows(s, conn, "mine", i))
		}
		s.check(conn.Deallocate(s.ctx, "mine"))
	}
	_, err := conn.Prepare(s.ctx, "left", "select 1")
	s.check(err)
	s.check(conn.DeallocateAll(s.ctx))
	_, err = conn.Prepare(s.ctx, "left", "select 2")
	s.check(err)
	return append(all, sum, p.rows(s, conn, "left"))
}

func (p pgxPlay) equalNames(s *scene) any {
	var conns []*pgx.Conn
	for i := range 6 {
		conn := p.connect(s)
		_, err := conn.Prepare(s.ctx, "same", fmt.Sprintf("select '%d'::text, $1::int + %d", i, i*100))
		s.check(err)
		conns = append(conns, conn)
	}
	var all []any
	for round := range 10 {
		for _, conn := range conns {
			all = append(all, p.rows(s, conn, "same", round))
		}
	}
	return all
}

func (p pgxPlay) pipeline(s *scene) any {
	conn := p.connect(s)
	batch := &pgx.Batch{}
	for i := range 20 {
		batch.Queue("insert into item (id, name) values ($1, $2)", 100+i, fmt.Sprint("item ", i))
		batch.Queue("select count(*), max(name) from item where id >= $1", 100)
	}
	batch.Queue("select * from wide")
	results := conn.SendBatch(s.ctx, batch)
	var all []any
	for range 20 {
		tag, err := results.Exec()
		s.check(err)
		rows, err := results.Query()
		s.check(err)
		all = append(all, tag.String(), p.collect(s, rows))
	}
	rows, err := results.Query()
	s.check(err)
	all = append(all, p.collect(s, rows))
	s.check(results.Close())
	return append(all, p.manySyncs(s, conn))
}

// manySyncs is a pipeline with transactions of its own, one of which fails.
func (p pgxPlay) manySyncs(s *scene, conn *pgx.Conn) any {
	pipeline := conn.PgConn().StartPipeline(s.ctx)
	for _, sql := range []string{"select 1", "select 1/0", "select 3"} {
		pipeline.SendQueryParams(sql, nil, nil, nil, nil)
		pipeline.SendQueryParams("select 'after '||$1", [][]byte{[]byte(sql)}, nil, nil, nil)
		s.check(pipeline.Sync())
	}
	var all []string
	for range 9 {
		got, err := pipeline.GetResults()
		all = append(all, fmt.Sprintf("%T %s", got, sqlState(err)))
		if got == nil && err == nil {
			break
		}
		if reader, ok := got.(interface{ Close() error }); ok {
			_ = reader.Close()
		}
	}
	return append(all, sqlState(pipeline.Close()))
}

func (p pgxPlay) failedPipeline(s *scene) any {
	conn := p.connect(s)
	batch := &pgx.Batch{}
	batch.Queue("insert into item (id, name) values (200, 'first')")
	batch.Queue("select $1::int / $2::int", 1, 0)
	batch.Queue("insert into item (id, name) values (201, 'never')")
	results := conn.SendBatch(s.ctx, batch)
	_, first := results.Exec()
	_, second := results.Exec()
	_, third := results.Exec()
	return []any{
		sqlState(first), sqlState(second), sqlState(third), sqlState(results.Close()),
		p.rows(s, conn, "select count(*) from item where id >= $1", 200), p.rows(s, conn, "select 1"),
	}
}

func (p pgxPlay) severalResults(s *scene) any {
	conn := p.connect(s)
	results, err := conn.PgConn().Exec(s.ctx, "select 1; insert into item (id, name) values (300, 'x'); select * from wide; select 1/0; select 2").ReadAll()
	var all []any
	for _, result := range results {
		all = append(all, result.CommandTag.String(), len(result.Rows), sqlState(result.Err))
	}
	return append(all, sqlState(err), p.rows(s, conn, "select count(*) from item where id = $1", 300))
}

func (p pgxPlay) schemaChange(s *scene, one, last *pgx.Conn) any {
	const sql = "select * from wide where id = $1"
	for range 3 {
		p.rows(s, one, sql, 1)
		p.rows(s, last, sql, 1)
	}
	p.exec(s, one, fmt.Sprintf("alter table wide add b%t int default 5", one == last))
	return []any{p.atLast(s, one, sql, 1), p.atLast(s, last, sql, 2)}
}

// atLast runs a query until its prepared statement knows of a change of the schema. What the driver is told meanwhile is
// not compared: the proxy prepares statements anew on its own.
func (p pgxPlay) atLast(s *scene, conn *pgx.Conn, sql string, args ...any) [][]string {
	for range 3 {
		rows, err := conn.Query(s.ctx, sql, args...)
		s.check(err)
		rows.Close()
		if rows.Err() == nil {
			break
		}
	}
	return p.rows(s, conn, sql, args...)
}
