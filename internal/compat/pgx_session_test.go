package compat_test

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func (p pgxPlay) copyIn(s *scene) any {
	conn := p.connect(s)
	n, err := conn.CopyFrom(s.ctx, pgx.Identifier{"item"}, []string{"id", "name", "price"}, pgx.CopyFromSlice(20000, func(i int) ([]any, error) {
		return []any{10000 + i, fmt.Sprint("copied ", i), float64(i) / 4}, nil
	}))
	s.check(err)
	tag, err := conn.PgConn().CopyFrom(s.ctx, strings.NewReader("7\tseven\n8\t\\N\n"), "copy wide (id, a) from stdin")
	s.check(err)
	return []any{n, p.rows(s, conn, "select count(*), sum(id), sum(price)::text from item where id >= $1", 10000), tag.String()}
}

func (p pgxPlay) copyOut(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, format := range []string{"text", "csv", "binary"} {
		var out bytes.Buffer
		tag, err := conn.PgConn().CopyTo(s.ctx, &out, "copy (select i, 'row '||i from generate_series(1, 30000) i) to stdout with (format "+format+")")
		s.check(err)
		all = append(all, tag.String(), out.Len(), fmt.Sprintf("%x", md5.Sum(out.Bytes())))
	}
	return append(all, p.rows(s, conn, "select 1"))
}

func (p pgxPlay) failedCopy(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, data := range []string{"70\tx\nno number\tx\n", "71\tx\n1\ttwice\n", "72\n"} {
		_, err := conn.PgConn().CopyFrom(s.ctx, strings.NewReader(data), "copy wide (id, a) from stdin")
		all = append(all, sqlState(err), p.rows(s, conn, "select $1::int", 1))
	}
	_, err := conn.CopyFrom(s.ctx, pgx.Identifier{"wide"}, []string{"id"}, pgx.CopyFromSlice(10, func(i int) ([]any, error) {
		if i == 5 {
			return nil, errors.New("the source gives up")
		}
		return []any{80 + i}, nil
	}))
	_, out := conn.PgConn().CopyTo(s.ctx, &bytes.Buffer{}, "copy (select 1/(3-i) from generate_series(1, 5) i) to stdout")
	return append(all, sqlState(err) != "none", sqlState(out), p.rows(s, conn, "select count(*) from wide where id between $1 and 90", 70))
}

func (p pgxPlay) cursor(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.Begin(s.ctx)
	s.check(err)
	p.exec(s, conn, "declare c scroll cursor for select i from generate_series(1, 1000) i")
	var all []any
	for _, fetch := range []string{"fetch 3 from c", "fetch 3 from c", "fetch backward 2 from c", "fetch last from c"} {
		all = append(all, p.rows(s, conn, fetch))
	}
	p.exec(s, conn, "close c")
	s.check(tx.Commit(s.ctx))
	p.exec(s, conn, "declare kept cursor with hold for select i from generate_series(1, 10) i")
	all = append(all, p.rows(s, conn, "fetch 2 from kept"), p.rows(s, p.connect(s), "select count(*) from pg_cursors where name = 'kept'"))
	all = append(all, p.rows(s, conn, "fetch 2 from kept"))
	p.exec(s, conn, "close kept")
	return append(all, p.state(s, conn, "fetch 1 from kept"))
}

func (p pgxPlay) manyRows(s *scene) any {
	conn := p.connect(s)
	rows, err := conn.Query(s.ctx, "select i, repeat('x', i % 100) from generate_series(1, $1::int) i", 50000)
	s.check(err)
	n, length := 0, 0
	for rows.Next() {
		var i int
		var x string
		s.check(rows.Scan(&i, &x))
		n, length = n+1, length+len(x)
	}
	s.check(rows.Err())
	rows, err = conn.Query(s.ctx, "select i from generate_series(1, $1::int) i", 50000)
	s.check(err)
	rows.Next()
	rows.Close() // the rest is read over
	return []any{n, length, p.rows(s, conn, "select 1")}
}

