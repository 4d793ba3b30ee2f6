package probe_test

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/router/probe"
)

// impatient is for servers that do not answer in time, or at all.
func impatient(c *probe.Config) { c.Timeout = 300 * time.Millisecond }

// stranger listens on loopback and does something with each connection, which it then closes.
func stranger(t *testing.T, do func(conn net.Conn)) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ended := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-ended })
	go func() {
		defer close(ended)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			do(conn)
			conn.Close()
		}
	}()
	return "postgres://app@" + ln.Addr().String() + "/app"
}

func TestProbe_strangersAreToldApart(t *testing.T) {
	say := func(text string) func(net.Conn) {
		return func(conn net.Conn) {
			_, _ = io.WriteString(conn, text)
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		}
	}
	hang := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	endless := func(piece string) func(net.Conn) {
		return func(conn net.Conn) {
			for {
				if _, err := io.WriteString(conn, piece); err != nil {
					return
				}
			}
		}
	}
	trickle := func(conn net.Conn) {
		for {
			if _, err := io.WriteString(conn, "S\x00\x00\x00\x08a\x00b\x00"); err != nil {
				return
			}
			ended := make(chan struct{}) // Read until there has been nothing for a while, which is a pause too.
			go func() {
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
				_, _ = io.Copy(io.Discard, conn)
				close(ended)
			}()
			<-ended
		}
	}
	for name, c := range map[string]struct {
		do   func(net.Conn)
		want probe.Reason
	}{
		"SSH":                     {say("SSH-2.0-OpenSSH_9.2p1\r\n"), probe.NotPostgres},
		"HTTP":                    {say("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"), probe.NotPostgres},
		"closes at once":          {func(net.Conn) {}, probe.Unreachable},
		"never answers":           {hang, probe.Timeout},
		"zeros without end":       {endless(strings.Repeat("\x00", 4096)), probe.NotPostgres},
		"parameters without end":  {endless(strings.Repeat("S\x00\x00\x00\x08a\x00b\x00", 1000)), probe.NotPostgres},
		"one parameter at a time": {trickle, probe.Timeout},
		"a message of 2 GB":       {say("R\x7f\xff\xff\xff"), probe.NotPostgres},
		"a length below four":     {say("R\x00\x00\x00\x01"), probe.NotPostgres},
		"half a message":          {say("R\x00\x00"), probe.Unreachable},
		"ready without login":     {say("Z\x00\x00\x00\x05I"), probe.NotPostgres},
	} {
		t.Run(name, func(t *testing.T) {
			w := begin(t, stranger(t, c.do)+"?sslmode=disable", impatient)
			o := w.until(t, "an observation", func(*probe.Observation) bool { return true })
			require.Equal(t, c.want, o.Reason, "%v", o.Err)
			require.Error(t, o.Err)
			require.Less(t, o.Took, 5*time.Second)
		})
	}
}

