package config

import (
	"strings"
	"time"
)

// option is one key: where its value is in a Config, and what there is to know about it. Only this table knows the keys.
type option struct {
	key   string // Dotted path in the file. The variable's name follows from it, see variableOf.
	value value

	doc      string // Sentences for the reference file.
	restart  bool   // A running proxy cannot take over a change.
	secret   bool   // Printed as its value's masked form.
	variable string // A variable that is also understood, because others set it already.
	alias    string // What other poolers call it; only to point people to the key.
}

// Bounds that keep slips such as a missing decimal point from being taken for a wish.
const (
	maxTimeout  = 24 * time.Hour
	maxLifetime = 30 * 24 * time.Hour
	maxServers  = 10_000
	maxClients  = 1_000_000
)

// options returns the table of all keys, bound to c, in the order of the reference file.
func (c *Config) options() []option {
	var all []option
	for _, part := range [][]option{
		c.listenOptions(), c.upstreamOptions(), c.discoveryOptions(), c.readOptions(), c.poolOptions(), c.clientOptions(), c.accessOptions(), c.processOptions(), c.resourceOptions(),
	} {
		all = append(all, part...)
	}
	return all
}

func (c *Config) listenOptions() []option {
	return []option{{
		key: "listen", value: listenList{&c.Listen}, restart: true, alias: "listen_addr listen_port unix_socket_dir",
		doc: "Where clients connect: host:port, or the path of a unix socket. A path whose last part does not begin with " +
			".s.PGSQL. is a directory, in which the socket .s.PGSQL.6432 is made. An entry may also be a mapping " +
			"{address: host:port, route: prefer-standby}; routes are primary (the default), standby, prefer-standby (the primary where no standby will do), " +
			"any, and auto (a standby for what seems to read only, and the primary for the rest). A client may ask for another one by the startup parameter pgsidecar.route.",
	}, {
		key: "http.listen", value: addressList(&c.HTTP.Listen), restart: true,
		doc: "Where probes (/livez, /readyz), /metrics and the status page are served: host:port or the path of a unix socket. " +
			"Kubernetes and Prometheus need an address of the pod, such as 0.0.0.0:6433; what changes the proxy's state (drain, reload) " +
			"answers on loopback and unix sockets only. An empty list switches it off.",
	}, {
		key: "http.pod_terminating", value: boolean(&c.HTTP.PodTerminating), restart: true,
		doc: "Let /pod-terminating be called on all addresses, as the kubelet does for preStop: httpGet. It tells that the pod has begun to " +
			"end: servers that are idle are given back after a second, and clients notice nothing. On loopback and unix sockets it always answers.",
	}, {
		key: "http.quitquitquit", value: boolean(&c.HTTP.QuitQuitQuit), restart: true,
		doc: "Serve POST /quitquitquit, the name under which tools that end the sidecars of a finished job know what is /drain here. " +
			"It answers on loopback and unix sockets only.",
	}}
}

