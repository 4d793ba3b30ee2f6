package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
)

// nameServer is a DNS server that knows SRV records of one name, whose hosts are all on loopback.
type nameServer struct {
	conn  net.PacketConn
	ended chan struct{}

	mu    sync.Mutex
	ports map[string]uint16 // by host
}

func startNameServer(t *testing.T) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &nameServer{conn: conn, ended: make(chan struct{}), ports: make(map[string]uint16)}
	go s.serve()
	t.Cleanup(func() { _ = conn.Close(); <-s.ended })
	return s
}

func (s *nameServer) set(host string, c *pgtest.Cluster) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports[host] = uint16(c.Port())
}

func (s *nameServer) serve() {
	defer close(s.ended)
	query := make([]byte, 512)
	for {
		n, from, err := s.conn.ReadFrom(query)
		if err != nil {
			return
		}
		if n > 16 {
			_, _ = s.conn.WriteTo(s.answer(query[:n]), from)
		}
	}
}

// answer makes the reply to one question, which begins behind the header of 12 bytes.
func (s *nameServer) answer(query []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	end, name := 12, ""
	for query[end] != 0 {
		name += string(query[end+1:end+1+int(query[end])]) + "."
		end += 1 + int(query[end])
	}
	kind := binary.BigEndian.Uint16(query[end+1:])
	reply := append([]byte{}, query[:end+5]...)
	copy(reply[2:12], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	record := func(data []byte) {
		reply[7]++
		reply = append(reply, 0xc0, 12)
		reply = binary.BigEndian.AppendUint16(reply, kind)
		reply = append(reply, 0, 1, 0, 0, 0, 1)
		reply = binary.BigEndian.AppendUint16(reply, uint16(len(data)))
		reply = append(reply, data...)
	}
	host, _ := strings.CutSuffix(name, ".db.test.")
	switch {
	case kind == 33 && name == "_pg._tcp.db.test.":
		for host, port := range s.ports {
			data := binary.BigEndian.AppendUint16([]byte{0, 0, 0, 0}, port)
			for _, label := range []string{host, "db", "test"} {
				data = append(append(data, byte(len(label))), label...)
			}
			record(append(data, 0))
		}
	case kind == 1 && s.ports[host] != 0:
		record([]byte{127, 0, 0, 1})
	}
	return reply
}

// reload has the configuration read again, and waits until the status says something.
func (f *followed) reload(content, says string) {
	f.t.Helper()
	f.write(content)
	f.signals <- syscall.SIGHUP
	awaitThat(f.t, says, func() bool { _, out := f.ask("status"); return strings.Contains(out, says) })
}

func TestDiscovery_srvRecords_areFollowed(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table ledger (id int primary key)")
	names := startNameServer(t)
	names.set("one", primary)
	content := "failover: {hold: 1m}\ndiscovery: {srv: _pg._tcp.db.test, dns_server: " + names.conn.LocalAddr().String() + "}"
	f := follow(t, content, pgtest.Shared(t, 0)) // Which is not used.
	l := &ledger{errors: make(map[string]int)}
	stop := f.writers(l, 4)
	names.set("two", standby)
	f.reload(content, "standby")
	code, out := f.switchover(append([]string{"--promote"}, patient...)...)
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, fmt.Sprintf("two.db.test/%s has taken over from one.db.test/%s", standby.Addr(), primary.Addr()))
	stop()
	require.Empty(t, l.errors)
	require.Empty(t, missing(t, standby, l.acked))
}

func TestReload_serversChange_nobodyNotices(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table ledger (id int primary key)")
	const hold = "failover: {hold: 1m}\n"
	f := follow(t, hold, primary)
	l := &ledger{errors: make(map[string]int)}
	stop := f.writers(l, 4)
	hosts := func(all ...string) string { return hold + "upstream: {hosts: [" + strings.Join(all, ", ") + "]}" }
	other := "localhost:" + strings.TrimPrefix(primary.Addr(), "127.0.0.1:")
	for range 3 {
		f.reload(hosts(primary.Addr(), standby.Addr()), "standby")
		f.reload(hosts(standby.Addr(), primary.Addr()), "standby")
		f.reload(hosts(other, standby.Addr()), other)
		f.reload(hold, primary.Addr())
	}
	stop()
	require.Empty(t, l.errors)
	require.Empty(t, missing(t, primary, l.acked))
	f.reload(hosts(primary.Addr(), other), other+" is another name of "+primary.Addr())
}

