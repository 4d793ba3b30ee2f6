package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
)

const url = "DATABASE_URL=postgres://app:secret@db:5432/app"

// load writes content to a file called pgsidecar.yaml and loads it. File names in the error are shortened to that.
func load(t *testing.T, content string, environ ...string) (config.Config, config.Origins, string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "pgsidecar.yaml")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	c, origins, err := config.Load(file, environ)
	if err == nil {
		return c, origins, ""
	}
	return c, origins, strings.ReplaceAll(err.Error(), dir+"/", "")
}

func TestLoad_databaseURLAlone_isEnough(t *testing.T) {
	c, origins, err := config.Load("", []string{url, "PATH=/bin"})
	require.NoError(t, err)
	want := config.Default()
	want.Upstream.URL = "postgres://app:secret@db:5432/app"
	require.Equal(t, want, c)
	require.Equal(t, config.Origins{"upstream.url": {Variable: "DATABASE_URL"}}, origins)
}

func TestLoad_nothing_asksForTheURL(t *testing.T) {
	_, _, err := config.Load("", nil)
	require.EqualError(t, err, "upstream.url: is not set: write postgres://user:password@host:5432/database here or in DATABASE_URL")
}

func TestLoad_everyKindOfValue(t *testing.T) {
	c, _, fault := load(t, `
listen:
  - 127.0.0.1:5000
  - {address: "[::1]:5001", route: primary}
  - /run/pgsidecar
http: {listen: []}
upstream: {url: "host=db1,db2 user=app password=secret dbname=app", connect_timeout: 1m30s}
pool:
  mode: session
  max_connections: 3
client_auth: {unknown_users: upstream}
databases:
  app: {dbname: app_production, pool_mode: statement}
  reports:
users: {"dot.ted": {max_clients: 7}}
log: {connections: true}
idle_transaction_timeout: 0
`)
	require.Empty(t, fault)
	require.Equal(t, []config.Listen{
		{Address: "127.0.0.1:5000", Route: config.RoutePrimary},
		{Address: "[::1]:5001", Route: config.RoutePrimary},
		{Address: "/run/pgsidecar", Route: config.RoutePrimary},
	}, c.Listen)
	require.Empty(t, c.HTTP.Listen)
	require.Equal(t, 90*time.Second, c.Upstream.ConnectTimeout)
	require.Equal(t, config.PoolSession, c.Pool.Mode)
	require.Equal(t, 3, c.Pool.MaxConnections)
	require.Equal(t, config.UnknownUpstream, c.ClientAuth.UnknownUsers)
	require.Equal(t, map[string]config.Database{
		"app": {DBName: "app_production", PoolMode: config.PoolStatement}, "reports": {},
	}, c.Databases)
	require.Equal(t, map[string]config.User{"dot.ted": {MaxClients: 7}}, c.Users)
	require.True(t, c.Log.Connections)
}

func TestLoad_emptyOrCommentedFile_isTheDefault(t *testing.T) {
	for _, content := range []string{"", "\n", "# nothing\n", "---\n", "pool:\n  # max_connections: 3\n", "databases:\n"} {
		_, _, fault := load(t, content, url)
		require.Empty(t, fault, "%q", content)
	}
}

