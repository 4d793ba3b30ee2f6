package pgtest_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

func TestClient_speaksToPostgreSQL(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		client := pgtest.Dial(t, c.Addr())
		login := client.Login("postgres", pgtest.Superuser, "application_name=raw")
		require.Contains(t, pgtest.Strings(login), "S application_name=raw")
		require.Equal(t, "Z I", login[len(login)-1].String())

		require.Equal(t, []string{"T a,b", "D 1,NULL", "C SELECT 1", "Z I"},
			pgtest.Strings(client.Query("SELECT 1 AS a, NULL AS b")))
		client.Send(&pgproto3.Parse{Name: "s", Query: "SELEC"}, &pgproto3.Sync{})
		client.Expect("E 42601", "Z I")
		client.Send(&pgproto3.Terminate{})
		client.ExpectEnd()
	})
}

func TestClient_cancelReachesItsQuery(t *testing.T) {
	c := pgtest.Shared(t, 0)
	client := pgtest.Dial(t, c.Addr())
	login := client.Login("postgres", pgtest.Superuser)
	// A notice is flushed at once, so it tells that the query runs.
	client.Send(&pgproto3.Query{String: "DO $$ BEGIN RAISE NOTICE 'running'; PERFORM pg_sleep(60); END $$"})
	client.Expect("N 00000")
	client.Cancel(login)
	client.Expect("E 57014", "Z I")
}

func TestServe_scriptsRunInOrder(t *testing.T) {
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("1")}}
	answer := pgtest.Script{
		pgtest.Welcome(pgproto3.ParameterStatus{Name: "is_superuser", Value: "off"}),
		pgtest.Expect("Q SELECT 1"),
		pgtest.Send(&pgproto3.RowDescription{}, row, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, pgtest.ReadyForQuery('I')),
		pgtest.Expect("X"),
	}
	refuse := pgtest.Script{pgtest.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "53300", Message: "too many"})}
	server := pgtest.Serve(t, refuse, answer)
	url := "postgres://u@" + server.Addr() + "/db?sslmode=prefer"

	_, err := pgconn.Connect(t.Context(), url)
	var refused *pgconn.PgError
	require.ErrorAs(t, err, &refused)
	require.Equal(t, "53300", refused.Code)

	for range 2 {
		conn, err := pgconn.Connect(t.Context(), url)
		require.NoError(t, err)
		require.Equal(t, "off", conn.ParameterStatus("is_superuser"))
		results, err := conn.Exec(t.Context(), "SELECT 1").ReadAll()
		require.NoError(t, err)
		require.Equal(t, "1", string(results[0].Rows[0][0]))
		require.NoError(t, conn.Close(t.Context()))
	}
	require.Equal(t, 3, server.Logins())
}

func TestServe_aScriptThatFailsFailsTheTest(t *testing.T) {
	inner := &failure{TB: t}
	server := pgtest.Serve(inner, pgtest.Script{pgtest.Welcome(), pgtest.Expect("Q SELECT 1")})
	client := pgtest.Dial(t, server.Addr())
	client.Login("db", "u")
	client.Send(&pgproto3.Query{String: "SELECT 2"})
	client.ExpectEnd()
	inner.cleanup()
	require.Contains(t, inner.message, `step 2: expect "Q SELECT 1" (message 1 of 1): got "Q SELECT 2"`)
}

func TestServe_cancelRequestsAreKept(t *testing.T) {
	server := pgtest.Serve(t, pgtest.Script{pgtest.Welcome(), pgtest.ExpectEnd()})
	client := pgtest.Dial(t, server.Addr())
	login := client.Login("db", "u")
	client.Cancel(login)
	require.Equal(t, [][]byte{{0, 0, 0, 1, 0, 0, 0, 1}}, server.Cancels())
}

func TestMessage_shortFormsDependOnDirection(t *testing.T) {
	for want, m := range map[string]pgproto3.FrontendMessage{
		"Q select 1":    &pgproto3.Query{String: "select 1"},
		"P s1 select 1": &pgproto3.Parse{Name: "s1", Query: "select 1"},
		"B s1":          &pgproto3.Bind{PreparedStatement: "s1"},
		"D S s1":        &pgproto3.Describe{ObjectType: 'S', Name: "s1"},
		"E 0":           &pgproto3.Execute{},
		"C P p":         &pgproto3.Close{ObjectType: 'P', Name: "p"},
		"S":             &pgproto3.Sync{},
		"H":             &pgproto3.Flush{},
		"f why":         &pgproto3.CopyFail{Message: "why"},
	} {
		encoded, err := m.Encode(nil)
		require.NoError(t, err)
		message := pgtest.Message{Type: encoded[0], Body: encoded[5:], FromClient: true}
		require.Equal(t, want, message.String())
		require.Equal(t, encoded, message.Bytes())
	}
	require.Equal(t, "S a=b", pgtest.Message{Type: 'S', Body: []byte("a\x00b\x00")}.String())
}

// failure stands in for a test that fails.
type failure struct {
	testing.TB
	message string
	cleanup func()
}

func (f *failure) Cleanup(cleanup func()) { f.cleanup = cleanup }

func (f *failure) Errorf(format string, args ...any) {
	f.message += fmt.Sprintf(format, args...)
}

func (f *failure) Fatal(args ...any) {
	f.message += fmt.Sprint(args...)
	panic("fatal")
}