// patroni is the REST API of one member that speaks for all, and does switchovers as it is told.
type patroni struct {
	*httptest.Server

	mu       sync.Mutex
	members  []*pgtest.Cluster
	leader   int
	answers  bool
	switchTo func(leader, candidate int)
}

func startPatroni(t *testing.T, members ...*pgtest.Cluster) *patroni {
	t.Helper()
	p := &patroni{members: members, answers: true}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *patroni) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// ServeHTTP implements http.Handler.
func (p *patroni) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.answers:
		w.WriteHeader(http.StatusServiceUnavailable)
	case r.URL.Path == "/cluster":
		var all []string
		for i, c := range p.members {
			role := "replica"
			if i == p.leader {
				role = "leader"
			}
			all = append(all, fmt.Sprintf(`{"name":"pg%d","role":%q,"host":%q,"port":%d,"api_url":"%s/patroni"}`, i, role, c.Host(), c.Port(), p.URL))
		}
		_, _ = io.WriteString(w, `{"members":[`+strings.Join(all, ",")+`]}`)
	case r.URL.Path == "/switchover" && r.Method == http.MethodPost:
		var asked struct{ Leader, Candidate string }
		_ = json.NewDecoder(r.Body).Decode(&asked)
		if asked.Leader != "pg0" || asked.Candidate != "pg1" || p.switchTo == nil {
			http.Error(w, "candidate name does not match", http.StatusPreconditionFailed)
			return
		}
		p.switchTo(0, 1)
		p.leader = 1
	}
}

func TestDiscovery_patroni_isAskedAndNotTrustedBlindly(t *testing.T) {
	primary := pgtest.Start(t, pgtest.Config{})
	standby := primary.Standby(t, nil)
	primary.Exec(t, "create table ledger (id int primary key)")
	p := startPatroni(t, primary, standby)
	p.set(func() { p.answers = false })
	content := "failover: {hold: 1m}\ndiscovery: {patroni: [" + strings.TrimPrefix(p.URL, "http://") + "]}"
	f := follow(t, content, primary)
	l := &ledger{errors: make(map[string]int)}
	stop := f.writers(l, 4) // It is down, and the server in the URL is well.

	p.set(func() { p.answers = true })
	f.reload(content, "standby")
	p.set(func() { p.leader = 1 }) // It lies.
	f.reload(content, "standby")
	before := len(l.snapshot())
	awaitThat(t, "everybody goes on", func() bool { return len(l.snapshot()) > before+100 })
	p.set(func() { p.leader = 0 })

	code, out := f.switchover("--promote")
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "who leads is decided by the cluster")
	code, out = f.switchover(patient...)
	require.Equal(t, exitFailure, code, "it refuses")
	require.Contains(t, out, "412 Precondition Failed: candidate name does not match: nothing was changed")
	p.set(func() {
		p.switchTo = func(leader, candidate int) {
			p.members[leader].Stop(t, pgcluster.Fast)
			p.members[candidate].Promote(t)
		}
	})
	code, out = f.switchover(patient...)
	require.Equal(t, exitOK, code, out)
	stop()
	require.Empty(t, l.errors)
	require.Empty(t, missing(t, standby, l.acked))
}

func TestDiscovery_faults_areToldAtOnce(t *testing.T) {
	file := t.TempDir() + "/c.yaml"
	require.NoError(t, os.WriteFile(file, []byte(`discovery:
  dns: [db.example:x]
  srv: [db.example]
  patroni: ["ftp://pg", "http://u:p@pg:8008"]
  patroni_user: u
  members: true
  standby_service: db-ro
  dns_server: "127.0.0.1"
`), 0o600))
	code, out := call([]string{"check", "--config", file}, []string{"DATABASE_URL=postgres://app@db/app?target_session_attrs=any"})
	require.Equal(t, exitUsage, code)
	for _, part := range []string{
		"discovery.dns[0]", "discovery.srv[0]", "discovery.patroni[0]", "discovery.patroni[1]", "discovery.patroni_user: has no password",
		"discovery.standby_service: does not show the primary", "discovery.dns_server", "asks for target_session_attrs=any",
	} {
		require.Contains(t, out, part)
	}
	require.NotContains(t, out, "u:p@")
}