func TestLoad_manyFaults_areAllTold(t *testing.T) {
	_, _, fault := load(t, `
pool:
  max_conections: 3
  mode: transacton
  acquire_timeout: 30
  min_connections: -1
listen: 6432
client:
  login_timeout: 0s
  max_clients: many
default_pool_size: 20
databases:
  app: {dbname: x, poolmode: session}
loops: [1]
loops: 2
log: text
`, "PGSIDECAR_POOL_IDLE_TIMEOUT=soon", "PGSIDECAR_POOL_MAX_CONECTIONS=3", "DATABASE_URL=mysql://app@db/app")
	require.Equal(t, strings.Split(strings.TrimSpace(`
pgsidecar.yaml:3: pool.max_conections: is not a key: did you mean pool.max_connections?
pgsidecar.yaml:4: pool.mode: "transacton" is not known here: did you mean transaction? Write transaction, session or statement
pgsidecar.yaml:5: pool.acquire_timeout: "30" has no unit: write 30s if seconds are meant
pgsidecar.yaml:6: pool.min_connections: -1 is out of range: write a whole number from 0 to 10000
pgsidecar.yaml:7: listen[0]: "6432" is not an address to listen on: write host:port such as 127.0.0.1:6432, or the path of a unix socket
pgsidecar.yaml:9: client.login_timeout: 0 is out of range: write a time with its unit from 1s to 24h
pgsidecar.yaml:10: client.max_clients: "many" is not a whole number: write a whole number from 1 to 1000000
pgsidecar.yaml:11: default_pool_size: is not a key: its name here is pool.max_connections
pgsidecar.yaml:13: databases.app.poolmode: is not a key: did you mean databases.app.pool_mode?
pgsidecar.yaml:14: loops: takes a single value, not a list: write a whole number from 1 to 64
pgsidecar.yaml:15: loops: is there twice, first in line 14: keep one of the two
pgsidecar.yaml:16: log: is not a mapping: write lines such as level: ...
DATABASE_URL: upstream.url: "mysql://" is not PostgreSQL's URL scheme: begin it with postgres:// or postgresql://
PGSIDECAR_POOL_IDLE_TIMEOUT: "soon" is not a time span: write a time with its unit from 0 to 720h, such as 30s, 10m or 1h30m
PGSIDECAR_POOL_MAX_CONECTIONS: is not a variable of pgsidecar: did you mean PGSIDECAR_POOL_MAX_CONNECTIONS?
`), "\n"), strings.Split(fault, "\n"))
}

func TestLoad_notYAML_tellsTheLine(t *testing.T) {
	for content, want := range map[string]string{
		"pool:\n\tmode: session\n":          "pgsidecar.yaml:2: is not YAML: found character that cannot start any token",
		"pool: {mode: session\nlisten: x\n": "pgsidecar.yaml:1: is not YAML: did not find expected",
		"- pool\n":                          "pgsidecar.yaml:1: is not a mapping: write lines such as listen: ...",
		"loops: 1\n---\nloops: 2\n":         "has more than one document",
		"\x00\x01":                          "is not YAML",
		"loops: *x\n":                       "is not YAML",
		"loops: 1\n? [a]\n: 2\n":            "is not a key",
		"pool: &p\n  pool: *p\n":            "pool.pool: is not a key",
	} {
		_, _, fault := load(t, content, url)
		require.Contains(t, fault, want, "%q", content)
	}
}

func TestLoad_missingFile_namesIt(t *testing.T) {
	_, _, err := config.Load("/nowhere/pgsidecar.yaml", []string{url})
	require.EqualError(t, err, "/nowhere/pgsidecar.yaml: does not exist: check the name given by --config or PGSIDECAR_CONFIG")
	_, _, err = config.Load(t.TempDir(), []string{url})
	require.ErrorContains(t, err, "is a directory")
}

func TestLoad_environment_overridesTheFile(t *testing.T) {
	c, origins, fault := load(t, "pool: {max_connections: 3}\nlisten: 127.0.0.1:1\n",
		url, "MAX_CONNECTIONS=4", "PGSIDECAR_POOL_MAX_CONNECTIONS=5", "PGSIDECAR_LISTEN=127.0.0.1:2, /run/x",
		"PGSIDECAR_USERS={app: {max_clients: 2}}", "PGSIDECAR_HTTP_LISTEN=[]", "PGSIDECAR_LOG_FORMAT=", "PGSIDECAR_LOOPS=2")
	require.Empty(t, fault)
	require.Equal(t, 5, c.Pool.MaxConnections, "the variable in our own name wins")
	require.Equal(t, []config.Listen{{"127.0.0.1:2", config.RoutePrimary}, {"/run/x", config.RoutePrimary}}, c.Listen)
	require.Equal(t, map[string]config.User{"app": {MaxClients: 2}}, c.Users)
	require.Empty(t, c.HTTP.Listen)
	require.Equal(t, config.LogText, c.Log.Format, "a variable that is set to nothing is not set")
	require.Equal(t, "PGSIDECAR_POOL_MAX_CONNECTIONS", origins["pool.max_connections"].String())

	c, _, fault = load(t, "pool: {max_connections: 3}", url, "MAX_CONNECTIONS=4")
	require.Empty(t, fault)
	require.Equal(t, 4, c.Pool.MaxConnections)
}

