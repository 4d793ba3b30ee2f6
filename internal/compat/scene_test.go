package compat_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
)

// situation is one that a driver for Go is put into. play returns what it got.
type situation struct {
	name string
	play func(s *scene) any
}

// scene is a situation while it is played. Its methods end it when something is not as expected, as those of testing.T do.
type scene struct {
	ctx     context.Context
	endings []func()
}

// Reasons for the end of a scene; they are what is thrown.
type (
	fault  struct{ error }
	absent string
)

// check makes an error that was not expected the fault of the step.
func (s *scene) check(err error) {
	if err != nil {
		panic(fault{err})
	}
}

// absent says why the driver does nothing of the kind.
func (s *scene) absent(why string) { panic(absent(why)) }

// atEnd puts off what has to be done however the scene ends.
func (s *scene) atEnd(do func()) { s.endings = append(s.endings, do) }

// patience bounds a scene. It is long because machines that run tests are busy; nothing waits for it in vain.
const patience = time.Minute

// play puts a driver for Go into situations.
func play(ctx context.Context, situations []situation) []step {
	steps := make([]step, 0, len(situations))
	for _, s := range situations {
		steps = append(steps, playOne(ctx, s))
	}
	return steps
}

func playOne(ctx context.Context, one situation) (done step) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &scene{ctx: ctx}
	done.Step = one.name
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case absent:
			done.Absent = string(reason)
		case fault:
			done.Fault = reason.Error()
		default:
			panic(reason)
		}
	}()
	defer func() {
		for _, end := range slices.Backward(s.endings) {
			end()
		}
	}()
	got, err := json.Marshal(one.play(s))
	s.check(err)
	done.Got = got
	return done
}

// sqlState is the SQLSTATE of an error, "none" if there is no error, or else its text.
func sqlState(err error) string {
	var ofPgx *pgconn.PgError
	var ofPq *pq.Error
	switch {
	case err == nil:
		return "none"
	case errors.As(err, &ofPgx):
		return ofPgx.Code
	case errors.As(err, &ofPq):
		return string(ofPq.Code)
	}
	return err.Error()
}

// asleep is a query that tells whether somebody else executes one that begins so.
func asleep(query string) string { return "select count(*) > 0" + executing(query) }

// terminate is a query that ends the connection to PostgreSQL of whoever executes one that begins so, after a while: what has only just
// begun would be run again, and nobody be told.
func terminate(query string) string {
	return "select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end)" + executing(query)
}

func executing(query string) string {
	return " from pg_stat_activity where datname = current_database() and state = 'active' and wait_event is not null and pid <> pg_backend_pid() and query like '" + query + "%'"
}

// text is a row's value in words.
func text(value any) string {
	if t, ok := value.(time.Time); ok {
		return t.UTC().Format(time.RFC3339Nano)
	}
	if b, ok := value.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(value)
}
