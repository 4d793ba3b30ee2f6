package proxy_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
	"pgsidecar/proxy"
	"pgsidecar/proxy/stats"
)

// statuses are the ParameterStatus messages of a login, in the order of their names.
func statuses(t *testing.T, login []pgtest.Message) []string {
	t.Helper()
	require.Equal(t, "Z I", login[len(login)-1].String(), texts(login))
	var all []string
	for _, m := range login {
		if m.Type == 'S' {
			all = append(all, m.String())
		}
	}
	slices.Sort(all)
	return all
}

// startups are what clients come with.
func startups() map[string][]string {
	return map[string][]string{
		"nothing":            nil,
		"names and values":   {"application_name=my app", "client_encoding=LATIN1", "DateStyle=German", "TimeZone=Asia/Tokyo", "IntervalStyle=iso_8601"},
		"other spellings":    {"APPLICATION_NAME=a", "client_encoding='utf-8'", "datestyle=sql, dmy", "timezone=utc"},
		"options":            {`options=-c search_path=a,b --default-transaction-read-only=on -cwork_mem=9MB -c application_name=from\ options`},
		"both":               {"options=-c application_name=loses", "application_name=wins"},
		"libpq's":            {"client_encoding=UTF8", "application_name=psql", "fallback_application_name=psql"},
		"pgjdbc's":           {"client_encoding=UTF8", "DateStyle=ISO", "TimeZone=Europe/Berlin", "extra_float_digits=2"},
		"conforming strings": {"standard_conforming_strings=off", "options=-c backslash_quote=on"},
		"long":               {"application_name=" + strings.Repeat("n", 500), "search_path=" + strings.Repeat("schema_of_some_length,", 40) + "public"},
	}
}

// PgBouncer's #859.
func TestWelcome_isWhatTheServerItselfSays(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		for name, startup := range startups() {
			if name == "libpq's" {
				startup = startup[:2] // the third is libpq's own, no parameter
			}
			direct := pgtest.Dial(t, c.Addr())
			want := statuses(t, direct.Login("postgres", pgtest.Superuser, startup...))
			require.GreaterOrEqual(t, len(want), 13)
			for range 2 { // from a server, and as it is remembered
				client := pgtest.Dial(t, p.Addresses()[0])
				require.Equal(t, want, statuses(t, client.Login("postgres", pgtest.Superuser, startup...)), name)
				// What the client runs, it runs under these settings.
				for _, setting := range []string{"application_name", "search_path", "datestyle", "work_mem", "extra_float_digits"} {
					require.Equal(t, texts(direct.Query("show "+setting)), texts(client.Query("show "+setting)), "%s: %s", name, setting)
				}
			}
		}
	})
}

// PgBouncer's #859.
func TestWelcome_followsTheServersConfiguration(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	p := onOne(t, c)
	client := pgtest.Dial(t, p.Addresses()[0])
	require.Contains(t, statuses(t, client.Login("postgres", pgtest.Superuser)), "S TimeZone=UTC")
	c.Exec(t, "alter system set timezone to 'Asia/Tokyo'")
	require.NoError(t, c.Reload())
	// A server process looks at its configuration when it gets something to do.
	await(t, "the client is told so", func() bool { return strings.Contains(texts(client.Query("select 1")), "S TimeZone=Asia/Tokyo") })
	fresh := pgtest.Dial(t, p.Addresses()[0])
	require.Contains(t, statuses(t, fresh.Login("postgres", pgtest.Superuser)), "S TimeZone=Asia/Tokyo")
}