func (c *Config) upstreamOptions() []option {
	return []option{{
		key: "upstream.url", value: connString(&c.Upstream.URL), secret: true, variable: "DATABASE_URL",
		alias: "host dbname url database_url dsn",
		doc: "PostgreSQL, as a URL or as keywords and values, in the words of libpq: several hosts, target_session_attrs, sslmode and " +
			"sslrootcert work as there. Its user and password are those of the first known user. Settings in it " +
			"(application_name, options) are given to every server connection.",
	}, {
		key: "upstream.hosts", value: addressList(&c.Upstream.Hosts), alias: "targets servers",
		doc: "The servers of the cluster, primary and standbys, in place of the hosts in the URL; everything else is taken from there. With hosts " +
			"here, or several in the URL, all of them are probed, and clients are led to the one that is the primary.",
	}, {
		key: "upstream.password_file", value: path(&c.Upstream.PasswordFile),
		doc: "A file with the password of the URL's user, for passwords that change: it is read at each login. " +
			"It comes before a password in the URL.",
	}, {
		key: "upstream.connect_timeout", value: duration(&c.Upstream.ConnectTimeout, time.Second, maxTimeout),
		alias: "server_connect_timeout",
		doc:   "How long connecting and logging in to one host may take. A connect_timeout in the URL comes before it.",
	}, {
		key: "upstream.keepalive", value: duration(&c.Upstream.Keepalive, 6*time.Second, maxTimeout),
		alias: "tcp_keepalive tcp_keepidle tcp_keepintvl tcp_keepcnt",
		doc: "How long an idle connection to a server that does not answer any more is believed to be alive, to the second. " +
			"TCP keepalive probes begin after half of it.",
	}, {
		key: "upstream.tcp_user_timeout", value: duration(&c.Upstream.TCPUserTimeout, time.Second, maxTimeout), alias: "tcp_user_timeout",
		doc: "How long bytes sent to a server may stay unacknowledged before the connection is given up; keepalive does not notice " +
			"this case, and the operating system would take about 15 minutes.",
	}, {
		key: "failover.hold", value: duration(&c.Failover.Hold, 0, time.Hour),
		doc: "How long clients that begin a transaction are held while there is no primary or none can be reached, or while an operator " +
			"holds them, before they get an error. 0 tells them at once.",
	}, {
		key: "failover.max_lost_wal", value: number(&c.Failover.MaxLostWAL, 0, 1<<40),
		doc: "How many bytes of WAL a new primary may lack that the old one was seen to have on its disk. One that lacks more is not " +
			"used, unless an authority confirms it; what is lost is logged as an error in any case. 0 accepts any loss.",
	}, {
		key: "failover.resolve_commit", value: boolean(&c.Failover.ResolveCommit),
		doc: "Look a COMMIT up whose server was lost before it answered, on the server that is the primary then: the client is told that it took effect, that " +
			"it was rolled back (40001), or that nobody can know (08007). Each COMMIT carries a small question for that, in the same round trip.",
	}}
}

func (c *Config) poolOptions() []option {
	return []option{{
		key: "pool.mode", value: poolMode(&c.Pool.Mode), alias: "pool_mode",
		doc: "How long a client keeps its server: for a transaction, for its session, or for a single statement " +
			"(which refuses transactions of several statements).",
	}, {
		key: "pool.max_connections", value: number(&c.Pool.MaxConnections, 1, maxServers), variable: "MAX_CONNECTIONS",
		alias: "default_pool_size pool_size max_pool_size",
		doc: "The most connections to PostgreSQL, over all databases and users, those that are being opened or closed included. " +
			"PostgreSQL never sees more from this proxy.",
	}, {
		key: "pool.min_connections", value: number(&c.Pool.MinConnections, 0, maxServers), alias: "min_pool_size min_idle",
		doc: "How many connections each pool that has had a client is kept filled to.",
	}, {
		key: "pool.max_connections_per_database", value: number(&c.Pool.MaxConnectionsPerDatabase, 0, maxServers), alias: "max_db_connections",
		doc: "The most connections to one database. 0 sets no limit of its own.",
	}, {
		key: "pool.max_connections_per_user", value: number(&c.Pool.MaxConnectionsPerUser, 0, maxServers), alias: "max_user_connections",
		doc: "The most connections of one user. 0 sets no limit of its own.",
	}, {
		key: "pool.acquire_timeout", value: duration(&c.Pool.AcquireTimeout, time.Millisecond, maxTimeout), alias: "query_wait_timeout pool_timeout",
		doc: "How long a client waits for a connection before it gets an error.",
	}, {
		key: "pool.idle_timeout", value: duration(&c.Pool.IdleTimeout, 0, maxLifetime), alias: "server_idle_timeout",
		doc: "How long a connection may lie unused before it is closed. 0 keeps it.",
	}, {
		key: "pool.max_lifetime", value: duration(&c.Pool.MaxLifetime, 0, maxLifetime), alias: "server_lifetime",
		doc: "How old a connection may get before it is closed at its next release; each gets up to a tenth less, so that they do not end " +
			"together. 0 sets no limit.",
	}, {
		key: "prepared_statements.max", value: number(&c.PreparedStatements.Max, 1, 100_000), alias: "max_prepared_statements",
		doc: "How many prepared statements each server connection holds. The least recently used ones make room and are prepared again " +
			"when a client needs them.",
	}, {
		key: "prepared_statements.max_per_client", value: number(&c.PreparedStatements.MaxPerClient, 1, maxClients),
		doc: "How many prepared statements one client may hold.",
	}, {
		key: "session.sentinel_every", value: number(&c.Session.SentinelEvery, 0, 1_000_000_000),
		doc: "Every so many releases the server that is released is asked, off the client's path, whether it holds anything of its client. " +
			"What should never happen closes it, is logged, and counts in pgsidecar_state_leaks_total. 0 asks never, 1 always.",
	}, {
		key: "session.learn_every", value: duration(&c.Session.LearnEvery, 0, maxTimeout),
		doc: "How long what has been learned of a database is believed: which functions change the session that runs them, and what runs those " +
			"unseen (triggers, defaults, views, operators and the like). Statements that name any of it are followed by the question what the session " +
			"holds. What clients of this proxy change is noticed at once, what others do after this time. 0 learns nothing.",
	}, {
		key: "session.on_unsupported", value: onUnsupported(&c.Session.OnUnsupported),
		doc: "What becomes, in pool mode transaction, of statements whose effect only one server connection can keep (temporary tables, session " +
			"advisory locks, WITH HOLD and others): pin, the client keeps its connection until that is gone; warn, so it does and is told by a WARNING; " +
			"error, such a statement is refused with SQLSTATE 0A000 and not run. What a function does without the text showing it " +
			"is found afterwards, and pins with a WARNING. It counts for clients that log in from then on.",
	}, {
		key: "session.explain", value: boolean(&c.Session.Explain),
		doc: "A dry run: the log and the status tell, once for each statement, what on_unsupported: error would refuse (it is run), and in " +
			"pool mode session, what would pin in pool mode transaction as far as texts show it.",
	}}
}

