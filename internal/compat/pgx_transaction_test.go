package compat_test

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func (p pgxPlay) transaction(s *scene) any {
	conn := p.connect(s)
	var all []any
	for i, commit := range []bool{true, false, true} {
		tx, err := conn.Begin(s.ctx)
		s.check(err)
		for j := range 3 {
			_, err = tx.Exec(s.ctx, "insert into parent values ($1)", 10*i+j)
			s.check(err)
		}
		rows, err := tx.Query(s.ctx, "select count(*) from parent")
		s.check(err)
		all = append(all, p.collect(s, rows))
		if commit {
			s.check(tx.Commit(s.ctx))
		} else {
			s.check(tx.Rollback(s.ctx))
		}
		all = append(all, string(conn.PgConn().TxStatus()))
	}
	return append(all, p.rows(s, conn, "select * from parent order by 1"))
}

func (p pgxPlay) savepoints(s *scene) any {
	conn := p.connect(s)
	var all []any
	s.check(pgx.BeginFunc(s.ctx, conn, func(tx pgx.Tx) error {
		for i := range 4 {
			nested, err := tx.Begin(s.ctx)
			s.check(err)
			_, err = nested.Exec(s.ctx, "insert into parent values ($1)", 100+i%2)
			all = append(all, sqlState(err))
			if err == nil {
				s.check(nested.Commit(s.ctx))
			} else {
				s.check(nested.Rollback(s.ctx))
			}
		}
		return nil
	}))
	return append(all, p.rows(s, conn, "select * from parent where id >= $1 order by 1", 100))
}

func (p pgxPlay) readOnly(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	const write = "insert into parent values ($1)"
	var all []any
	tx, err := one.BeginTx(s.ctx, pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly, DeferrableMode: pgx.Deferrable})
	s.check(err)
	all = append(all, p.rows(s, one, "select current_setting('transaction_isolation')"), p.state(s, one, write, 200))
	s.check(tx.Rollback(s.ctx))
	p.exec(s, one, "set session characteristics as transaction read only")
	return append(all, p.state(s, one, write, 201), p.state(s, other, write, 202), p.state(s, one, write, 203))
}

func (p pgxPlay) twoPhase(s *scene) any {
	one, other := p.connect(s), p.connect(s)
	name := "'" + p.at.database + "'" // the names are the cluster's, not the database's
	p.exec(s, one, "begin")
	p.exec(s, one, "insert into parent values ($1)", 300)
	all := []any{p.exec(s, one, "prepare transaction "+name), string(one.PgConn().TxStatus())}
	all = append(all, p.rows(s, other, "select count(*) from parent where id = $1", 300))
	all = append(all, p.exec(s, other, "commit prepared "+name))
	return append(all, p.rows(s, one, "select count(*) from parent where id = $1", 300))
}

func (p pgxPlay) errors(s *scene) any {
	conn := p.connect(s)
	var all []any
	for _, sql := range []string{
		"select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
		"insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')", "select $1::int from nowhere",
	} {
		args := []any{1}[:0]
		if sql == "select $1::int from nowhere" {
			args = append(args, 1)
		}
		all = append(all, p.state(s, conn, sql, args...), p.rows(s, conn, "select $1::int", 1))
	}
	all = append(all, p.state(s, conn, "select $1::text::int", "no number"))
	_, err := conn.Exec(s.ctx, "select fail('22000')")
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		all = append(all, []string{e.Severity, e.Message, e.Detail, e.Hint, e.Where, e.Routine})
	}
	return all
}

func (p pgxPlay) failedTransaction(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.Begin(s.ctx)
	s.check(err)
	all := []any{p.state(s, conn, "select 1/0"), string(conn.PgConn().TxStatus()), p.state(s, conn, "select $1::int", 1), p.state(s, conn, "select 1")}
	all = append(all, fmt.Sprint(tx.Commit(s.ctx)), string(conn.PgConn().TxStatus()))
	return append(all, p.rows(s, conn, "select $1::int", 1))
}

func (p pgxPlay) deferredConstraint(s *scene) any {
	conn := p.connect(s)
	tx, err := conn.Begin(s.ctx)
	s.check(err)
	all := []any{p.exec(s, conn, "insert into child values ($1, $2)", 1, 99)}
	all = append(all, sqlState(tx.Commit(s.ctx)), string(conn.PgConn().TxStatus()))
	all = append(all, p.state(s, conn, "insert into child values ($1, $2)", 1, 99)) // at the end of the statement
	return append(all, p.rows(s, conn, "select count(*) from child"))
}

func (p pgxPlay) notices(s *scene) any {
	config, err := pgx.ParseConfig(p.at.url())
	s.check(err)
	var heard []string
	config.DefaultQueryExecMode = p.mode
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { heard = append(heard, n.Severity+" "+n.Message+" "+n.Detail) }
	conn, err := pgx.ConnectConfig(s.ctx, config)
	s.check(err)
	s.atEnd(func() { _ = conn.Close(s.ctx) })
	rows := p.rows(s, conn, "select shout($1) from wide", "hey")
	p.exec(s, conn, "drop table if exists nowhere")
	return []any{rows, heard}
}

// await runs a query until it answers with true, on a connection of its own.
func (p pgxPlay) await(s *scene, sql string) {
	conn := p.connect(s)
	for ok := false; !ok; {
		s.check(conn.QueryRow(s.ctx, sql).Scan(&ok))
	}
}

// while runs a query and, while the server executes it, does something else. It returns the query's error.
func (p pgxPlay) while(s *scene, conn *pgx.Conn, sql string, do func()) error {
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(s.ctx, sql)
		ended <- err
	}()
	p.await(s, asleep(sql))
	do()
	return <-ended
}

func (p pgxPlay) cancel(s *scene) any {
	conn := p.connect(s)
	var all []any
	for i := range 3 {
		err := p.while(s, conn, fmt.Sprintf("select pg_sleep(60), %d", i), func() { s.check(conn.PgConn().CancelRequest(s.ctx)) })
		all = append(all, sqlState(err), p.rows(s, conn, "select $1::int", i))
	}
	return all
}

func (p pgxPlay) timeout(s *scene) any {
	conn := p.connect(s)
	p.exec(s, conn, "set statement_timeout = 100")
	all := []any{p.state(s, conn, "select pg_sleep(60)"), p.rows(s, conn, "show statement_timeout")}
	p.exec(s, conn, "reset statement_timeout")
	return append(all, p.rows(s, conn, "show statement_timeout"), p.state(s, conn, "select pg_sleep(0.2)"))
}

func (p pgxPlay) terminated(s *scene) any {
	conn := p.connect(s)
	const sql = "select pg_sleep(61)"
	err := p.while(s, conn, sql, func() {
		p.exec(s, p.connect(s), terminate(sql))
	})
	return []any{sqlState(err), conn.IsClosed(), p.rows(s, p.connect(s), "select 1")}
}
