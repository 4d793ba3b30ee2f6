package compat_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"pgsidecar/internal/pgtest"
)

// psqlDriver is PostgreSQL's own clients.
func psqlDriver() driver {
	return driver{
		name:       "psql and pgbench",
		situations: []string{"driver", "session", "tls", "pgbench simple", "pgbench extended", "pgbench prepared", "terminated"},
		run: func(t *testing.T, at target) []step {
			p := psqlPlay{at: at, psql: pgtest.Program(t, "psql"), pgbench: pgtest.Program(t, "pgbench")}
			return play(t.Context(), p.situations())
		},
	}
}

type psqlPlay struct {
	at            target
	psql, pgbench string
}

func (p psqlPlay) situations() []situation {
	return []situation{
		{"driver", func(s *scene) any { return p.run(s, nil, p.psql, "--version") }},
		{"session", func(s *scene) any { return p.run(s, nil, p.psql, "-X", "--echo-all", "-f", "psql/session.sql") }},
		{"tls", p.tls},
		{"pgbench simple", func(s *scene) any { return p.bench(s, "simple") }},
		{"pgbench extended", func(s *scene) any { return p.bench(s, "extended") }},
		{"pgbench prepared", func(s *scene) any { return p.bench(s, "prepared") }},
		{"terminated", p.terminated},
	}
}

// run runs a client to its end and returns what it says, line by line.
func (p psqlPlay) run(s *scene, env []string, name string, args ...string) []string {
	out, err := p.command(s.ctx, env, name, args...).CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.check(err)
	}
	text := strings.NewReplacer(p.at.port, "PORT", p.at.database, "DATABASE").Replace(string(out))
	text = regexp.MustCompile(`PID \d+`).ReplaceAllString(text, "PID") // who has notified
	return strings.Split(text, "\n")
}

func (p psqlPlay) command(ctx context.Context, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "PGHOST="+p.at.host, "PGPORT="+p.at.port, "PGUSER="+p.at.user, "PGPASSWORD="+p.at.password,
		"PGDATABASE="+p.at.database, "PGSSLMODE=disable", "PGCLIENTENCODING=UTF8")
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func (p psqlPlay) tls(s *scene) any {
	env := []string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + p.at.ca, "PGCHANNELBINDING=require"}
	return []any{
		p.run(s, env, p.psql, "-XAtc", "select right(repeat('x', 20000), 5)"),
		p.run(s, append(env, "PGPASSWORD=guess"), p.psql, "-XAtc", "select 1"),
	}
}

// bench has more clients than the proxy has servers, and as many threads: those of pgbench block while they prepare.
func (p psqlPlay) bench(s *scene, mode string) any {
	if mode == "simple" {
		out, err := p.command(s.ctx, nil, p.pgbench, "-i", "-q", "-s", "1").CombinedOutput()
		if err != nil {
			s.check(fmt.Errorf("%w: %s", err, out))
		}
	}
	lines := p.run(s, nil, p.pgbench, "-n", "-M", mode, "-c", "8", "-j", "8", "-t", "25")
	counts := regexp.MustCompile(`(?m)^number of .*$`).FindAllString(strings.Join(lines, "\n"), -1)
	const balanced = "select count(*), sum(delta) = (select sum(bbalance) from pgbench_branches), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history"
	return []any{counts, p.run(s, nil, p.psql, "-XAtc", balanced)}
}

func (p psqlPlay) terminated(s *scene) any {
	const query = "select pg_sleep(61)"
	sleeper := p.command(s.ctx, nil, p.psql, "-XAtc", query)
	var said strings.Builder
	sleeper.Stdout, sleeper.Stderr = &said, &said
	s.check(sleeper.Start())
	for p.run(s, nil, p.psql, "-XAtc", asleep(query))[0] != "t" {
	}
	p.run(s, nil, p.psql, "-XAtc", terminate(query))
	return []any{sleeper.Wait() != nil, strings.Split(said.String(), "\n"), p.run(s, nil, p.psql, "-XAtc", "select 1")}
}
