package console_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/internal/console"
	"pgsidecar/proxy/stats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// process is all that a console needs, and notes what it was asked for.
type process struct {
	asked  []string
	paused bool
}

func (p *process) Snapshot() stats.Snapshot {
	return stats.Snapshot{
		Limit: 20, Held: "it is paused",
		Pools: []stats.PoolSnapshot{{Database: "app", User: "u", Idle: 1, Active: 2, Waiting: 1, OldestWait: 2500 * time.Millisecond, Transactions: 7}},
	}
}

func (p *process) Clients(context.Context) ([]stats.Client, error) {
	c := stats.Client{Address: "127.0.0.1:5", Database: "alias", User: "u", ServerDatabase: "app", ServerUser: "u", Mode: "transaction"}
	waits := c
	waits.State, waits.Waited = stats.ClientWaiting, 1500*time.Millisecond
	return []stats.Client{c, waits}, nil
}

func (p *process) Pause(context.Context) error {
	p.paused = true
	return nil
}

func (p *process) Resume() bool {
	was := p.paused
	p.paused = false
	return was
}

func (p *process) Do(_ context.Context, word console.Word) error {
	p.asked = append(p.asked, string(word))
	return nil
}

// consult connects to a console over a network, and reads its greeting.
func consult(t *testing.T, p *process, network string) *pgproto3.Frontend {
	t.Helper()
	c := console.New(console.Config{
		Version: "1", Source: p, Control: p, Users: func() []string { return []string{"admin"} },
		Settings: func() []console.Setting { return []console.Setting{{Key: "loops", Value: "2", Default: "1"}} },
	}, slog.New(slog.DiscardHandler))
	client, server := net.Pipe()
	if network == "unix" {
		client, server = unixPair(t)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); c.Serve(context.Background(), server, "admin") }()
	t.Cleanup(func() { _ = client.Close(); <-ended })
	f := pgproto3.NewFrontend(client, client)
	until(t, f)
	return f
}

func unixPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	defer l.Close()
	client, err = net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	server, err = l.Accept()
	require.NoError(t, err)
	return client, server
}

// until reads up to ReadyForQuery: the rows as texts, the tags, and the SQLSTATEs.
func until(t *testing.T, f *pgproto3.Frontend) (rows [][]string, tags, codes []string) {
	t.Helper()
	for {
		message, err := f.Receive()
		require.NoError(t, err)
		switch m := message.(type) {
		case *pgproto3.DataRow:
			row := make([]string, len(m.Values))
			for i, v := range m.Values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		case *pgproto3.CommandComplete:
			tags = append(tags, string(m.CommandTag))
		case *pgproto3.ErrorResponse:
			codes = append(codes, m.Code)
		case *pgproto3.ReadyForQuery:
			return rows, tags, codes
		}
	}
}

func query(t *testing.T, f *pgproto3.Frontend, text string) (rows [][]string, tags, codes []string) {
	t.Helper()
	f.SendQuery(&pgproto3.Query{String: text})
	require.NoError(t, f.Flush())
	return until(t, f)
}

func TestConsole_show_hasWhatThereIs(t *testing.T) {
	f := consult(t, &process{}, "pipe")
	for text, want := range map[string][]string{
		"show pools":                {"app", "u", "1", "1", "2", "1", "0", "0", "2", "500000", "transaction"},
		" SHOW  clients ;":          {"C", "u", "alias", "idle", "127.0.0.1", "5", "0", "0", "", "0", "transaction", "app", "u"},
		"SHOW DATABASES":            {"app", "20", "3", "2", "1", "0"},
		"SHOW STATS_TOTALS":         {"app", "7"},
		"SHOW VERSION":              {"pgsidecar 1"},
		"SHOW CONFIG;":              {"loops", "2", "1", "no"},
		"SHOW LISTS":                {"databases", "1"},
		";; SHOW TOTALS; SHOW HELP": {"total_xact_count", "7"},
	} {
		rows, tags, codes := query(t, f, text)
		require.Empty(t, codes, text)
		require.Equal(t, want, rows[0], text)
		require.Equal(t, "SHOW", tags[0])
	}
	rows, tags, _ := query(t, f, " ; ")
	require.Empty(t, rows)
	require.Empty(t, tags)
}