func (c *Config) clientOptions() []option {
	return []option{{
		key: "client.max_clients", value: number(&c.Client.MaxClients, 1, maxClients), alias: "max_client_conn max_clients",
		doc: "The most clients. One more is refused with SQLSTATE 53300.",
	}, {
		key: "client.max_clients_per_database", value: number(&c.Client.MaxClientsPerDatabase, 0, maxClients), alias: "max_db_client_connections",
		doc: "The most clients of one database. 0 sets no limit of its own.",
	}, {
		key: "client.max_clients_per_user", value: number(&c.Client.MaxClientsPerUser, 0, maxClients), alias: "max_user_client_connections",
		doc: "The most clients of one user. 0 sets no limit of its own.",
	}, {
		key: "client.login_timeout", value: duration(&c.Client.LoginTimeout, time.Second, maxTimeout), alias: "client_login_timeout",
		doc: "How long a client may take to log in.",
	}, {
		key: "client.idle_timeout", value: duration(&c.Client.IdleTimeout, 0, maxLifetime), alias: "client_idle_timeout",
		doc: "How long a client may be idle between transactions before it is disconnected. 0 sets no limit.",
	}, {
		key: "client.write_timeout", value: duration(&c.Client.WriteTimeout, time.Second, maxTimeout), alias: "client_write_timeout",
		doc: "How long a client may leave its results unread, which holds up its server, before it is disconnected.",
	}, {
		key: "query_timeout", value: duration(&c.Timeouts.Query, 0, maxTimeout),
		doc: "How long one query may run before its connection is cancelled and closed. 0 sets no limit.",
	}, {
		key: "transaction_timeout", value: duration(&c.Timeouts.Transaction, 0, maxTimeout),
		doc: "How long a transaction may last before its client is disconnected. 0 sets no limit.",
	}, {
		key: "idle_transaction_timeout", value: duration(&c.Timeouts.IdleTransaction, 0, maxTimeout),
		alias: "idle_in_transaction_session_timeout",
		doc:   "How long a client may be idle within a transaction before it is disconnected. 0 sets no limit.",
	}}
}

