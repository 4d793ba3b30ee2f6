package compat_test

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
)

func pqDriver() sqlDriver {
	return sqlDriver{
		module: "github.com/lib/pq",
		open: func(url string, notice func(string)) (*sql.DB, error) {
			connector, err := pq.NewConnector(url)
			if err != nil {
				return nil, err
			}
			return sql.OpenDB(pq.ConnectorWithNoticeHandler(connector, func(n *pq.Error) { notice(n.Severity + " " + n.Message + " " + n.Detail) })), nil
		},
		copyIn: pqCopyIn,
		listen: pqListen,
	}
}

// pqCopyIn goes by a prepared statement inside a transaction.
func pqCopyIn(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error {
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	statement, err := tx.PrepareContext(ctx, pq.CopyIn(table, columns...))
	if err != nil {
		return errors.Join(err, tx.Rollback())
	}
	for _, row := range rows {
		if _, err = statement.ExecContext(ctx, row...); err != nil {
			break
		}
	}
	if err == nil {
		_, err = statement.ExecContext(ctx)
	}
	if err = errors.Join(err, statement.Close()); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

func pqListen(s *scene, at target, channel string, n int, ready func()) []string {
	listener := pq.NewListener(at.url(), time.Second, time.Minute, nil)
	defer listener.Close()
	s.check(listener.Listen(channel))
	ready()
	var payloads []string
	for len(payloads) < n {
		select {
		case got := <-listener.Notify:
			payloads = append(payloads, got.Extra)
		case <-s.ctx.Done():
			s.check(s.ctx.Err())
		}
	}
	s.check(listener.Ping())
	s.check(listener.Unlisten(channel))
	return payloads
}

func stdlibDriver() sqlDriver {
	return sqlDriver{
		module: "github.com/jackc/pgx/v5",
		open: func(url string, notice func(string)) (*sql.DB, error) {
			config, err := pgx.ParseConfig(url)
			if err != nil {
				return nil, err
			}
			config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notice(n.Severity + " " + n.Message + " " + n.Detail) }
			return stdlib.OpenDB(*config), nil
		},
		copyIn: func(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error {
			return conn.Raw(func(raw any) error {
				_, err := raw.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
				return err
			})
		},
		listen: stdlibListen,
	}
}

func stdlibListen(s *scene, at target, channel string, n int, ready func()) []string {
	db, err := sql.Open("pgx", at.url())
	s.check(err)
	s.atEnd(func() { _ = db.Close() })
	conn, err := db.Conn(s.ctx)
	s.check(err)
	defer conn.Close()
	_, err = conn.ExecContext(s.ctx, "listen "+channel)
	s.check(err)
	ready()
	var payloads []string
	s.check(conn.Raw(func(raw any) error {
		for len(payloads) < n {
			got, err := raw.(*stdlib.Conn).Conn().WaitForNotification(s.ctx)
			if err != nil {
				return err
			}
			payloads = append(payloads, got.Payload)
		}
		return nil
	}))
	return payloads
}