// PgBouncer's #1576 and #1580.
func TestParameters_ofInterleavedClientsStayApart(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		type pair struct{ name, a, b string }
		pairs := []pair{
			{"application_name", "a's", "b's"},
			{"client_encoding", "LATIN1", "UTF8"},
			{"datestyle", "SQL, DMY", "ISO, MDY"},
			{"timezone", "Asia/Tokyo", "America/New_York"},
			{"intervalstyle", "iso_8601", "sql_standard"},
			{"standard_conforming_strings", "off", "on"},
			{"default_transaction_read_only", "on", "off"},
			{"search_path", "a, public", "b, public"},
			{"statement_timeout", "1min", "2min"}, // no server reports this one, nor those below
			{"lock_timeout", "3s", "4s"},
			{"work_mem", "5MB", "6MB"},
			{"extra_float_digits", "0", "3"},
			{"app.user_id", "1", "2"},
		}
		for _, one := range pairs {
			a, b := pgtest.Dial(t, p.Addresses()[0]), pgtest.Dial(t, p.Addresses()[0])
			statuses(t, a.Login("postgres", pgtest.Superuser, one.name+"="+one.a))
			statuses(t, b.Login("postgres", pgtest.Superuser, one.name+"="+one.b))
			for range 3 {
				require.Contains(t, texts(a.Query("show "+one.name)), "D "+one.a+" |", one.name)
				require.Contains(t, texts(b.Query("show "+one.name)), "D "+one.b+" |", one.name)
			}
		}
		// All of them together, one half by options.
		var ofA, ofB []string
		optionsA, optionsB := "options=", "options="
		for i, one := range pairs {
			if i%2 == 0 {
				ofA, ofB = append(ofA, one.name+"="+one.a), append(ofB, one.name+"="+one.b)
				continue
			}
			optionsA += " -c " + one.name + "=" + strings.ReplaceAll(one.a, " ", `\ `)
			optionsB += " --" + strings.ReplaceAll(one.name, "_", "-") + "=" + strings.ReplaceAll(one.b, " ", `\ `)
		}
		a, b := pgtest.Dial(t, p.Addresses()[0]), pgtest.Dial(t, p.Addresses()[0])
		statuses(t, a.Login("postgres", pgtest.Superuser, append(ofA, optionsA)...))
		statuses(t, b.Login("postgres", pgtest.Superuser, append(ofB, optionsB)...))
		for _, one := range pairs {
			require.Contains(t, texts(a.Query("show "+one.name)), "D "+one.a+" |", one.name)
			require.Contains(t, texts(b.Query("show "+one.name)), "D "+one.b+" |", one.name)
		}
	})
}

// PgBouncer's #776 and #879: a value that the server spells differently was set again at every transaction.
func TestParameters_otherSpellingsAreSetOnce(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		client := pgtest.Dial(t, p.Addresses()[0])
		statuses(t, client.Login("postgres", pgtest.Superuser, "datestyle=ISO", "client_encoding=utf-8", "timezone=utc", "work_mem=4096", "statement_timeout=60000"))
		client.Query("select 1")
		before := p.Snapshot().Totals.StateReplays
		for range 10 {
			require.Contains(t, texts(client.Query("show datestyle")), "D ISO, MDY |")
		}
		require.Equal(t, before, p.Snapshot().Totals.StateReplays)
	})
}

func TestParameters_clientsThatComeWithTheSameNeedNoReplay(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	clients := make([]*pgtest.Client, 3)
	for i := range clients {
		clients[i] = pgtest.Dial(t, p.Addresses()[0])
		statuses(t, clients[i].Login("postgres", pgtest.Superuser, "application_name=same", "TimeZone=Asia/Tokyo"))
	}
	before := p.Snapshot().Totals.StateReplays
	require.LessOrEqual(t, before, uint64(1))
	for range 5 {
		for _, client := range clients {
			client.Query("select 1")
		}
	}
	require.Equal(t, before, p.Snapshot().Totals.StateReplays)
}

// PgBouncer drops values above 128 bytes silently, and cuts long SETs.
// PgBouncer's #999.
func TestParameters_longValuesSurvive(t *testing.T) {
	p := onOne(t, pgtest.Shared(t, 0))
	for _, length := range []int{63, 127, 128, 129, 255, 300, 1000, 4096, 9000} {
		value := strings.Repeat("abc'\\ ", length/6+1)[:length]
		a, b := pgtest.Dial(t, p.Addresses()[0]), pgtest.Dial(t, p.Addresses()[0])
		statuses(t, a.Login("postgres", pgtest.Superuser, "app.value="+value))
		statuses(t, b.Login("postgres", pgtest.Superuser))
		for range 2 {
			require.Contains(t, texts(a.Query("show app.value")), "D "+value+" |")
			require.NotContains(t, texts(b.Query("select current_setting('app.value', true)")), "abc")
		}
	}
}

// PgBouncer's #907 and #909.
func TestParameters_optionsAreReadAsTheServerReadsThem(t *testing.T) {
	c := pgtest.Shared(t, 0)
	p := onOne(t, c)
	for _, options := range []string{
		"-c work_mem=5MB", "-cwork_mem=5MB", "--work-mem=5MB", "--work_mem=5MB", "  -c\twork_mem=5MB  ", "-c work_mem=1MB -c work_mem=5MB",
		`-c application_name=with\ space`, `-c application_name=with\\backslash`, "-c application_name=", "-c application_name=a=b",
		`-c app.a_b=x --app.c-d=y`, "",
	} {
		direct, client := pgtest.Dial(t, c.Addr()), pgtest.Dial(t, p.Addresses()[0])
		want := statuses(t, direct.Login("postgres", pgtest.Superuser, "options="+options))
		require.Equal(t, want, statuses(t, client.Login("postgres", pgtest.Superuser, "options="+options)), options)
		for _, sql := range []string{"show work_mem", "show application_name", "select coalesce(current_setting('app.a_b', true), ''), coalesce(current_setting('app.c_d', true), '')"} {
			require.Equal(t, texts(direct.Query(sql)), texts(client.Query(sql)), "%s: %s", options, sql)
		}
	}
}

