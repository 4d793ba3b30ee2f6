package proxy_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// reported notes the settings of which a client has been told last, of those that are named.
func reported(heard []string, known map[string]string) {
	for _, m := range heard {
		if status, ok := strings.CutPrefix(m, "S "); ok {
			name, value, _ := strings.Cut(status, "=")
			known[name] = value
		}
	}
}

// A RESET goes to what the client has come with, at once, whether in a block or not, and the client is told of no other value.
func TestReset_inABlock_goesToTheClientsStartupValue(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := poolOf(t, c, 2)
		startup := []string{"options=-c work_mem=5MB -c app.tenant=seven", "TimeZone=Asia/Tokyo", "application_name=mine"}
		twins := []*rawClient{raw(t, p.url(), startup...), raw(t, c.URL("postgres", pgtest.Superuser), startup...)}
		told := []map[string]string{{}, {}}
		for i, twin := range twins {
			for _, m := range twin.login {
				reported([]string{twin.form(m)}, told[i])
			}
		}
		for _, sql := range []string{
			"begin", "set work_mem to '9MB'", "reset work_mem", "show work_mem", "set work_mem to '8MB'", "set work_mem to default", "show work_mem",
			"set time zone 'Etc/GMT+1'", "reset time zone", "show time zone", "set local application_name to 'x'", "set local application_name to default",
			"show application_name", "commit", "show work_mem", "show time zone", "show application_name",
			"set work_mem to '9MB'", "begin", "savepoint s", "reset work_mem", "show work_mem", "rollback to s", "show work_mem", "rollback", "show work_mem",
			"begin", "set app.tenant to 'x'", "set application_name to 'y'", "reset all", "select current_setting('app.tenant')", "show application_name", "commit",
			"select current_setting('app.tenant')", "show work_mem",
			"begin", "reset work_mem; set work_mem to '3MB'", "show work_mem", "set local work_mem to default", "show work_mem", "rollback", "show work_mem",
			"begin", "reset work_mem; select 1/0", "rollback", "show work_mem",
			"set time zone 'Etc/GMT+3'", "reset time zone", "show time zone", "set application_name to 'z'", "discard all", "select 1", "show application_name",
			"reset work_mem; select 1/0", "set time zone 'Etc/GMT+4'; begin", "reset all", "commit", "select 1",
		} {
			got, want := twins[0].say(query(sql)), twins[1].say(query(sql))
			reported(got, told[0])
			reported(want, told[1])
			require.Equal(t, withoutStatus(want), withoutStatus(got), sql)
		}
		twins[0].say(query("select 1"))
		require.Equal(t, "Asia/Tokyo", told[1]["TimeZone"])
		require.Equal(t, told[1], told[0])
		require.Zero(t, p.Snapshot().Totals.StateLeaks)
	})
}

// withoutStatus leaves out ParameterStatus, which may come more than once.
func withoutStatus(heard []string) []string {
	var rest []string
	for _, m := range heard {
		if !strings.HasPrefix(m, "S ") {
			rest = append(rest, m)
		}
	}
	return rest
}

func TestReset_preparedInABlock_goesToTheClientsStartupValue(t *testing.T) {
	p := poolOf(t, pgtest.Shared(t, 0), 2)
	c := raw(t, p.url(), "options=-c work_mem=5MB")
	c.say(parse("reset", "reset work_mem"), parse("show", "show work_mem"), syncNow())
	c.say(query("begin"))
	c.say(query("set work_mem to '9MB'"))
	require.Equal(t, []string{"2", "C RESET", "Z T", "2", "D 5MB", "C SHOW", "Z T"}, c.say(together(run("reset"), run("show"))...), "in one write")
	require.Equal(t, []string{"C COMMIT", "Z I"}, c.say(query("commit")))
	require.Equal(t, []string{"2", "D 5MB", "C SHOW", "Z I"}, c.say(run("show")...))
}

// What CREATE makes is temporary where search_path begins with pg_temp.
func TestAudit_createUnderPgTemp_pins(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	conn := pgtest.Connect(t, p.url("options", "-c search_path=pg_temp"))
	one(t, conn, "create table t (a int)")
	require.Equal(t, "create table t (a int)", p.pinned(t, `temp table "t"`).Statement)
}