func (c *Config) accessOptions() []option {
	return []option{{
		key: "client_auth.method", value: choice(&c.ClientAuth.Method, AuthTrust, AuthPassword, AuthMD5, AuthSCRAM), alias: "auth_type",
		doc: "How clients prove who they are. trust asks for nothing and is only taken on loopback and unix sockets.",
	}, {
		key: "client_auth.users_file", value: path(&c.ClientAuth.UsersFile), alias: "auth_file",
		doc: "A file with users and their secrets in the form of PgBouncer's userlist.txt: \"name\" \"secret\" on each line, the secret in " +
			"plain text, as md5 or as SCRAM-SHA-256.",
	}, {
		key: "client_auth.unknown_users", value: choice(&c.ClientAuth.UnknownUsers, UnknownReject, UnknownAsIs, UnknownUpstream),
		doc: "What happens to users that are neither in the URL nor in the users file: reject; as-is, the server is asked under the client's " +
			"own name (for servers that trust the proxy); upstream, everyone becomes the URL's user.",
	}, {
		key: "client_auth.force_trust", value: boolean(&c.ClientAuth.ForceTrust),
		doc: "Take trust on addresses that others can reach, too. Whoever reaches the port is then in the database.",
	}, {
		key:   "client_tls.mode",
		value: choice(&c.ClientTLS.Mode, TLSDisable, TLSAllow, TLSRequire, TLSVerifyCA, TLSVerifyFull), alias: "client_tls_sslmode",
		doc: "Encryption towards clients: not offered, offered, required, or required with a certificate of the client's (verify-ca; " +
			"with verify-full its common name must be the user). Unix sockets are never encrypted.",
	}, {
		key: "client_tls.cert_file", value: path(&c.ClientTLS.CertFile), alias: "client_tls_cert_file",
		doc: "The certificate shown to clients, PEM. Read again at a reload.",
	}, {
		key: "client_tls.key_file", value: path(&c.ClientTLS.KeyFile), alias: "client_tls_key_file",
		doc: "Its private key, PEM.",
	}, {
		key: "client_tls.ca_file", value: path(&c.ClientTLS.CAFile), alias: "client_tls_ca_file",
		doc: "The authorities that clients' certificates are checked against, PEM.",
	}, {
		key: "client_tls.min_version", value: choice(&c.ClientTLS.MinVersion, TLS12, TLS13), alias: "client_tls_protocols",
		doc: "The oldest TLS version that is accepted.",
	}, {
		key: "databases", value: entries[Database]{&c.Databases, (*Database).options, "app: {dbname: app_production}"},
		doc: "Names that clients may ask for, and what is meant by them. Any other name is passed on as it is.",
	}, {
		key: "users", value: entries[User]{&c.Users, (*User).options, "reports: {max_clients: 2, pool_mode: session}"},
		doc: "Settings of single users, which come before those of the database and of the pool.",
	}}
}

// options returns the table of the keys below databases.NAME.
func (d *Database) options() []option {
	return []option{
		{key: "dbname", value: text(&d.DBName, "the name of a database"), doc: "The database at the server; the alias's own name without it."},
		{key: "user", value: text(&d.User, "the name of a user"), alias: "auth_user", doc: "The user at the server, whoever the client is."},
		{key: "pool_mode", value: poolMode(&d.PoolMode), doc: "In place of pool.mode."},
		{key: "route", value: route(&d.Route), doc: "In place of the route of the address that the client comes to, see listen."},
		{
			key: "max_clients", value: number(&d.MaxClients, 0, maxClients), alias: "max_db_client_connections",
			doc: "In place of client.max_clients_per_database.",
		},
		{
			key: "max_connections", value: number(&d.MaxConnections, 0, maxServers), alias: "max_db_connections",
			doc: "In place of pool.max_connections_per_database; of several names for one database, the lowest.",
		},
		{key: "on_unsupported", value: onUnsupported(&d.OnUnsupported), doc: "In place of session.on_unsupported."},
	}
}

