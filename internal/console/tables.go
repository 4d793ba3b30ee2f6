package console

import (
	"cmp"
	"context"
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"pgsidecar/proxy/stats"
)

// table is what one SHOW shows. Columns have PgBouncer's names where it has the same thing, and there are none for what does not
// exist here.
type table struct {
	name    string
	columns []column
	rows    func(ctx context.Context, c *Console) ([][]any, error)
}

// column is text, or a whole number if its values are int64.
type column struct {
	name   string
	number bool
}

// The object identifiers of the types that there are.
const (
	oidText = 25
	oidInt8 = 20
)

func (c column) field() pgproto3.FieldDescription {
	f := pgproto3.FieldDescription{Name: []byte(c.name), DataTypeOID: oidText, DataTypeSize: -1, TypeModifier: -1}
	if c.number {
		f.DataTypeOID, f.DataTypeSize = oidInt8, 8
	}
	return f
}

// encode returns a value as it is sent; nil is NULL.
func encode(value any, format int16) []byte {
	switch v := value.(type) {
	case int64:
		if format == 1 {
			return binary.BigEndian.AppendUint64(nil, uint64(v))
		}
		return strconv.AppendInt(nil, v, 10)
	case string:
		return []byte(v)
	}
	return nil
}

func texts(names ...string) []column { return columnsOf(false, names) }

func numbers(names ...string) []column { return columnsOf(true, names) }

func columnsOf(number bool, names []string) []column {
	all := make([]column, len(names))
	for i, name := range names {
		all[i] = column{name: name, number: number}
	}
	return all
}

// tables returns what can be shown, in the order of SHOW HELP.
func tables() []table {
	return []table{
		{"POOLS", slices.Concat(texts("database", "user"), numbers("cl_active", "cl_waiting", "sv_active", "sv_idle", "sv_login", "sv_closing",
			"maxwait", "maxwait_us"), texts("pool_mode")), showPools},
		{"CLIENTS", slices.Concat(texts("type", "user", "database", "state", "addr", "port"), numbers("wait", "wait_us"),
			texts("application_name"), numbers("prepared_statements"), texts("pool_mode", "server_database", "server_user")), showClients},
		{"DATABASES", slices.Concat(texts("name"), numbers("pool_size", "current_connections", "current_client_connections", "paused", "disabled")), showDatabases},
		{"STATS", slices.Concat(texts("database"), numbers("total_xact_count")), showStats},
		{"STATS_TOTALS", slices.Concat(texts("database"), numbers("xact_count")), showStats},
		{"TOTALS", slices.Concat(texts("name"), numbers("value")), showTotals},
		{"LISTS", slices.Concat(texts("list"), numbers("items")), showLists},
		{"CONFIG", texts("key", "value", "default", "changeable"), showConfig},
		{"STATE", texts("key", "value"), showState},
		{"TOPOLOGY", slices.Concat(texts("name", "address", "role", "health", "primary"), numbers("timeline"), texts("lsn"),
			numbers("lag_bytes", "lag_us"), texts("refusal")), showTopology},
		{"PINS", slices.Concat(texts("addr", "application_name", "database", "user", "kind", "reason", "statement"), numbers("seconds")), showPins},
		{"VERSION", texts("version"), showVersion},
		{"HELP", texts("command"), showHelp},
	}
}

func findTable(name string) *table {
	for _, t := range tables() {
		if t.name == name {
			return &t
		}
	}
	return nil
}

// poolName is a pair of database and user at the server.
type poolName struct{ database, user string }

func showPools(ctx context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	clients, err := c.config.Source.Clients(ctx)
	if err != nil {
		return nil, err
	}
	active, modes := make(map[poolName]int64), make(map[poolName]string)
	for _, client := range clients {
		name := poolName{client.ServerDatabase, client.ServerUser}
		if client.State != stats.ClientWaiting {
			active[name]++
		}
		modes[name] = client.Mode
	}
	for _, p := range s.Pools {
		name := poolName{p.Database, p.User}
		rows = append(rows, []any{
			p.Database, p.User, active[name], int64(p.Waiting), int64(p.Active), int64(p.Idle), int64(p.Dialing), int64(p.Closing),
			int64(p.OldestWait / time.Second), int64(p.OldestWait % time.Second / time.Microsecond), modes[name],
		})
	}
	return rows, nil
}

