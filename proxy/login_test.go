package proxy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/session"
)

// listed is a users file with the conventional passwords of some roles.
func listed(roles ...string) (users []auth.User) {
	for _, role := range roles {
		users = append(users, auth.User{Name: role, Secret: auth.PlainSecret(pgtest.Password(role))})
	}
	return users
}

// guarded starts a cluster that asks everyone for a password, for this test.
func guarded(t *testing.T) *pgtest.Cluster {
	t.Helper()
	return pgtest.Start(t, pgtest.Config{Auth: "scram-sha-256"})
}

// modes are those in which a server is reached in different ways.
func modes() map[string]session.Mode {
	return map[string]session.Mode{"transaction": session.Transaction, "session": session.WholeSession}
}

func TestLogin_everyMethodLetsTheRightPasswordInAndNoOther(t *testing.T) {
	c := guarded(t)
	role := c.Role(t)
	for _, method := range []auth.Method{auth.Password, auth.MD5, auth.SCRAM} {
		for name, mode := range modes() {
			t.Run(string(method)+"/"+name, func(t *testing.T) {
				p := start(t, c, func(config *proxy.Config) {
					config.Auth.Method, config.Auth.Users, config.Mode = method, listed(role), mode
				})
				for _, user := range []string{role, pgtest.Superuser} {
					conn := pgtest.Connect(t, p.as(t, "postgres", user))
					require.Equal(t, user, one(t, conn, "select session_user"))
					require.NoError(t, conn.Close(t.Context()))
					e := loginError(t, p.as(t, "postgres", user, "password", "wrong"))
					require.Equal(t, "FATAL", e.Severity)
					require.Equal(t, "28P01", e.Code)
					require.Equal(t, `password authentication failed for user "`+user+`"`, e.Message)
				}
			})
		}
	}
}

// refused tells what a client sees, byte for byte but for random salts and its own name, that logs in with a wrong password.
func refused(t *testing.T, p *testProxy, user string) []string {
	t.Helper()
	c := pgtest.Dial(t, p.Addresses()[0])
	c.Send(&pgproto3.StartupMessage{
		ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": user, "database": "postgres"},
	})
	m := c.Receive()
	seen := []string{fmt.Sprintf("%c %d", m.Type, len(m.Body))}
	if m.Type == 'R' {
		c.Send(&pgproto3.PasswordMessage{Password: "md500000000000000000000000000000000"})
		m = c.Receive()
	}
	decoded, err := m.Decode()
	require.NoError(t, err)
	e := decoded.(*pgproto3.ErrorResponse)
	c.ExpectEnd()
	return append(seen, e.Severity, e.Code, e.Message, e.Detail, e.Hint)
}

// See CVE-2015-6817 of PgBouncer.
func TestLogin_unknownUserLooksLikeAWrongPassword(t *testing.T) {
	for _, method := range []auth.Method{auth.Password, auth.MD5} {
		for _, unknown := range []auth.Unknown{auth.Reject, auth.Upstream} {
			t.Run(string(method)+"/"+string(unknown), func(t *testing.T) {
				c := pgtest.Shared(t, 0)
				role := c.Role(t)
				p := start(t, c, func(config *proxy.Config) {
					config.Auth.Method, config.Auth.Unknown, config.Auth.Users = method, unknown, listed(role)
				})
				known, nobody := refused(t, p, role), refused(t, p, "nobody")
				require.Equal(t, `password authentication failed for user "nobody"`, nobody[3])
				known[3], nobody[3] = "", ""
				require.Equal(t, known, nobody)
			})
		}
	}
	t.Run("scram-sha-256", func(t *testing.T) {
		p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Auth.Method = auth.SCRAM })
		known := loginError(t, p.url("password", "wrong"))
		nobody := loginError(t, p.as(t, "postgres", "nobody"))
		require.Equal(t, `password authentication failed for user "nobody"`, nobody.Message)
		known.Message, nobody.Message = "", ""
		require.Equal(t, known, nobody)
	})
}

// See CVE-2015-6817 of PgBouncer.
func TestLogin_databaseThatIsNotThereIsToldToThoseWhoMayLogInOnly(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Auth.Method = auth.SCRAM })
	e := loginError(t, p.as(t, "nowhere", pgtest.Superuser))
	require.Equal(t, "3D000", e.Code)
	require.Equal(t, `database "nowhere" does not exist`, e.Message)
	require.Equal(t, "28P01", loginError(t, p.as(t, "nowhere", pgtest.Superuser, "password", "wrong")).Code)
}