func TestLoad_variablesOfOthers_areLeftAlone(t *testing.T) {
	_, _, err := config.Load("", []string{
		url, "PGSIDECAR_CONFIG=/x", "PGSIDECAR_TEST_PG17=/usr/bin", "PGSIDECARX=1",
		// As Kubernetes sets them for Services called pgsidecar and pgsidecar-metrics.
		"PGSIDECAR_SERVICE_HOST=10.0.0.1", "PGSIDECAR_SERVICE_PORT=6433", "PGSIDECAR_SERVICE_PORT_METRICS=6433",
		"PGSIDECAR_PORT=tcp://10.0.0.1:6433", "PGSIDECAR_PORT_6433_TCP=tcp://10.0.0.1:6433", "PGSIDECAR_PORT_6433_TCP_ADDR=10.0.0.1",
		"PGSIDECAR_METRICS_SERVICE_HOST=10.0.0.1", "PGSIDECAR_METRICS_PORT_6433_TCP_PROTO=tcp",
	})
	require.NoError(t, err)
	for variable, want := range map[string]string{
		"PGSIDECAR_NONSENSE=1":                      "PGSIDECAR_NONSENSE: is not a variable of pgsidecar: unset it",
		"PGSIDECAR_USERS= ":                         "PGSIDECAR_USERS: cannot be understood: write a mapping",
		"PGSIDECAR_USERS={":                         "PGSIDECAR_USERS: cannot be understood: write a mapping",
		"PGSIDECAR_USERS=app":                       "PGSIDECAR_USERS: takes a mapping, not a single value",
		"PGSIDECAR_DATABASES={app: {pool_mode: x}}": `PGSIDECAR_DATABASES: databases.app.pool_mode: "x" is not known here`,
		"PGSIDECAR_LISTEN=127.0.0.1:1,":             "PGSIDECAR_LISTEN: listen[1]: is empty",
		"MAX_CONNECTIONS=0":                         "MAX_CONNECTIONS: pool.max_connections: 0 is out of range",
	} {
		_, _, err := config.Load("", []string{url, variable})
		require.ErrorContains(t, err, want)
	}
}

func TestLoad_rulesBetweenKeys(t *testing.T) {
	for name, test := range map[string]struct{ content, want string }{
		"minimum above maximum": {
			"pool: {min_connections: 21}",
			"pgsidecar.yaml:1: pool.min_connections: 21 is more than pool.max_connections, which is 20",
		},
		"trust for everyone":             {"listen: 0.0.0.0:6432", "pgsidecar.yaml:1: listen: 0.0.0.0:6432 can be reached by others"},
		"trust for everyone, no host":    {"listen: ':6432'", ":6432 can be reached by others"},
		"trust on a name":                {"listen: db.example:6432", "can be reached by others"},
		"trust forced":                   {"listen: 0.0.0.0:6432\nclient_auth: {force_trust: true}", ""},
		"trust on this machine":          {"listen: [localhost:1, 127.0.0.2:1, '[::1]:1', /run/x]", ""},
		"scram for everyone":             {"listen: 0.0.0.0:6432\nclient_auth: {method: scram-sha-256}", ""},
		"as-is needs the password":       {"client_auth: {method: scram-sha-256, unknown_users: as-is}", "client_auth.unknown_users: as-is cannot work"},
		"certificate without key":        {"client_tls: {mode: allow, cert_file: /etc/hostname}", "client_tls.cert_file: has no key"},
		"key without certificate":        {"client_tls: {mode: allow, key_file: /etc/hostname}", "client_tls.key_file: has no certificate"},
		"certificate that is not used":   {"client_tls: {cert_file: /etc/hostname, key_file: /etc/hostname}", "is not used, as client_tls.mode is disable"},
		"TLS without certificate":        {"client_tls: {mode: require}", "client_tls.mode: require needs a certificate"},
		"client certificates without CA": {"client_tls: {mode: verify-full}", "client_tls.mode: verify-full needs authorities"},
		"file that is not there":         {"client_auth: {users_file: /nowhere}", "/nowhere cannot be read: no such file or directory"},
		"not a certificate":              {"client_tls: {mode: allow, cert_file: /etc/hostname, key_file: /etc/hostname}", "cannot be used with client_tls.key_file"},
		"same address twice":             {"listen: [127.0.0.1:1, 127.0.0.1:1]", "127.0.0.1:1 is there twice"},
		"http on the clients' address":   {"http: {listen: 127.0.0.1:6432}", "http.listen: 127.0.0.1:6432 is there twice"},
		"any free port twice":            {"listen: [127.0.0.1:0, 127.0.0.1:0]", ""},
		"address without a list":         {"listen: []", "listen: is an empty list"},
		"port out of range":              {"listen: 127.0.0.1:65536", `"65536" is not a port`},
		"socket path too long":           {"listen: /" + strings.Repeat("x", 100), "too long for a unix socket"},
		"route unknown":                  {"listen: {address: '127.0.0.1:1', route: replica}", `listen[0].route: "replica" is not known here: write primary`},
		"address unknown":                {"listen: {adddress: '127.0.0.1:1'}", "listen[0].adddress: is not a key: did you mean listen[0].address?"},
		"upstream is the proxy":          {"upstream: {url: 'postgres://app@localhost:6432/app'}", "upstream.url: points at the proxy itself, 127.0.0.1:6432"},
		"second host is the proxy": {
			"listen: ':7000'\nclient_auth: {force_trust: true}\nupstream: {url: 'postgres://app@db:7000,127.0.0.1:7000/app'}", "points at the proxy itself",
		},
		"upstream elsewhere":             {"upstream: {url: 'postgres://app@db:6432/app'}", ""},
		"upstream is the proxy's socket": {"listen: /run/x\nupstream: {url: 'host=/run/x port=6432 user=app'}", "points at the proxy itself, /run/x"},
		"upstream is a socket beside it": {"listen: [/run/x, 127.0.0.1:5432]\nupstream: {url: 'host=/run/x port=5432 user=app'}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			environ := []string{url}
			if strings.Contains(test.content, "upstream") {
				environ = nil
			}
			_, _, fault := load(t, test.content, environ...)
			if test.want == "" {
				require.Empty(t, fault)
			} else {
				require.Contains(t, fault, test.want)
			}
		})
	}
}