func showClients(ctx context.Context, c *Console) (rows [][]any, err error) {
	clients, err := c.config.Source.Clients(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range clients {
		host, port, err := net.SplitHostPort(o.Address)
		if err != nil { // A unix socket.
			host, port = "unix", ""
		}
		rows = append(rows, []any{
			"C", o.User, o.Database, o.State.String(), host, port, int64(o.Waited / time.Second), int64(o.Waited % time.Second / time.Microsecond),
			o.Application, int64(o.Prepared), o.Mode, o.ServerDatabase, o.ServerUser,
		})
	}
	return rows, nil
}

// byDatabase adds up what pools count.
func byDatabase(s *stats.Snapshot, count func(p *stats.PoolSnapshot) int64) (names []string, sums map[string]int64) {
	sums = make(map[string]int64)
	for i := range s.Pools {
		p := &s.Pools[i]
		if _, ok := sums[p.Database]; !ok {
			names = append(names, p.Database)
		}
		sums[p.Database] += count(p)
	}
	slices.Sort(names)
	return names, sums
}

func showDatabases(ctx context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	clients, err := c.config.Source.Clients(ctx)
	if err != nil {
		return nil, err
	}
	used := make(map[string]int64)
	for _, o := range clients {
		used[o.ServerDatabase]++
	}
	paused := int64(0)
	if s.Held != "" {
		paused = 1
	}
	names, servers := byDatabase(&s, func(p *stats.PoolSnapshot) int64 { return int64(p.Idle + p.Active + p.Dialing + p.Closing) })
	for _, name := range names {
		rows = append(rows, []any{name, int64(s.Limit), servers[name], used[name], paused, int64(0)})
	}
	return rows, nil
}

func showStats(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	names, transactions := byDatabase(&s, func(p *stats.PoolSnapshot) int64 { return int64(p.Transactions) })
	for _, name := range names {
		rows = append(rows, []any{name, transactions[name]})
	}
	return rows, nil
}

func showTotals(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	_, transactions := byDatabase(&s, func(p *stats.PoolSnapshot) int64 { return int64(p.Transactions) })
	all := int64(0)
	for _, n := range transactions {
		all += n
	}
	t := &s.Totals
	return [][]any{
		{"total_xact_count", all},
		{"total_query_count", int64(t.StatementsSimple + t.StatementsExtended)},
		{"total_received", int64(t.BytesFromClients)},
		{"total_sent", int64(t.BytesToClients)},
		{"total_xact_time", t.Transaction.Sum.Microseconds()},
		{"total_wait_time", t.Wait.Sum.Microseconds()},
	}, nil
}

func showLists(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	databases, users := make([]string, 0, len(s.Pools)), make([]string, 0, len(s.Pools))
	free, used := 0, 0
	for i := range s.Pools {
		p := &s.Pools[i]
		databases, users = append(databases, p.Database), append(users, p.User)
		free += p.Idle
		used += p.Active
	}
	count := func(names []string) int64 {
		slices.Sort(names)
		return int64(len(slices.Compact(names)))
	}
	return [][]any{
		{"databases", count(databases)},
		{"users", count(users)},
		{"pools", int64(len(s.Pools))},
		{"used_clients", int64(s.Clients.All())},
		{"free_servers", int64(free)},
		{"used_servers", int64(used)},
	}, nil
}

func showConfig(_ context.Context, c *Console) (rows [][]any, err error) {
	for _, s := range c.config.Settings() {
		changeable := "no"
		if s.Changeable {
			changeable = "yes"
		}
		rows = append(rows, []any{s.Key, s.Value, s.Default, changeable})
	}
	return rows, nil
}

func showState(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	return [][]any{{"phase", s.Phase.String()}, {"active", yes(s.Held == "")}, {"paused", yes(s.Held != "")}, {"held_because", s.Held}}, nil
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

func showTopology(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	for _, o := range s.Topology.Targets {
		rows = append(rows, []any{
			o.Name, o.Address, o.Role, o.Health, yes(o.Accepted), int64(o.Timeline), o.LSN, int64(o.LagBytes), o.LagTime.Microseconds(), o.Refusal,
		})
	}
	return rows, nil
}

func showPins(_ context.Context, c *Console) (rows [][]any, err error) {
	s := c.config.Source.Snapshot()
	for _, p := range s.PinnedClients {
		rows = append(rows, []any{
			p.Client, p.Application, p.Database, p.User, p.Kind, p.Reason, p.Statement, int64(time.Since(p.Since) / time.Second),
		})
	}
	return rows, nil
}

func showVersion(_ context.Context, c *Console) ([][]any, error) {
	return [][]any{{"pgsidecar " + cmp.Or(c.config.Version, "unknown")}}, nil
}

func showHelp(context.Context, *Console) (rows [][]any, err error) {
	for _, t := range tables() {
		rows = append(rows, []any{"SHOW " + t.name})
	}
	for _, word := range []string{"PAUSE", "RESUME", string(Reconnect), string(Reload), string(Drain)} {
		rows = append(rows, []any{word})
	}
	return rows, nil
}
