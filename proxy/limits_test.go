package proxy_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/session"
)

// patient is an acquire timeout long enough for a dial on a busy machine.
const patient = 1500 * time.Millisecond

// requireTooMany checks the refusal of a client above a limit.
func requireTooMany(t *testing.T, to, limit string) {
	t.Helper()
	e := loginError(t, to)
	require.Equal(t, "FATAL", e.Severity)
	require.Equal(t, "53300", e.Code)
	require.Equal(t, "too many clients already: "+limit+" is reached", e.Message)
	require.NotEmpty(t, e.Hint)
}

// PgBouncer's #1238.
func TestLimits_ofClientsAreExact(t *testing.T) {
	c := pgtest.Shared(t, 0)
	a, b := c.Role(t), c.Role(t)
	one, two := c.Database(t), c.Database(t)
	everyone := func(config *proxy.Config) { config.Auth.Unknown = auth.AsIs }
	type login struct{ database, user string }
	for _, test := range []struct {
		name   string
		config func(*proxy.Config)
		limit  string
		pass   []login // as many as may
		refuse login
		free   login // falls under another limit
	}{
		{
			name:   "all",
			config: func(config *proxy.Config) { config.MaxClients = 2 },
			limit:  "client.max_clients",
			pass:   []login{{one, a}, {two, b}}, refuse: login{one, b},
		},
		{
			name:   "one database",
			config: func(config *proxy.Config) { config.MaxClientsPerDatabase = 2 },
			limit:  `the limit of clients of database "` + one + `"`,
			pass:   []login{{one, a}, {one, b}}, refuse: login{one, a}, free: login{two, a},
		},
		{
			name:   "one user",
			config: func(config *proxy.Config) { config.MaxClientsPerUser = 2 },
			limit:  `the limit of clients of user "` + a + `"`,
			pass:   []login{{one, a}, {two, a}}, refuse: login{one, a}, free: login{one, b},
		},
		{
			name: "a database's own goes before the general one",
			config: func(config *proxy.Config) {
				config.MaxClientsPerDatabase = 1
				config.Databases = map[string]proxy.Database{one: {MaxClients: 3}}
			},
			limit: `the limit of clients of database "` + one + `"`,
			pass:  []login{{one, a}, {one, b}, {one, a}}, refuse: login{one, b}, free: login{two, a},
		},
		{
			name: "a user's own goes before the general one",
			config: func(config *proxy.Config) {
				config.MaxClientsPerUser = 5
				config.Users = map[string]proxy.User{a: {MaxClients: 1}}
			},
			limit: `the limit of clients of user "` + a + `"`,
			pass:  []login{{one, a}}, refuse: login{two, a}, free: login{two, b},
		},
		{
			name: "an alias is a database of its own",
			config: func(config *proxy.Config) {
				config.Databases = map[string]proxy.Database{"alias": {Name: one, MaxClients: 1}}
			},
			limit: `the limit of clients of database "alias"`,
			pass:  []login{{"alias", a}}, refuse: login{"alias", b}, free: login{one, b},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(t, c, func(config *proxy.Config) {
				everyone(config)
				test.config(config)
			})
			var last *pgtest.Client
			for _, l := range test.pass {
				last = pgtest.Dial(t, p.Addresses()[0])
				require.NotContains(t, texts(last.Login(l.database, l.user)), "E ")
			}
			requireTooMany(t, p.as(t, test.refuse.database, test.refuse.user), test.limit)
			require.Equal(t, len(test.pass), p.Snapshot().Clients.All())
			if test.free != (login{}) {
				pgtest.Connect(t, p.as(t, test.free.database, test.free.user))
			}
			last.Send(&pgproto3.Terminate{})
			last.ExpectEnd()
			at := test.pass[len(test.pass)-1]
			pgtest.Connect(t, p.as(t, at.database, at.user))
			requireTooMany(t, p.as(t, test.refuse.database, test.refuse.user), test.limit)
		})
	}
}

// PgBouncer's #1238.
func TestLimits_failedLoginsLeaveNothingBehind(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := start(t, c, func(config *proxy.Config) {
		config.MaxClients, config.MaxClientsPerDatabase, config.MaxClientsPerUser = 1, 1, 1
		config.Auth.Unknown = auth.AsIs
	})
	for range 3 {
		for to, code := range map[string]string{
			p.as(t, "no such database", "postgres"): "3D000",
			p.as(t, "postgres", "nobody"):           "28000",
			p.url("no_such_setting", "1"):           "42704",
		} {
			require.Equal(t, code, loginError(t, to).Code)
			await(t, "it is not counted any more", func() bool { return p.Snapshot().Clients.All() == 0 })
		}
	}
	pgtest.Connect(t, p.url())
}

