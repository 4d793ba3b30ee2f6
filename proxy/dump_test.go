package proxy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
)

// pg_dump sets what it needs by SET and set_config, exports its snapshot, and with --jobs lets several sessions use it.
func TestDump_throughTheProxyIsTheSame(t *testing.T) {
	dump, restore := pgtest.Program(t, "pg_dump"), pgtest.Program(t, "pg_restore")
	c := pgtest.Shared(t, 15) // which the programs of every version can read
	source, target := c.Database(t), c.Database(t)
	c.ExecIn(t, source, `create schema s; create sequence s.n start 5; create table s.t (a int primary key default nextval('s.n'), b text, c bytea);
		insert into s.t (b, c) select repeat('x', i), decode(md5(i::text), 'hex') from generate_series(1, 2000) i;
		create table o (a int references s.t (a)); insert into o select a from s.t; create index on o (a); create view v as select * from s.t join o using (a);
		create function f(int) returns int language sql as 'select $1'; comment on view v is 'a view'; select lo_from_bytea(0, 'large')`)
	p := startFor(t, c.URL(source, pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 4 })
	into := startFor(t, c.URL(target, pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 4 })
	direct, through := c.URL(source, pgtest.Superuser), p.url()
	dir := t.TempDir()

	plain := runProgram(t, dump, "-d", direct)
	require.Contains(t, plain, "COPY s.t (a, b, c) FROM stdin")
	require.Equal(t, plain, runProgram(t, dump, "-d", through), "plain")
	require.Equal(t, runProgram(t, dump, "--inserts", "-d", direct), runProgram(t, dump, "--inserts", "-d", through), "as inserts")
	for _, format := range []string{"custom", "directory"} {
		file := filepath.Join(dir, format)
		args := []string{"-F", format, "-f", file, "-d", through}
		if format == "directory" {
			args = append(args, "-j", "2")
		}
		runProgram(t, dump, args...)
		runProgram(t, restore, "--clean", "--if-exists", "--exit-on-error", "-j", "2", "-d", into.url(), file)
		require.Equal(t, plain, runProgram(t, dump, "-d", c.URL(target, pgtest.Superuser)), format)
	}
	for _, one := range []*testProxy{p, into} {
		require.Empty(t, one.Snapshot().PinnedClients)
		require.Zero(t, one.Snapshot().Totals.StateLeaks)
	}
}

// runProgram runs a program of PostgreSQL's and returns what it prints, without what it makes up anew each time.
func runProgram(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
	return regexp.MustCompile(`(?m)^\\(un)?restrict .*$`).ReplaceAllString(string(out), "")
}