// options returns the table of the keys below users.NAME.
func (u *User) options() []option {
	return []option{
		{key: "pool_mode", value: poolMode(&u.PoolMode), doc: "In place of pool.mode."},
		{
			key: "max_clients", value: number(&u.MaxClients, 0, maxClients), alias: "max_user_client_connections",
			doc: "In place of client.max_clients_per_user.",
		},
		{
			key: "max_connections", value: number(&u.MaxConnections, 0, maxServers), alias: "max_user_connections",
			doc: "In place of pool.max_connections_per_user, for the user of that name at the server.",
		},
	}
}

func (c *Config) processOptions() []option {
	return []option{{
		key: "admin.users", value: textList{to: &c.Admin.Users, one: "a user", several: "users", check: checkUser}, alias: "admin_users stats_users",
		doc: "Who may use the SQL console, which is the database pgsidecar, or pgbouncer, of the listener. They log in as all clients do. What changes " +
			"something (PAUSE, RESUME, RECONNECT, RELOAD, SHUTDOWN) they may on loopback and unix sockets only. An empty list is the user of upstream.url.",
	}, {
		key: "takeover.socket", value: path(&c.Takeover.Socket), restart: true,
		doc: "A unix socket at which a successor of this process asks for its clients: pgsidecar run --takeover. Only processes of the same user " +
			"are heard. Keep it in a directory that nobody else may write to. Without it there is no handover.",
	}, {
		key: "drain.timeout", value: duration(&c.Drain.Timeout, 0, maxTimeout), alias: "shutdown_timeout",
		doc: "How long transactions may go on once new clients are refused, before they are cut.",
	}, {
		key: "drain.pod_grace", value: duration(&c.Drain.PodGrace, 0, maxTimeout),
		doc: "The pod's terminationGracePeriodSeconds, which a container cannot find out: all that the proxy does after SIGTERM has to fit into it. " +
			"lifecycle: classic needs it; with native it is only checked against drain.timeout. 0 is not known.",
	}, {
		key: "drain.min_linger", value: duration(&c.Drain.MinLinger, 0, maxTimeout),
		doc: "With lifecycle: classic, how long new clients are welcome after SIGTERM in any case.",
	}, {
		key: "drain.quiet_period", value: duration(&c.Drain.QuietPeriod, 0, maxTimeout),
		doc: "With lifecycle: classic, how long there must have been no client before new ones are refused; at the latest it is done when " +
			"drain.pod_grace leaves just enough for drain.timeout and three seconds to close.",
	}, {
		key: "lifecycle", value: choice(&c.Lifecycle, LifecycleNative, LifecycleClassic), restart: true,
		doc: "How the proxy's end lies to that of the application. native: SIGTERM comes when the application has ended (a Kubernetes " +
			"native sidecar, a service of its own), so that it drains at once. classic: SIGTERM comes to both at once (an ordinary container of " +
			"the pod), so that new clients are still welcome for a while.",
	}, {
		key: "log.level", value: choice(&c.Log.Level, LogDebug, LogInfo, LogWarn, LogError),
		doc: "The least severe lines that are logged.",
	}, {
		key: "log.format", value: choice(&c.Log.Format, LogText, LogJSON), restart: true,
		doc: "The form of log lines, which go to standard error.",
	}, {
		key: "log.connections", value: boolean(&c.Log.Connections), alias: "log_connections log_disconnections",
		doc: "Log each client that logs in or leaves.",
	}, {
		key: "loops", value: number(&c.Loops, 1, 64), restart: true,
		doc: "How many event loops carry the clients. One is right up to a full core.",
	}}
}

func checkUser(name string) *problem {
	if name == "" {
		return &problem{"is empty", "write the name of a user"}
	}
	return nil
}

func poolMode(to *PoolMode) value { return choice(to, PoolTransaction, PoolSession, PoolStatement) }

func onUnsupported(to *OnUnsupported) value {
	return choice(to, UnsupportedPin, UnsupportedError, UnsupportedWarn)
}

// variableOf returns the name of the environment variable that sets the key.
func variableOf(key string) string {
	return variablePrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}