// PgBouncer's #1085.
func TestLimits_serverConnectionsAreExactForTargetDatabaseAndUser(t *testing.T) {
	c := pgtest.Shared(t, 0)
	a, b := c.Role(t), c.Role(t)
	one, two := c.Database(t), c.Database(t)
	p := start(t, c, func(config *proxy.Config) {
		config.Auth.Unknown = auth.AsIs
		config.Pool.MaxConnections, config.Pool.MaxPerDatabase, config.Pool.MaxPerUser = 4, 3, 2
		config.Session.AcquireTimeout = patient
	})
	// hold opens a transaction, or tells why it cannot.
	hold := func(database, user string) error {
		conn, err := pgtest.TryConnect(t, p.as(t, database, user))
		if err != nil {
			return err
		}
		_, err = try(conn, "begin")
		return err
	}
	server := watch(t, c)
	counts := func() [5]int {
		var n [5]int
		for i, where := range []string{
			"usename = any(array['" + a + "','" + b + "'])",
			"datname = '" + one + "'", "datname = '" + two + "'", "usename = '" + a + "'", "usename = '" + b + "'",
		} {
			n[i] = server.count("select count(*) from pg_stat_activity where " + where)
		}
		return n
	}
	require.NoError(t, hold(one, a))
	require.NoError(t, hold(one, a))
	require.Equal(t, "57014", pgError(t, hold(one, a)).Code, "the user has two")
	require.Equal(t, "57014", pgError(t, hold(two, a)).Code, "the user has two, whatever the database")
	require.Equal(t, [5]int{2, 2, 0, 2, 0}, counts())
	require.NoError(t, hold(one, b))
	require.Equal(t, "57014", pgError(t, hold(one, b)).Code, "the database has three")
	require.Equal(t, [5]int{3, 3, 0, 2, 1}, counts())
	require.NoError(t, hold(two, b))
	require.Equal(t, [5]int{4, 3, 1, 2, 2}, counts())
	require.Equal(t, "57014", pgError(t, hold(two, "postgres")).Code, "the target has four")
	require.Equal(t, 0, server.count("select count(*) from pg_stat_activity where usename = 'postgres' and datname = $1", two))
}

// Limits of single databases and users count what PostgreSQL sees, whatever names clients use for it.
// PgBouncer's #1085.
func TestLimits_ofSingleDatabasesAndUsersGoBeforeTheGeneralOnes(t *testing.T) {
	c := pgtest.Shared(t, 0)
	a, b := c.Role(t), c.Role(t)
	one, two := c.Database(t), c.Database(t)
	r := startReloadable(t, c, func(config *proxy.Config) {
		config.Auth.Unknown = auth.AsIs
		config.Pool.MaxConnections, config.Pool.MaxPerDatabase, config.Pool.MaxPerUser = 8, 1, 3
		config.Session.AcquireTimeout = patient
		config.Databases = map[string]proxy.Database{
			one: {MaxConnections: 3}, "alias": {Name: one, MaxConnections: 2}, "everyone": {Name: one, User: b},
		}
		config.Users = map[string]proxy.User{a: {MaxConnections: 1}}
	})
	var held []*pgx.Conn
	hold := func(database, user string) error {
		conn, err := pgtest.TryConnect(t, r.as(t, database, user))
		if err != nil {
			return err
		}
		held = append(held, conn)
		_, err = try(conn, "begin")
		return err
	}
	server := watch(t, c)
	inOne := func() int { return server.count("select count(*) from pg_stat_activity where datname = $1", one) }

	require.NoError(t, hold("everyone", a))
	require.NoError(t, hold("alias", a), "the other one is b's at the server")
	require.Equal(t, "57014", pgError(t, hold(two, a)).Code, "the user may have one")
	require.Equal(t, "57014", pgError(t, hold(one, b)).Code, "of several limits of one database the lowest counts")
	require.Equal(t, 2, inOne())
	require.NoError(t, hold(two, b))
	require.Equal(t, "57014", pgError(t, hold(two, b)).Code, "others have the general limit")

	r.reload(t, func(config *proxy.Config) {
		config.Databases, config.Users = map[string]proxy.Database{one: {MaxConnections: 3}}, nil
	})
	require.NoError(t, hold(one, a), "it is in force at once")
	require.Equal(t, "57014", pgError(t, hold(one, a)).Code)
	require.Equal(t, 3, inOne())
	r.reload(t, func(config *proxy.Config) { config.Databases = map[string]proxy.Database{one: {MaxConnections: 1}} })
	require.Equal(t, 3, inOne(), "transactions go on")
	for _, conn := range held {
		_, _ = try(conn, "commit") // Most of them are in no block.
	}
	await(t, "what is above the limit is closed", func() bool { return inOne() == 1 })
}

func TestAcquireTimeout_isAnErrorAndNotTheEnd(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Session.AcquireTimeout = 1, patient
	})
	client := pgtest.Connect(t, p.url())
	extended := pgtest.Dial(t, p.Addresses()[0])
	extended.Login("postgres", "postgres")
	holder := pgtest.Connect(t, p.url())
	one(t, holder, "begin")

	e := refusal(t, client, "select 1")
	require.Equal(t, "ERROR", e.Severity)
	require.Equal(t, "57014", e.Code)
	require.Equal(t, "no server connection became free within the acquire timeout", e.Message)
	require.Contains(t, e.Hint, "pool.max_connections")
	require.False(t, client.IsClosed())

	// One error for all up to the Sync, as the server itself would answer, and then another for the Query behind it.
	extended.Send(
		&pgproto3.Parse{Query: "select 1"}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Sync{},
		&pgproto3.Query{String: "select 2"},
	)
	extended.Expect("E 57014", "Z I", "E 57014", "Z I")

	one(t, holder, "commit")
	require.Equal(t, "1", one(t, client, "select 1"))
	require.Equal(t, []string{"T ?column?", "D 3", "C SELECT 1", "Z I"}, pgtest.Strings(extended.Query("select 3")))
}

func TestAcquireTimeout_atLoginIsFatal(t *testing.T) {
	p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) {
		config.Pool.MaxConnections, config.Session.AcquireTimeout = 1, patient
		config.Mode = session.WholeSession
	})
	first := pgtest.Connect(t, p.url())
	e := loginError(t, p.url())
	require.Equal(t, "FATAL", e.Severity)
	require.Equal(t, "57014", e.Code)
	require.NoError(t, first.Close(t.Context()))
	pgtest.Connect(t, p.url())
}