func TestLogin_underTrustTheUpstreamsUserAlone(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, nil)
	require.Equal(t, pgtest.Superuser, one(t, pgtest.Connect(t, p.url()), "select current_user"))
	e := loginError(t, p.as(t, "postgres", c.Role(t)))
	require.Equal(t, "28000", e.Code)
	require.Contains(t, e.Message, "is not known to the proxy")
	require.NotEmpty(t, e.Hint)
}

func TestLogin_asIsAsksTheServerUnderTheClientsOwnName(t *testing.T) {
	c := guarded(t)
	role := c.Role(t)
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, func(config *proxy.Config) {
				config.Auth.Method, config.Auth.Unknown, config.Mode = auth.Password, auth.AsIs, mode
			})
			conn := pgtest.Connect(t, p.as(t, "postgres", role))
			require.Equal(t, role, one(t, conn, "select session_user"))
			// A server connection of the role is there, and proves nothing about another client's password.
			require.Equal(t, "28P01", loginError(t, p.as(t, "postgres", role, "password", "wrong")).Code)
			require.Equal(t, "28P01", loginError(t, p.as(t, "postgres", "nobody")).Code)
			require.Equal(t, role, one(t, conn, "select session_user"))
			await(t, "who failed is not counted", func() bool { return p.Snapshot().Clients.All() == 1 })
		})
	}
}

func TestLogin_upstreamMakesEveryoneTheUpstreamsUser(t *testing.T) {
	c := guarded(t)
	role := c.Role(t)
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
				config.Auth.Unknown, config.Mode = auth.Upstream, mode
			})
			for _, user := range []string{role, "anybody", "postgres"} {
				require.Equal(t, role, one(t, pgtest.Connect(t, p.as(t, "postgres", user)), "select session_user"))
			}
		})
	}
}

func TestLogin_aliasNamesDatabaseAndUserAtTheServer(t *testing.T) {
	c := guarded(t)
	role, database := c.Role(t), c.Database(t)
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, func(config *proxy.Config) {
				config.Mode, config.Auth.Method, config.Auth.Users = mode, auth.SCRAM, listed(role)
				config.Databases = map[string]proxy.Database{"alias": {Name: database, User: role}}
			})
			conn := pgtest.Connect(t, p.as(t, "alias", pgtest.Superuser))
			require.Equal(t, role+" in "+database, one(t, conn, "select session_user || ' in ' || current_database()"))
		})
	}
}

// See CVE-2025-2291 of PgBouncer.
func TestLogin_whatTheServerRefusesIsToldInItsWords(t *testing.T) {
	c := guarded(t)
	expired := c.Role(t, "VALID UNTIL '2020-01-01'")
	locked := c.Role(t)
	c.Exec(t, "alter role "+locked+" nologin")
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			p := start(t, c, func(config *proxy.Config) {
				config.Auth.Method, config.Auth.Users, config.Mode = auth.SCRAM, listed(expired, locked), mode
			})
			for user, want := range map[string][2]string{
				expired: {"28P01", `password authentication failed for user "` + expired + `"`},
				locked:  {"28000", `role "` + locked + `" is not permitted to log in`},
			} {
				e := loginError(t, p.as(t, "postgres", user))
				require.Equal(t, "FATAL", e.Severity)
				require.Equal(t, want, [2]string{e.Code, e.Message})
			}
		})
	}
}

// rewrite puts a password into a file as rotations do: at once.
func rewrite(t *testing.T, file, password string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file+".new", []byte(password+"\n"), 0o600))
	require.NoError(t, os.Rename(file+".new", file))
}

func TestLogin_passwordFileIsReadWhenAServerIsDialled(t *testing.T) {
	c := guarded(t)
	for name, mode := range modes() {
		for _, method := range []auth.Method{auth.Trust, auth.SCRAM} {
			t.Run(name+"/"+string(method), func(t *testing.T) {
				role := c.Role(t)
				file := filepath.Join(t.TempDir(), "password")
				rewrite(t, file, pgtest.Password(role))
				p := startFor(t, c.URL("postgres", role), func(config *proxy.Config) {
					config.Mode, config.Auth.Method = mode, method
					config.Server.PasswordFile = file
				})
				old := pgtest.Connect(t, p.url())
				require.Equal(t, role, one(t, old, "select session_user"))
				c.Exec(t, "alter role "+role+" password 'rotated'")
				rewrite(t, file, "rotated")
				watch(t, c).remove(role)
				fresh := pgtest.Connect(t, p.url())
				require.Equal(t, role, one(t, fresh, "select session_user"))
			})
		}
	}
}

