package proxy_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/session"
)

// sessionMode is a change of configuration.
func sessionMode(config *proxy.Config) { config.Mode = session.WholeSession }

// What clients can ask and see, apart from process ids, times and sizes. Each line is a Query.
const sessionScript = `
select name, setting, source, reset_val from pg_settings where source in ('client', 'session') order by name
set work_mem to '9MB'
show work_mem
select source from pg_settings where name = 'work_mem'
reset work_mem
show work_mem
set application_name to 'changed'
reset all
show application_name
select session_user, current_user, current_database(), current_schemas(false)
create temp table t (id serial, what text) on commit preserve rows
insert into t (what) values ('a'), ('b') returning id
select currval('t_id_seq'), lastval()
prepare mine as select $1::int + 1
execute mine(41)
select name, statement, from_sql from pg_prepared_statements
deallocate mine
select pg_advisory_lock_shared(4711)
select count(*) from pg_locks where locktype = 'advisory' and objid = 4711 and pid = pg_backend_pid()
select pg_advisory_unlock_shared(4711), pg_advisory_unlock_shared(4711)
begin
declare c cursor with hold for select * from generate_series(1, 3)
commit
fetch 2 from c
fetch 2 from c
close c
close c
listen here
notify here, 'payload'
unlisten *
do $$ begin raise notice 'hello %', 1; raise warning 'careful'; end $$
begin; select 1; savepoint s; select 1/0
rollback to s
commit
select 'no such' from nowhere
set session characteristics as transaction read only
create table nothing_comes_of_it ()
set session authorization default
discard all
select count(*) from pg_class where relname = 't'
show work_mem
select 1; select 2; select
`

// The same script, through the proxy in session mode and directly, under the same startup parameters: nothing differs.
func TestSessionMode_cannotBeToldFromADirectConnection(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, sessionMode)
		for _, startup := range [][]string{
			nil,
			{"application_name=mine", "work_mem=5MB", "options=-c search_path=pg_catalog,public -c statement_timeout=1h", "DateStyle=German", "app.user=7"},
		} {
			directly, through := play(t, c.Addr(), startup), play(t, p.Addresses()[0], startup)
			for i := range directly {
				require.Equal(t, directly[i], through[i])
			}
		}
	})
}

// play logs in, runs the script, and returns what came.
func play(t *testing.T, address string, startup []string) (seen []string) {
	t.Helper()
	client := pgtest.Dial(t, address)
	defer client.Conn.Close() // so that the other one's locks and notifications are its own
	seen = statuses(t, client.Login("postgres", pgtest.Superuser, startup...))
	for sql := range strings.SplitSeq(strings.TrimSpace(sessionScript), "\n") {
		seen = append(seen, sql+" -> "+texts(client.Query(sql)))
	}
	return seen
}

func TestSessionMode_processIDIsTheServers(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), sessionMode)
	conn := pgtest.Connect(t, p.url())
	require.Equal(t, strconv.Itoa(int(conn.PgConn().PID())), pidOf(t, conn))
}

func TestSessionMode_serverWithAPastIsNotHandedOn(t *testing.T) {
	c := pgtest.Shared(t, 0)
	role := c.Role(t)
	p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
		sessionMode(config)
		config.Pool.MaxConnections = 1
	})
	server := watch(t, c)
	seen := map[string]bool{}
	for range 4 {
		conn := pgtest.Connect(t, p.url())
		pid := pidOf(t, conn)
		require.False(t, seen[pid], "a used server")
		seen[pid] = true
		require.Equal(t, "0", one(t, conn, "select count(*) from pg_class where relname = 'left_behind'"))
		one(t, conn, "create temp table left_behind ()")
		require.NoError(t, conn.Close(t.Context()))
	}
	await(t, "the last one ends with its client", func() bool { return server.backends(role) == 0 })
}

func TestSessionMode_notificationsComeToIdleClients(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, sessionMode)
	client := p.loggedIn(t)
	client.Query("listen session_channel")
	c.Exec(t, "notify session_channel, 'hello'")
	client.Expect("A session_channel hello")
}