func TestLoad_passwordMethodWithoutAnyPassword_isRefused(t *testing.T) {
	t.Setenv("PGPASSFILE", "/nowhere") // The driver would look there.
	_, _, fault := load(t, "client_auth: {method: scram-sha-256}", "DATABASE_URL=postgres://app@db/app")
	require.Contains(t, fault, "client_auth.method: scram-sha-256 leaves nobody who could log in")
	_, _, fault = load(t, "client_auth: {method: password, unknown_users: as-is}", "DATABASE_URL=postgres://app@db/app")
	require.Empty(t, fault, "the server judges the password")
}

func TestListen_socket(t *testing.T) {
	for address, want := range map[string][2]string{
		"127.0.0.1:6432":      {"tcp", "127.0.0.1:6432"},
		"/run/pg":             {"unix", "/run/pg/.s.PGSQL.6432"},
		"/run/pg/.s.PGSQL.99": {"unix", "/run/pg/.s.PGSQL.99"},
	} {
		network, got := config.Listen{Address: address}.Socket()
		require.Equal(t, want, [2]string{network, got})
	}
}

func TestLoad_faultsOfBothKinds_areInTheOrderOfTheFile(t *testing.T) {
	_, _, fault := load(t, "listen: 0.0.0.0:6432\nloops: many\n", url) // The rule about listen is looked at last.
	require.Less(t, strings.Index(fault, "pgsidecar.yaml:1:"), strings.Index(fault, "pgsidecar.yaml:2:"), fault)
}

func TestLoad_endThatDoesNotFitTheGracePeriod_isRefused(t *testing.T) {
	for content, want := range map[string]string{
		"lifecycle: classic": "pgsidecar.yaml:1: lifecycle: classic needs to know when the pod is killed: " +
			"set drain.pod_grace to the pod's terminationGracePeriodSeconds, which is 30s unless the pod says otherwise",
		"lifecycle: classic\ndrain: {pod_grace: 30s}": "pgsidecar.yaml:2: drain.pod_grace: is 30s, but the end may take 38s " +
			"(drain.min_linger or drain.quiet_period, drain.timeout and 3s to close): lower drain.timeout, or raise this and the pod's terminationGracePeriodSeconds",
		"drain: {pod_grace: 32s}": "pgsidecar.yaml:1: drain.pod_grace: is 32s, but the end may take 33s (drain.timeout and 3s to close): " +
			"lower drain.timeout, or raise this and the pod's terminationGracePeriodSeconds",
	} {
		_, _, fault := load(t, content, url)
		require.Equal(t, want, fault)
	}
	c, _, fault := load(t, "lifecycle: classic\ndrain: {pod_grace: 38s, timeout: 20s, quiet_period: 15s}", url)
	require.Empty(t, fault)
	require.Equal(t, 15*time.Second, c.Drain.MaxLinger(), "just enough for the quiet period")
}
