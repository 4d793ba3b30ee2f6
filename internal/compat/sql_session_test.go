package compat_test

import (
	"fmt"
	"strings"
)

func (p sqlPlay) copyIn(s *scene) any {
	conn := p.connect(s)
	rows := make([][]any, 20000)
	for i := range rows {
		rows[i] = []any{10000 + i, fmt.Sprint("copied\t", i)}
	}
	s.check(p.driver.copyIn(s.ctx, conn, "item", []string{"id", "name"}, rows))
	return p.rows(s, conn, "select count(*), sum(id), max(name) from item where id >= $1", 10000)
}

func (p sqlPlay) failedCopy(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, row := range [][]any{{71, nil}, {1, "twice"}} {
		err := p.driver.copyIn(s.ctx, conn, "item", []string{"id", "name"}, [][]any{{70, "x"}, row, {1, "again"}})
		all = append(all, sqlState(err), p.rows(s, conn, "select $1::int", 1))
	}
	return append(all, p.rows(s, conn, "select count(*) from item where id between $1 and 90", 70))
}

func (p sqlPlay) cursor(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.BeginTx(s.ctx, nil)
	s.check(err)
	p.exec(s, tx, "declare c scroll cursor for select i from generate_series(1, 1000) i")
	var all []any
	for _, fetch := range []string{"fetch 3 from c", "fetch 3 from c", "fetch backward 2 from c", "fetch last from c"} {
		all = append(all, p.rows(s, tx, fetch))
	}
	s.check(tx.Commit())
	p.exec(s, conn, "declare kept cursor with hold for select i from generate_series(1, 10) i")
	all = append(all, p.rows(s, conn, "fetch 2 from kept"), p.rows(s, p.connect(s), "select count(*) from pg_cursors where name = 'kept'"))
	all = append(all, p.rows(s, conn, "fetch 2 from kept"))
	p.exec(s, conn, "close kept")
	return append(all, p.state(s, conn, "fetch 1 from kept"))
}

func (p sqlPlay) notify(s *scene) any {
	notifier := p.connect(s)
	payloads := p.driver.listen(s, p.at, "news", 2, func() {
		p.exec(s, notifier, "notify news, 'one'")
		p.exec(s, notifier, "notify other, 'unheard'")
		p.exec(s, notifier, "select pg_notify('news', $1)", strings.Repeat("x", 7000))
	})
	return []any{payloads, p.rows(s, notifier, "select count(*) from pg_listening_channels()")}
}

func (p sqlPlay) settings(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	// A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
	const show = `select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
		current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')`
	var all []any
	both := func() { all = append(all, p.rows(s, one, show), p.rows(s, other, show)) }
	both()
	for _, query := range []string{
		"set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", "set search_path = pg_catalog, public", "set application_name = 'one''s'",
		"select set_config('work_mem', '7MB', false)", "set my.own = 'x'",
	} {
		p.exec(s, one, query)
		both()
	}
	for _, end := range []string{"rollback", "commit"} {
		p.exec(s, one, "begin")
		p.exec(s, one, "set local work_mem = '1MB'")
		all = append(all, p.rows(s, one, show))
		p.exec(s, one, end)
		both()
	}
	p.exec(s, one, "reset all")
	both()
	return all
}

func (p sqlPlay) sessionState(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	p.exec(s, one, "create temp table mine (id int)")
	p.exec(s, one, "insert into mine values ($1)", 1)
	all := []any{p.state(s, other, "select * from mine"), p.rows(s, one, "select * from mine")}
	p.exec(s, one, "drop table mine")
	p.exec(s, one, "select pg_advisory_lock($1)", 7)
	all = append(all, p.rows(s, other, "select pg_try_advisory_lock($1)", 7), p.rows(s, one, "select pg_advisory_unlock($1)", 7))
	all = append(all, p.rows(s, other, "select pg_try_advisory_lock($1)", 7), p.rows(s, other, "select pg_advisory_unlock($1)", 7))
	p.exec(s, one, "prepare by_sql as select $1::int + 1")
	all = append(all, p.state(s, other, "execute by_sql(1)"), p.rows(s, one, "execute by_sql(1)"))
	p.exec(s, one, "set role pg_monitor")
	all = append(all, p.rows(s, one, "select current_user"), p.rows(s, other, "select current_user"))
	p.exec(s, one, "reset role")
	return append(all, p.rows(s, one, "select current_user"))
}

func (p sqlPlay) reset(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	p.exec(s, one, "set work_mem = '8MB'")
	p.exec(s, one, "create temp table gone (id int)")
	p.exec(s, one, "select pg_advisory_lock(8)")
	p.exec(s, one, "discard all")
	return []any{
		p.rows(s, one, "show work_mem"), p.state(s, one, "select * from gone"),
		p.rows(s, other, "select pg_try_advisory_lock(8)"), p.rows(s, other, "select pg_advisory_unlock_all()"), p.rows(s, other, "show work_mem"),
	}
}