func (p pgxPlay) notify(s *scene) any {
	listener, notifier := p.connect(s), p.connect(s)
	p.exec(s, listener, "listen news")
	p.exec(s, notifier, "notify news, 'one'")
	p.exec(s, notifier, "select pg_notify('news', $1)", strings.Repeat("x", 7000))
	p.exec(s, notifier, "notify other, 'unheard'")
	p.exec(s, listener, "notify news, 'own'")
	var all []any
	for range 3 {
		n, err := listener.WaitForNotification(s.ctx)
		s.check(err)
		all = append(all, n.Channel, len(n.Payload), n.Payload[:3])
	}
	p.exec(s, listener, "unlisten news")
	p.exec(s, notifier, "notify news, 'too late'")
	return append(all, p.rows(s, listener, "select count(*) from pg_listening_channels()"), p.rows(s, notifier, "select count(*) from pg_listening_channels()"))
}

func (p pgxPlay) settings(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	// A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
	const show = `select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
		current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')`
	var all []any
	both := func() { all = append(all, p.rows(s, one, show), p.rows(s, other, show)) }
	both()
	for _, sql := range []string{
		"set time zone 'Asia/Tokyo'", "set datestyle = 'German'", "set search_path = pg_catalog, public", "set application_name = 'one''s'",
		"select set_config('work_mem', '7MB', false)", "set my.own = 'x'",
	} {
		p.exec(s, one, sql)
		both()
	}
	p.exec(s, other, "set work_mem = '9MB'")
	both()
	p.exec(s, one, "begin")
	p.exec(s, one, "set work_mem = '1MB'")
	p.exec(s, one, "set local datestyle = 'SQL'")
	all = append(all, p.rows(s, one, show))
	p.exec(s, one, "rollback")
	both()
	p.exec(s, one, "begin")
	p.exec(s, one, "set local timezone = 'UTC'")
	p.exec(s, one, "commit")
	both()
	p.exec(s, one, "reset all")
	both()
	return append(all, one.PgConn().ParameterStatus("TimeZone"), other.PgConn().ParameterStatus("TimeZone"))
}

func (p pgxPlay) sessionState(s *scene) any {
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

func (p pgxPlay) reset(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	p.exec(s, one, "set work_mem = '8MB'")
	p.exec(s, one, "create temp table gone (id int)")
	p.exec(s, one, "listen news")
	p.exec(s, one, "select pg_advisory_lock($1)", 8)
	p.exec(s, one, "discard all")
	all := []any{p.rows(s, one, "show work_mem"), p.state(s, one, "select * from gone"), p.rows(s, one, "select count(*) from pg_listening_channels()")}
	all = append(all, p.rows(s, other, "select pg_try_advisory_lock(8)"), p.rows(s, other, "select pg_advisory_unlock_all()"))
	return append(all, p.rows(s, other, "show work_mem"), sqlState(one.DeallocateAll(s.ctx)), p.rows(s, one, "select $1::int", 2))
}

// pool is the driver's own pool, larger than the proxy's, with more tasks than it has connections.
func (p pgxPlay) pool(s *scene) any {
	config, err := pgxpool.ParseConfig(p.at.url())
	s.check(err)
	config.ConnConfig.DefaultQueryExecMode = p.mode
	config.MaxConns = 10
	pool, err := pgxpool.NewWithConfig(s.ctx, config)
	s.check(err)
	s.atEnd(pool.Close)
	failures := make([]error, 60)
	var tasks sync.WaitGroup
	for i := range failures {
		tasks.Go(func() { failures[i] = p.task(s, pool, i) })
	}
	tasks.Wait()
	s.check(errors.Join(failures...))
	return p.rows(s, p.connect(s), "select count(*), sum(id), count(distinct name) from item where id >= $1", 1000000)
}

func (p pgxPlay) task(s *scene, pool *pgxpool.Pool, i int) error {
	for j := range 5 {
		id := 1000000 + 10*i + j
		err := pgx.BeginFunc(s.ctx, pool, func(tx pgx.Tx) error {
			var found int
			if _, err := tx.Exec(s.ctx, "insert into item (id, name) values ($1, $2)", id, fmt.Sprint("task ", id)); err != nil {
				return err
			}
			return tx.QueryRow(s.ctx, "select id from item where name = $1", fmt.Sprint("task ", id)).Scan(&found)
		})
		if err != nil {
			return err
		}
		var n int
		if err := pool.QueryRow(s.ctx, fmt.Sprintf("select $1::int + %d", i%7), j).Scan(&n); err != nil || n != j+i%7 {
			return fmt.Errorf("wrong answer %d, %w", n, err)
		}
	}
	return nil
}