func TestSessionMode_extendedProtocolIsPassedOnAsItIs(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, sessionMode)
	direct, client := pgtest.Dial(t, c.Addr()), p.loggedIn(t)
	direct.Login("postgres", pgtest.Superuser)
	for _, ask := range [][]pgproto3.Message{
		{&pgproto3.Parse{Name: "my own name", Query: "select $1::int"}, &pgproto3.Describe{ObjectType: 'S', Name: "my own name"}, &pgproto3.Sync{}},
		{&pgproto3.Query{String: "select name, from_sql from pg_prepared_statements"}},
		{&pgproto3.Bind{PreparedStatement: "my own name", Parameters: [][]byte{[]byte("7")}}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		{&pgproto3.Parse{Name: "my own name", Query: "select 1"}, &pgproto3.Sync{}},
		{&pgproto3.Bind{PreparedStatement: "nobody's"}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		{&pgproto3.Close{ObjectType: 'S', Name: "my own name"}, &pgproto3.Close{ObjectType: 'S', Name: "nobody's"}, &pgproto3.Sync{}},
		{&pgproto3.Parse{Query: "select 3"}, &pgproto3.Sync{}},
		{&pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
	} {
		want := replies(direct, ask)
		require.Equal(t, want, replies(client, ask), "%v", ask)
	}
}

// replies are the short forms of what comes up to ReadyForQuery.
func replies(c *pgtest.Client, ask []pgproto3.Message) string {
	c.Send(ask...)
	return texts(c.ReceiveUntil('Z'))
}

func TestStatementMode_runsStatementsAndRefusesBlocks(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Mode, config.Pool.MaxConnections = session.Statement, 1
	})
	client := p.loggedIn(t)
	require.Equal(t, "T ?column? | D 1 | C SELECT 1 | T ?column? | D 2 | C SELECT 1 | Z I", texts(client.Query("select 1; select 2")))
	named := []pgproto3.Message{&pgproto3.Parse{Name: "s", Query: "select 3"}, &pgproto3.Sync{}}
	require.Equal(t, "1 | Z I", replies(client, named))
	require.Equal(t, "2 | D 3 | C SELECT 1 | Z I", replies(client, []pgproto3.Message{&pgproto3.Bind{PreparedStatement: "s"}, &pgproto3.Execute{}, &pgproto3.Sync{}}))
	client.Query("set work_mem to '7MB'")
	require.Contains(t, texts(client.Query("show work_mem")), "D 7MB")
	require.Equal(t, "C BEGIN | T ?column? | D 1 | C SELECT 1 | C COMMIT | Z I", texts(client.Query("begin; select 1; commit")))

	for name, ask := range map[string][]pgproto3.Message{
		"simple":        {&pgproto3.Query{String: "begin"}},
		"with a select": {&pgproto3.Query{String: "start transaction; select 1"}},
		"extended":      {&pgproto3.Parse{Query: "begin"}, &pgproto3.Bind{}, &pgproto3.Execute{}, &pgproto3.Sync{}},
		"failed":        {&pgproto3.Query{String: "begin"}, &pgproto3.Query{String: "select 1/0"}},
	} {
		offender := p.loggedIn(t)
		offender.Send(ask...)
		received := offender.ReceiveUntil('E')
		last, err := received[len(received)-1].Decode()
		require.NoError(t, err)
		refused := last.(*pgproto3.ErrorResponse)
		require.Equal(t, "FATAL", refused.Severity, name)
		require.Equal(t, "0A000", refused.Code, name)
		require.Equal(t, "transaction blocks are not allowed in pool mode statement", refused.Message, name)
		offender.ExpectEnd()
		require.NotContains(t, texts(client.Query("select 1")), "Z T", "the block is not handed on")
		require.Contains(t, texts(client.Query("select now() = statement_timestamp()")), "D t")
	}
}

func TestModes_ofUsersGoBeforeThoseOfDatabasesAndTheGeneralOne(t *testing.T) {
	c := pgtest.Shared(t, 0)
	statement, whole := session.Statement, session.WholeSession
	p := start(t, c, func(config *proxy.Config) {
		config.Databases = map[string]proxy.Database{
			"by statement": {Name: "postgres", Mode: &statement},
			"by session":   {Name: "postgres", Mode: &whole},
		}
	})
	ofUser := start(t, c, func(config *proxy.Config) {
		config.Databases = map[string]proxy.Database{"by statement": {Name: "postgres", Mode: &statement}}
		config.Users = map[string]proxy.User{pgtest.Superuser: {Mode: &whole}}
	})
	// modeOf tells modes apart by what they do.
	modeOf := func(p *testProxy, database string) string {
		conn := pgtest.Connect(t, p.as(t, database, pgtest.Superuser))
		if pidOf(t, conn) == strconv.Itoa(int(conn.PgConn().PID())) {
			return "session"
		}
		if _, err := try(conn, "begin"); err != nil {
			return "statement"
		}
		return "transaction"
	}
	require.Equal(t, "transaction", modeOf(p, "postgres"))
	require.Equal(t, "statement", modeOf(p, "by statement"))
	require.Equal(t, "session", modeOf(p, "by session"))
	require.Equal(t, "session", modeOf(ofUser, "postgres"))
	require.Equal(t, "session", modeOf(ofUser, "by statement"))
}
