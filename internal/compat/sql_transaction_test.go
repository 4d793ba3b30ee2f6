package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

func (p sqlPlay) transaction(s *scene) any {
	conn := p.connect(s)
	var all []any
	for i, commit := range []bool{true, false, true} {
		tx, err := conn.BeginTx(s.ctx, nil)
		s.check(err)
		for j := range 3 {
			p.exec(s, tx, "insert into parent values ($1)", 10*i+j)
		}
		all = append(all, p.rows(s, tx, "select count(*) from parent"))
		if commit {
			s.check(tx.Commit())
		} else {
			s.check(tx.Rollback())
		}
	}
	return append(all, p.rows(s, conn, "select * from parent order by 1"))
}

func (p sqlPlay) savepoints(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.BeginTx(s.ctx, nil)
	s.check(err)
	var all []any
	for i := range 4 {
		p.exec(s, tx, "savepoint s")
		got := p.state(s, tx, "insert into parent values ($1)", 100+i%2)
		all = append(all, got)
		if got == "none" {
			p.exec(s, tx, "release savepoint s")
		} else {
			p.exec(s, tx, "rollback to savepoint s")
		}
	}
	s.check(tx.Commit())
	return append(all, p.rows(s, conn, "select * from parent where id >= $1 order by 1", 100))
}

func (p sqlPlay) readOnly(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	const write = "insert into parent values ($1)"
	tx, err := one.BeginTx(s.ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	s.check(err)
	all := []any{p.rows(s, tx, "select current_setting('transaction_isolation')"), p.state(s, tx, write, 200)}
	s.check(tx.Rollback())
	p.exec(s, one, "set session characteristics as transaction read only")
	return append(all, p.state(s, one, write, 201), p.state(s, other, write, 202), p.state(s, one, write, 203))
}

func (p sqlPlay) twoPhase(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	name := "'" + p.at.database + "'" // the names are the cluster's, not the database's
	p.exec(s, one, "begin")
	p.exec(s, one, "insert into parent values ($1)", 300)
	p.exec(s, one, "prepare transaction "+name)
	all := []any{p.rows(s, other, "select count(*) from parent where id = $1", 300)}
	p.exec(s, other, "commit prepared "+name)
	return append(all, p.rows(s, one, "select count(*) from parent where id = $1", 300))
}

func (p sqlPlay) errors(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, query := range []string{
		"select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
		"insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
	} {
		all = append(all, p.state(s, conn, query), p.rows(s, conn, "select $1::int", 1))
	}
	return append(all, p.state(s, conn, "select $1::text::int", "no number"), p.state(s, conn, "select $1::int from nowhere", 1),
		p.rows(s, conn, "select $1::int", 1))
}

func (p sqlPlay) failedTransaction(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.BeginTx(s.ctx, nil)
	s.check(err)
	all := []any{p.state(s, tx, "select 1/0"), p.state(s, tx, "select $1::int", 1), p.state(s, tx, "select 1")}
	return append(all, sqlState(tx.Commit()), p.rows(s, conn, "select $1::int", 1))
}

func (p sqlPlay) deferredConstraint(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.BeginTx(s.ctx, nil)
	s.check(err)
	all := []any{p.exec(s, tx, "insert into child values ($1, $2)", 1, 99), sqlState(tx.Commit())}
	all = append(all, p.state(s, conn, "insert into child values ($1, $2)", 1, 99)) // at the end of the statement
	return append(all, p.rows(s, conn, "select count(*) from child"))
}

func (p sqlPlay) notices(s *scene) any {
	var heard []string
	db, err := p.driver.open(p.at.url(), func(notice string) { heard = append(heard, notice) })
	s.check(err)
	s.atEnd(func() { _ = db.Close() })
	rows := p.rows(s, db, "select shout($1) from wide", "hey")
	p.exec(s, db, "drop table if exists nowhere")
	return []any{rows, heard}
}

// while runs a query and, while the server executes it, does something else. It returns the query's error.
func (p sqlPlay) while(ctx context.Context, s *scene, conn *sql.Conn, query string, do func()) error {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.ExecContext(ctx, query)
		ended <- err
	}()
	p.await(s, asleep(query))
	do()
	return <-ended
}

// await runs a query until it answers with true, on a connection of its own.
func (p sqlPlay) await(s *scene, query string) {
	conn := p.connect(s)
	for ok := false; !ok; {
		s.check(conn.QueryRowContext(s.ctx, query).Scan(&ok))
	}
}

// cancel is by the context: the server has to give up the query, too.
func (p sqlPlay) cancel(s *scene) any {
	db := p.open(s, p.at)
	var all []any
	for i := range 3 {
		conn, err := db.Conn(s.ctx)
		s.check(err)
		ctx, cancel := context.WithCancel(s.ctx)
		query := fmt.Sprintf("select pg_sleep(60), %d", i)
		all = append(all, p.while(ctx, s, conn, query, cancel) != nil)
		p.await(s, "select not exists ("+asleep(query)+" having count(*) > 0)")
		_ = conn.Close() // the driver may have closed it already
		all = append(all, p.rows(s, db, "select $1::int", i))
	}
	return all
}

func (p sqlPlay) timeout(s *scene) any {
	conn := p.connect(s)
	p.exec(s, conn, "set statement_timeout = 100")
	all := []any{p.state(s, conn, "select pg_sleep(60)"), p.rows(s, conn, "show statement_timeout")}
	p.exec(s, conn, "reset statement_timeout")
	return append(all, p.rows(s, conn, "show statement_timeout"), p.state(s, conn, "select pg_sleep(0.2)"))
}

func (p sqlPlay) terminated(s *scene) any {
	db := p.open(s, p.at)
	conn, err := db.Conn(s.ctx)
	s.check(err)
	const query = "select pg_sleep(61)"
	err = p.while(s.ctx, s, conn, query, func() { p.exec(s, p.connect(s), terminate(query)) })
	_ = conn.Close()
	return []any{sqlState(err), p.rows(s, db, "select 1")} // the database connects anew
}

// pool is the database itself, with more connections than the proxy has, and more tasks than it has connections.
func (p sqlPlay) pool(s *scene) any {
	db := p.open(s, p.at)
	db.SetMaxOpenConns(10)
	failures := make([]error, 60)
	var tasks sync.WaitGroup
	for i := range failures {
		tasks.Go(func() { failures[i] = p.task(s, db, i) })
	}
	tasks.Wait()
	s.check(errors.Join(failures...))
	return p.rows(s, db, "select count(*), sum(id), count(distinct name) from item where id >= $1", 1000000)
}

func (p sqlPlay) task(s *scene, db *sql.DB, i int) error {
	for j := range 5 {
		id := 1000000 + 10*i + j
		tx, err := db.BeginTx(s.ctx, nil)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(s.ctx, "insert into item (id, name) values ($1, $2)", id, fmt.Sprint("task ", id))
		if err := errors.Join(err, tx.Commit()); err != nil {
			return err
		}
		var n int
		err = db.QueryRowContext(s.ctx, fmt.Sprintf("select $1::int + %d", i%7), j).Scan(&n)
		if err != nil || n != j+i%7 {
			return fmt.Errorf("wrong answer %d: %w", n, err)
		}
	}
	return nil
}