func TestConsole_unknown_isAnErrorAndTheNextOneWorks(t *testing.T) {
	f := consult(t, &process{}, "pipe")
	for _, text := range []string{"select 1", "SHOW FDS", "SHOW", "KILL app", "PAUSE app", "SHOW VERSION; nonsense; SHOW VERSION"} {
		_, _, codes := query(t, f, text)
		require.Equal(t, []string{"42601"}, codes, text)
	}
	rows, _, _ := query(t, f, "SHOW VERSION")
	require.Len(t, rows, 1)
}

func TestConsole_changes_onThisMachineOnly(t *testing.T) {
	var p process
	f := consult(t, &p, "unix")
	for _, word := range []string{"PAUSE", "RESUME", "RELOAD", "RECONNECT", "SHUTDOWN"} {
		_, tags, codes := query(t, f, word)
		require.Empty(t, codes, word)
		require.Equal(t, []string{word}, tags)
	}
	_, _, codes := query(t, f, "resume")
	require.Equal(t, []string{"55000"}, codes, "nobody has paused it")
	require.Equal(t, []string{"RELOAD", "RECONNECT", "SHUTDOWN"}, p.asked)

	var other process
	f = consult(t, &other, "pipe") // Which is not known to be of this machine.
	for _, word := range []string{"PAUSE", "RESUME", "RELOAD", "RECONNECT", "SHUTDOWN", "SHUTDOWN WAIT_FOR_SERVERS"} {
		_, _, codes := query(t, f, word)
		require.Equal(t, []string{"42501"}, codes, word)
	}
	require.Empty(t, other.asked)
	require.False(t, other.paused)
}

func TestConsole_extendedProtocol_skipsToTheSyncAfterAnError(t *testing.T) {
	f := consult(t, &process{}, "unix")
	send := func(messages ...pgproto3.FrontendMessage) (rows [][]string, tags, codes []string) {
		for _, m := range messages {
			f.Send(m)
		}
		f.SendSync(&pgproto3.Sync{})
		require.NoError(t, f.Flush())
		return until(t, f)
	}
	rows, tags, codes := send(
		&pgproto3.Parse{Name: "s", Query: "SHOW LISTS;"}, &pgproto3.Describe{ObjectType: 'S', Name: "s"},
		&pgproto3.Bind{PreparedStatement: "s", ResultFormatCodes: []int16{1}}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{},
	)
	require.Empty(t, codes)
	require.Equal(t, []string{"SHOW"}, tags)
	require.Equal(t, []string{"databases", "\x00\x00\x00\x00\x00\x00\x00\x01"}, rows[0], "binary, as asked for")
	_, tags, codes = send(&pgproto3.Bind{PreparedStatement: "missing"}, &pgproto3.Parse{Query: "SHOW LISTS"}, &pgproto3.Execute{})
	require.Equal(t, []string{"26000"}, codes)
	require.Empty(t, tags)
	_, tags, codes = send(&pgproto3.Parse{}, &pgproto3.Bind{}, &pgproto3.Describe{ObjectType: 'P'}, &pgproto3.Execute{}, &pgproto3.Close{ObjectType: 'S', Name: "s"})
	require.Empty(t, codes)
	require.Empty(t, tags, "an empty statement")
	_, _, codes = send(&pgproto3.Bind{PreparedStatement: "s"})
	require.Equal(t, []string{"26000"}, codes, "it was closed")
}

func TestConsole_userThatIsNotNamed_isRefused(t *testing.T) {
	c := console.New(console.Config{Users: func() []string { return []string{"admin"} }}, slog.New(slog.DiscardHandler))
	client, server := net.Pipe()
	go c.Serve(context.Background(), server, "app")
	f := pgproto3.NewFrontend(client, client)
	message, err := f.Receive()
	require.NoError(t, err)
	require.Equal(t, "28000", message.(*pgproto3.ErrorResponse).Code)
	_, err = f.Receive()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NoError(t, client.Close())
}