func TestProbe_reasonsOfServersThatDoNotServe(t *testing.T) {
	refusal := func(code string) string {
		server := pgtest.Serve(t, pgtest.Script{pgtest.Send(&pgproto3.ErrorResponse{
			Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "not now",
		})})
		return "postgres://app@" + server.Addr() + "/app?sslmode=disable"
	}
	secret := pgtest.Start(t, pgtest.Config{Auth: "scram-sha-256", TLS: true, MaxConnections: 10})
	secret.Exec(t, "CREATE ROLE app LOGIN PASSWORD 'pw-app'; CREATE ROLE outsider LOGIN PASSWORD 'pw-outsider'; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO app")
	plain := pgtest.Shared(t, 0)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := listener.Addr().String()
	require.NoError(t, listener.Close())
	other := pgtest.Start(t, pgtest.Config{TLS: true}) // of another authority
	for name, c := range map[string]struct {
		url  string
		want probe.Reason
	}{
		"starting":          {refusal("57P03"), probe.Refused},
		"shutting down":     {refusal("57P01"), probe.Refused},
		"full":              {refusal("53300"), probe.Full},
		"internal error":    {refusal("XX000"), probe.Failed},
		"wrong password":    {secret.URL("postgres", "app", "password=wrong"), probe.AuthFailed},
		"no such database":  {plain.URL("nothing", pgtest.Superuser), probe.AuthFailed},
		"may not connect":   {secret.URL("postgres", "outsider"), probe.AuthFailed},
		"no TLS":            {plain.URL("postgres", pgtest.Superuser, "sslmode=require"), probe.TLSFailed},
		"other authority":   {other.URL("postgres", pgtest.Superuser, "sslrootcert="+secret.RootCertFile()), probe.TLSFailed},
		"nobody listens":    {"postgres://app@" + nobody + "/app", probe.Unreachable},
		"no such name":      {"postgres://app@pgsidecar.invalid/app", probe.Unreachable},
		"no unix socket":    {"postgres://app@/app?host=" + filepath.Join(os.TempDir(), "pgsidecar-nothing"), probe.Unreachable},
		"right password":    {secret.URL("postgres", "app"), probe.OK},
		"other hosts exist": {"postgres://app@" + nobody + "," + plain.Addr() + "/postgres?sslmode=disable", probe.Unreachable},
		"read-write wanted": {plain.URL("postgres", pgtest.Superuser, "target_session_attrs=standby"), probe.OK},
	} {
		t.Run(name, func(t *testing.T) {
			o := begin(t, c.url).until(t, "an observation", func(*probe.Observation) bool { return true })
			require.Equal(t, c.want, o.Reason, "%v", o.Err)
			require.Equal(t, c.want == probe.OK, o.Err == nil)
		})
	}
}

func TestPassword_isAskedForAtEachDial(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{Auth: "scram-sha-256"})
	c.Exec(t, "CREATE ROLE app LOGIN PASSWORD 'second'")
	passwords := make(chan string, 3)
	w := begin(t, c.URL("postgres", "app"), often, func(c *probe.Config) {
		c.Password = func() (string, error) {
			select {
			case password := <-passwords:
				return password, nil
			default:
				return "", errors.New("there is no file")
			}
		}
	})
	o := w.until(t, "no password", because(probe.AuthFailed))
	require.ErrorContains(t, o.Err, "there is no file")
	passwords <- "first"
	w.until(t, "the old password", func(o *probe.Observation) bool {
		return o.Reason == probe.AuthFailed && !strings.Contains(o.Err.Error(), "there is no file")
	})
	passwords <- "second"
	w.until(t, "the new password", well)
}

// answerOnce lets a probe in and answers its first question with the given messages.
func answerOnce(t *testing.T, messages ...pgproto3.Message) string {
	server := pgtest.Serve(t, pgtest.Script{
		pgtest.Welcome(), pgtest.Expect("Q*"), pgtest.Send(messages...),
		func(p *pgtest.Peer) error {
			_, err := io.Copy(io.Discard, p.Conn)
			_ = err // A reset is an end too.
			return nil
		},
	})
	return "postgres://app@" + server.Addr() + "/app?sslmode=disable"
}

func TestProbe_answersThatMakeNoSenseAreNotBelieved(t *testing.T) {
	row := func(values ...string) *pgproto3.DataRow {
		r := &pgproto3.DataRow{}
		for _, v := range values {
			r.Values = append(r.Values, []byte(v))
		}
		return r
	}
	described := &pgproto3.RowDescription{}
	complete := &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}
	ready := pgtest.ReadyForQuery('I')
	for name, messages := range map[string][]pgproto3.Message{
		"nothing":              {ready},
		"one result of seven":  {described, row("a"), complete, ready},
		"a row of nothing":     {row("t"), ready},
		"copy":                 {&pgproto3.CopyOutResponse{}, ready},
		"in a transaction":     {described, complete, pgtest.ReadyForQuery('T')},
		"results without rows": {described, complete, described, complete, described, complete, described, complete, described, complete, described, complete, ready},
	} {
		t.Run(name, func(t *testing.T) {
			o := begin(t, answerOnce(t, messages...), impatient).until(t, "an observation", func(*probe.Observation) bool { return true })
			require.Equal(t, probe.NotPostgres, o.Reason, "%v", o.Err)
		})
	}
}