// PgBouncer's #907 and #909.
func TestParameters_thatAreNoneAreRefusedAsTheServerRefusesThem(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := onOne(t, c)
		witness := pgtest.Connect(t, p.url())
		for _, startup := range []string{
			"no_such_setting=1", "work_mem=much", "client_encoding=KLINGON", "timezone=Nowhere/City", "max_connections=3",
			"options=-c no_such_setting=1", "options=-c work_mem", "options=-c work_mem=much", "options=--work-mem=9TB",
		} {
			name, value, _ := strings.Cut(startup, "=")
			direct := loginError(t, spaced(c.URL("postgres", pgtest.Superuser, startup)))
			refused := loginError(t, p.url(name, value))
			require.Equal(t, "FATAL", refused.Severity, startup)
			require.Equal(t, direct.Code, refused.Code, startup)
			require.Equal(t, direct.Message, refused.Message, startup)
			require.Equal(t, "1", one(t, witness, "select 1"))
		}
		for _, options := range []string{"-d 5", "-x", "stray", "-"} { // switches of a server process, and what is none
			e := loginError(t, p.url("options", options))
			require.Equal(t, "0A000", e.Code)
			require.Contains(t, e.Message, `unsupported switch in startup parameter "options"`)
			require.Contains(t, e.Hint, "-c name=value")
		}
	})
}

// What can be set only when a connection begins cannot be lent from client to client: its client has a server of its own.
func TestParameters_ofTheStartAlone_giveTheClientAServerOfItsOwn(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		p := start(t, c, func(config *proxy.Config) {
			config.Pool.MaxConnections, config.Session.AcquireTimeout = 2, patient
		})
		const show = "select current_setting('ignore_system_indexes') || current_setting('work_mem')"
		other := pgtest.Connect(t, p.url())
		own := pgtest.Connect(t, p.url("options", "-c ignore_system_indexes=on -c work_mem=5MB"))
		pid := strconv.Itoa(int(own.PgConn().PID()))
		for range 3 {
			require.Equal(t, "off4MB", one(t, other, show))
			require.Equal(t, "on5MB", one(t, own, show))
			require.Equal(t, pid, pidOf(t, own))
			require.NotEqual(t, pid, pidOf(t, other))
		}
		require.Equal(t, []stats.Count{{Label: "parameter of the connection's start", Count: 1}}, p.Snapshot().Pinned)
		// There is none left for another one: it is told so, and nothing of it stays.
		one(t, other, "begin")
		require.Equal(t, "57014", loginError(t, p.url("ignore_system_indexes", "on")).Code)
		one(t, other, "commit")
		require.NoError(t, own.Close(t.Context()))
		await(t, "its server is closed and nothing pins", func() bool {
			s := p.Snapshot()
			return len(s.Pinned) == 0 && s.Clients.All() == 1 && s.Pools[0].Idle+s.Pools[0].Active+s.Pools[0].Closing == 1
		}, p)
		require.Equal(t, "off4MB", one(t, other, show))
	})
}

func TestParameters_ofManyClientsOnFewServers(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			p := start(t, pgtest.Shared(t, 0), func(config *proxy.Config) { config.Loops, config.Pool.MaxConnections = loops, 2 })
			var ends []<-chan error
			for i := range 20 {
				name := fmt.Sprint("client ", i)
				conn := pgtest.Connect(t, p.url("application_name", name, "search_path", fmt.Sprint("schema_", i)))
				want := fmt.Sprintf("%s of schema_%d", name, i)
				ends = append(ends, started(func() error {
					for range 50 {
						got, err := try(conn, "select current_setting('application_name') || ' of ' || current_setting('search_path')")
						if err != nil {
							return err
						}
						if got != want {
							return fmt.Errorf("%q, want %q", got, want)
						}
					}
					return nil
				}))
			}
			for _, end := range ends {
				require.NoError(t, <-end)
			}
		})
	}
}
