package compat_test

import (
	"crypto/md5"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"time"
)

func (p sqlPlay) types(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, one := range []struct {
		query string
		value any
	}{
		{"$1::int2", int64(-7)},
		{"$1::int8", int64(math.MinInt64)},
		{"$1::float8", 1.0 / 3},
		{"$1::numeric", "12345678901234567890.123456789"},
		{"$1::text", `it's "quoted" \ and % $1 ?`},
		{"$1::bool", true},
		{"$1::bytea", []byte{0, 1, '\\', '\'', 255}},
		{"$1::timestamptz", time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC)},
		{"$1::date", "1969-12-31"},
		{"$1::interval", "1 year 2 mons 3 days 04:05:06.789"},
		{"$1::uuid", "00112233-4455-6677-8899-aabbccddeeff"},
		{"$1::jsonb", `{"a": [1, null, "ü"]}`},
		{"$1::int4[]", "{1,2,3}"},
		{"$1::text::mood", "happy"},
	} {
		all = append(all, p.rows(s, conn, "select "+one.query+", pg_typeof("+one.query+")::text", one.value))
	}
	return all
}

func (p sqlPlay) nulls(s *scene) any {
	conn := p.connect(s)
	got := p.rows(s, conn, "select $1::text, $2::int, coalesce($3::text, 'was null'), ''", nil, sql.NullInt64{}, nil)
	p.exec(s, conn, "insert into item values (1, 'nothing', $1, $2, $3)", nil, nil, nil)
	return append(got, p.rows(s, conn, "select * from item where price is not distinct from $1", nil)...)
}

func (p sqlPlay) unicode(s *scene) any {
	conn := p.connect(s)
	const name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t"
	p.exec(s, conn, `create temp table "Tab ä" ("Spalte 名" text)`)
	p.exec(s, conn, `insert into "Tab ä" values ($1)`, name)
	return p.rows(s, conn, `select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = $1`, name)
}

func (p sqlPlay) bigValues(s *scene) any {
	conn := p.connect(s)
	big := strings.Repeat("0123456789abcde\n", bigSize/16)
	var echoed string
	var raw []byte
	var length int
	s.check(conn.QueryRowContext(s.ctx, "select $1::text", big).Scan(&echoed))
	s.check(conn.QueryRowContext(s.ctx, "select $1::bytea", []byte(big)).Scan(&raw))
	s.check(conn.QueryRowContext(s.ctx, "select length('"+big+"')").Scan(&length)) // the text of the statement is as long
	return []any{echoed == big, len(raw), fmt.Sprintf("%x", md5.Sum(raw)), length, p.rows(s, conn, "select 1")}
}

func (p sqlPlay) prepared(s *scene) any {
	conn := p.connect(s)
	var all []any
	for i := range 25 {
		all = append(all, p.rows(s, conn, "select $1::int * 2", i))
	}
	for i := range 3 {
		statement, err := conn.PrepareContext(s.ctx, fmt.Sprintf("select id, a, %d from wide where id = $1", i))
		s.check(err)
		for j := range 3 {
			rows, err := statement.QueryContext(s.ctx, j)
			s.check(err)
			all = append(all, p.collect(s, rows))
			s.check(rows.Err())
			s.check(rows.Close())
		}
		s.check(statement.Close())
	}
	return all
}

// equalNames has statements of several connections executed in turn; drivers number them on each connection from 1.
func (p sqlPlay) equalNames(s *scene) any {
	var statements []*sql.Stmt
	for i := range 6 {
		statement, err := p.connect(s).PrepareContext(s.ctx, fmt.Sprintf("select '%d'::text, $1::int + %d", i, i*100))
		s.check(err)
		s.atEnd(func() { _ = statement.Close() })
		statements = append(statements, statement)
	}
	var all []string
	for round := range 10 {
		for _, statement := range statements {
			var name string
			var n int
			s.check(statement.QueryRowContext(s.ctx, round).Scan(&name, &n))
			all = append(all, fmt.Sprint(name, " ", n))
		}
	}
	return all
}

func (p sqlPlay) severalResults(s *scene) any {
	conn := p.connect(s)
	rows, err := conn.QueryContext(s.ctx, "select 1; select * from wide; select 'x', 2")
	if sqlState(err) == "42601" {
		s.absent("one statement a query")
	}
	s.check(err)
	defer rows.Close()
	all := []any{p.collect(s, rows)}
	for rows.NextResultSet() {
		all = append(all, p.collect(s, rows))
	}
	s.check(rows.Err())
	return append(all, p.state(s, conn, "insert into item (id, name) values (300, 'x'); select 1/0; select 2"),
		p.rows(s, conn, "select count(*) from item where id = $1", 300))
}

func (p sqlPlay) schemaChange(s *scene, one, last *sql.Conn) any {
	const query = "select * from wide where id = $1"
	for range 3 {
		p.rows(s, one, query, 1)
		p.rows(s, last, query, 1)
	}
	p.exec(s, one, fmt.Sprintf("alter table wide add b%t int default 5", one == last))
	return []any{p.atLast(s, one, query, 1), p.atLast(s, last, query, 2)}
}

// atLast is as that of pgxPlay.
func (p sqlPlay) atLast(s *scene, conn *sql.Conn, query string, args ...any) [][]string {
	for range 3 {
		if p.state(s, conn, query, args...) == "none" {
			break
		}
	}
	return p.rows(s, conn, query, args...)
}

func (p sqlPlay) manyRows(s *scene) any {
	conn := p.connect(s)
	rows, err := conn.QueryContext(s.ctx, "select i, repeat('x', i % 100) from generate_series(1, $1::int) i", 50000)
	s.check(err)
	defer rows.Close()
	n, length := 0, 0
	for rows.Next() {
		var i int
		var x string
		s.check(rows.Scan(&i, &x))
		n, length = n+1, length+len(x)
	}
	s.check(rows.Err())
	again, err := conn.QueryContext(s.ctx, "select i from generate_series(1, $1::int) i", 50000)
	s.check(err)
	again.Next()
	s.check(again.Close()) // the rest is read over
	s.check(again.Err())
	return []any{n, length, p.rows(s, conn, "select 1")}
}