func TestProbe_serverWithoutPostgresStorageStillTellsItsRole(t *testing.T) {
	refuse := func(p *pgtest.Peer) error {
		// Aurora refuses the functions about WAL. The guard and the role come before.
		described, complete := &pgproto3.RowDescription{}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}
		values := func(v ...string) *pgproto3.DataRow {
			r := &pgproto3.DataRow{}
			for _, text := range v {
				r.Values = append(r.Values, []byte(text))
			}
			return r
		}
		for {
			m, err := p.Receive()
			if errors.Is(err, io.EOF) || err == nil && m.Type == 'X' {
				return nil
			}
			if err != nil {
				return err
			}
			text := string(m.Body)
			answer := []pgproto3.Message{
				described, values("pg_catalog", "1000"), complete,
				described, values("t", "160003", "off", ""), complete,
			}
			switch {
			case strings.Contains(text, "pg_control_system"), strings.Contains(text, "pg_read_file"), strings.Contains(text, "pg_current_wal_lsn"),
				strings.Contains(text, "pg_stat_database"):
				answer = append(answer, &pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "0A000", Message: "not supported"})
			}
			if err := p.Send(append(answer, pgtest.ReadyForQuery('I'))...); err != nil {
				return err
			}
		}
	}
	server := pgtest.Serve(t, pgtest.Script{pgtest.Welcome(), refuse})
	w := begin(t, "postgres://app@"+server.Addr()+"/app?sslmode=disable", often)
	for range 3 {
		o := w.until(t, "an answer", well)
		require.True(t, o.Standby)
		require.Equal(t, 160003, o.Version)
		require.Zero(t, o.Timeline)
	}
	require.Equal(t, 1, server.Logins())
}

func TestTopology_isToldWhereTheServerHasTheFunctions(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	c.Exec(t, "CREATE ROLE app LOGIN")
	c.Exec(t, "CREATE DATABASE rds")
	c.Exec(t, "CREATE DATABASE aurora")
	c.ExecIn(t, "rds", `CREATE SCHEMA rds_tools; GRANT USAGE ON SCHEMA rds_tools TO app;
		CREATE FUNCTION rds_tools.show_topology(text) RETURNS TABLE (id text, endpoint text, port int) LANGUAGE sql
			AS $$ VALUES ('db-A', 'a.example', 5432), ('db-B', 'b.example', 5433) $$;
		CREATE FUNCTION rds_tools.multi_az_db_cluster_source_dbi_resource_id() RETURNS text LANGUAGE sql AS $$ SELECT 'db-B' $$;
		CREATE FUNCTION rds_tools.dbi_resource_id() RETURNS text LANGUAGE sql AS $$ SELECT 'db-A' $$`)
	c.ExecIn(t, "aurora", `SET allow_system_table_mods = on;
		CREATE FUNCTION pg_catalog.aurora_db_instance_identifier() RETURNS text LANGUAGE sql AS $$ SELECT 'one' $$;
		CREATE FUNCTION pg_catalog.aurora_replica_status() RETURNS TABLE (server_id text, session_id text, replica_lag_in_msec float8,
			last_update_timestamp timestamptz) LANGUAGE sql AS $$ VALUES ('one', 'MASTER_SESSION_ID', NULL::float8, now()),
			('two', 'x', 20, now()), ('gone', 'y', 5, now() - interval '10 min') $$`)

	o := begin(t, c.URL("rds", "app")).until(t, "an answer", well)
	require.Equal(t, []probe.Member{
		{ID: "db-A", Host: "a.example", Port: 5432, Self: true},
		{ID: "db-B", Host: "b.example", Port: 5433, Writer: true},
	}, o.Topology)
	o = begin(t, c.URL("aurora", "app")).until(t, "an answer", well)
	require.Equal(t, []probe.Member{{ID: "one", Writer: true, Self: true}, {ID: "two", Lag: 20 * time.Millisecond}}, o.Topology)
}