func TestLogin_rotatedPasswordOfAClientReplacesTheOneRemembered(t *testing.T) {
	c := guarded(t)
	role := c.Role(t)
	p := start(t, c, func(config *proxy.Config) { config.Auth.Method, config.Auth.Unknown = auth.Password, auth.AsIs })
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.as(t, "postgres", role)), "select 1"))
	c.Exec(t, "alter role "+role+" password 'rotated'")
	watch(t, c).remove(role)
	require.Equal(t, "28P01", loginError(t, p.as(t, "postgres", role)).Code)
	require.Equal(t, "1", one(t, pgtest.Connect(t, p.as(t, "postgres", role, "password", "rotated")), "select 1"))
}

// CVE-2025-12819 of PgBouncer: a startup parameter must not change what the proxy's own queries mean.
func TestLogin_startupParametersReachNoQueryOfTheProxysOwn(t *testing.T) {
	c := pgtest.Shared(t, 0)
	database := c.Database(t)
	c.ExecIn(t, database, `create schema evil; create table evil.caught (what text);
		create function evil.trap(what text) returns void language sql security definer as 'insert into evil.caught values (what)';
		grant usage on schema evil to public;
		create function evil.current_setting(n text) returns text language sql as $$select evil.trap('current_setting'); select 'x'$$;
		create function evil.set_config(n text, v text, l bool) returns text language sql as $$select evil.trap('set_config'); select 'x'$$;
		create function evil.pg_my_temp_schema() returns oid language sql as $$select evil.trap('pg_my_temp_schema'); select 0::oid$$;
		create function evil.pg_is_in_recovery() returns bool language sql as $$select evil.trap('pg_is_in_recovery'); select false$$;
		create function evil.never(text, text) returns bool language sql as $$select evil.trap('='); select true$$;
		create operator evil.= (leftarg = text, rightarg = text, function = evil.never);
		create operator evil.<> (leftarg = text, rightarg = text, function = evil.never);
		create view evil.pg_settings as select evil.trap('pg_settings')::text as name, 'session' as source;
		create view evil.pg_locks as select evil.trap('pg_locks')::text as locktype, pg_catalog.pg_backend_pid() as pid`)
	p := startFor(t, c.URL(database, pgtest.Superuser), func(config *proxy.Config) { config.Pool.MaxConnections = 1 })
	a := pgtest.Connect(t, p.url("search_path", "evil, pg_catalog"))
	b := pgtest.Connect(t, p.url("search_path", `"", evil, pg_catalog`, "options", "-c work_mem=5MB"))
	for range 3 {
		one(t, a, "set work_mem to '7MB'")
		one(t, b, "create temp table t (); drop table t; select pg_catalog.pg_advisory_xact_lock(1)")
	}
	require.Equal(t, "5MB", one(t, b, "show work_mem"))
	require.Equal(t, "0", one(t, a, "select count(*) from evil.caught"))
	one(t, a, "select current_setting('work_mem')")
	require.Equal(t, "1", one(t, a, "select count(*) from evil.caught"), "the trap works")
}

// PgBouncer's #999.
func TestLogin_startupValuesAreValuesAndNotSQL(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		for _, value := range []string{
			`x'; set work_mem to '1GB'; --`, `back\slash`, `\'; select 1; --`, `$$`, `"quoted"`, "tab\tnewline\nend", "'", `%`, "",
		} {
			direct := pgtest.Connect(t, spaced(c.URL("postgres", pgtest.Superuser, "application_name="+value)))
			conn := pgtest.Connect(t, p.url("application_name", value))
			require.Equal(t, one(t, direct, "show application_name"), one(t, conn, "show application_name"), "%q", value)
			require.Equal(t, "4MB", one(t, conn, "show work_mem"))
			for _, each := range []interface{ Close(context.Context) error }{direct, conn} {
				require.NoError(t, each.Close(t.Context()))
			}
		}
	})
}
