package discover

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// node is Patroni's REST API on one member.
type node struct {
	*httptest.Server

	mu       sync.Mutex
	answer   string // to GET /cluster; "" is status 503
	lock     bool   // GET /primary answers 200
	hangs    bool
	password string // it saw, or ""
}

func newNode(t *testing.T, start func(http.Handler) *httptest.Server) *node {
	t.Helper()
	n := &node{}
	n.Server = start(n)
	t.Cleanup(func() {
		n.CloseClientConnections()
		n.Close()
	})
	return n
}

func (n *node) set(change func(n *node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change(n)
}

func (n *node) says(answer string, lock bool) {
	n.set(func(n *node) { n.answer, n.lock = answer, lock })
}

// ServeHTTP implements http.Handler.
func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	answer, lock, hangs := n.answer, n.lock, n.hangs
	if _, password, ok := r.BasicAuth(); ok {
		n.password = password
	}
	n.mu.Unlock()
	switch {
	case hangs:
		<-r.Context().Done()
	case r.URL.Path == "/cluster" && answer != "":
		_, _ = io.WriteString(w, answer)
	case r.URL.Path == "/primary" && lock:
		_, _ = io.WriteString(w, "{}")
	default:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// clusterOf is Patroni's answer for members a, b and so on, at ports 1, 2 ...; leader is one of them, or "".
func clusterOf(leader string, timeline int, nodes ...*node) string {
	var members []string
	for i, n := range nodes {
		name, role, state := string(rune('a'+i)), "replica", "streaming"
		if name == leader {
			role, state = "leader", "running"
		}
		members = append(members, fmt.Sprintf(`{"name":%q,"role":%q,"state":%q,"api_url":"%s/patroni","host":"10.0.0.%d","port":5432,"timeline":%d,"lag":"unknown"}`,
			name, role, state, n.URL, i+1, timeline))
	}
	members = append(members, `{"name":"new","role":"uninitialized","state":"creating replica"}`)
	return `{"members":[` + strings.Join(members, ",") + `],"scope":"main","pause":false}`
}

// three are three members, of which a leads, and the source that asks them.
func three(t *testing.T) (a, b, c *node, published <-chan Snapshot) {
	a, b, c = newNode(t, httptest.NewServer), newNode(t, httptest.NewServer), newNode(t, httptest.NewServer)
	for _, n := range []*node{a, b, c} {
		n.says(clusterOf("a", 1, a, b, c), n == a)
	}
	p, err := NewPatroni(PatroniConfig{URLs: []string{a.URL, b.URL, c.URL}, Every: time.Millisecond, Timeout: 200 * time.Millisecond, Username: "u", Password: "p"})
	require.NoError(t, err)
	return a, b, c, follow(t, p)
}

func leads(name string) func(Snapshot) bool {
	return func(s Snapshot) bool { return s.Err == nil && s.Authority && s.Leader == name }
}

func doubtful(s Snapshot) bool { return s.Err == nil && !s.Authority }

func TestPatroni_leaderIsConfirmedAndFollowed(t *testing.T) {
	a, b, c, published := three(t)
	s := until(t, published, leads("a"))
	require.Equal(t, []Target{
		{Name: "a", Host: "10.0.0.1", Port: 5432, Role: Primary, Timeline: 1},
		{Name: "b", Host: "10.0.0.2", Port: 5432, Role: Standby, Timeline: 1},
		{Name: "c", Host: "10.0.0.3", Port: 5432, Role: Standby, Timeline: 1},
	}, s.Targets)

	a.CloseClientConnections()
	a.set(func(n *node) { n.hangs = true })
	for _, n := range []*node{b, c} {
		n.says(clusterOf("b", 2, a, b, c), n == b)
	}
	s = until(t, published, leads("b"))
	require.Equal(t, Standby, s.Targets[0].Role)
	require.Equal(t, uint32(2), s.Targets[1].Timeline)
}

func TestPatroni_leaderThatDeniesIsNoLeader(t *testing.T) {
	a, b, c, published := three(t)
	until(t, published, leads("a"))
	a.says(clusterOf("b", 1, a, b, c), true) // It lies: b does not hold the lock.
	s := until(t, published, doubtful)
	require.Empty(t, s.Leader)
	require.Len(t, s.Targets, 3)
}

func TestPatroni_nobodyLeadsOnlyIfAllSaySo(t *testing.T) {
	a, b, c, published := three(t)
	until(t, published, leads("a"))
	a.says(clusterOf("", 1, a, b, c), false)
	until(t, published, doubtful)
	b.says(clusterOf("", 1, a, b, c), false)
	c.says("", false)
	s := until(t, published, leads(""))
	require.Len(t, s.Targets, 3)
}

func TestPatroni_errorsKeepTheMembersAndVetoNobody(t *testing.T) {
	a, b, c, published := three(t)
	until(t, published, leads("a"))
	for _, answer := range []string{
		"", "nonsense", `{"members":[]}`, `{}`, `[]`,
		strings.Replace(clusterOf("a", 1, a, b, c), `"replica"`, `"leader"`, 1), // two leaders
		strings.Replace(clusterOf("a", 1, a, b, c), `"name":"b"`, `"name":"a"`, 1),
		`{"members":[{"name":"x","host":"h","port":70000}]}`,
		strings.Repeat(" ", longestAnswer) + clusterOf("a", 1, a, b, c),
	} {
		for _, n := range []*node{a, b, c} {
			n.says(answer, true)
		}
		s := until(t, published, func(s Snapshot) bool { return s.Err != nil })
		require.Len(t, s.Targets, 3)
		require.False(t, s.Authority)
		require.Empty(t, s.Leader)
		for _, n := range []*node{a, b, c} {
			n.says(clusterOf("a", 1, a, b, c), n == a)
		}
		until(t, published, leads("a"))
	}
	for _, n := range []*node{a, b, c} {
		n.set(func(n *node) { n.hangs = true })
	}
	require.Len(t, until(t, published, func(s Snapshot) bool { return s.Err != nil }).Targets, 3)
}

func TestPatroni_standbyClusterHasNoLeaderForWrites(t *testing.T) {
	a, b, c, published := three(t)
	for _, n := range []*node{a, b, c} {
		n.says(strings.Replace(clusterOf("a", 1, a, b, c), `"role":"leader"`, `"role":"standby_leader"`, 1), false)
	}
	s := until(t, published, leads(""))
	require.Equal(t, Standby, s.Targets[0].Role)
}

func TestPatroni_passwordGoesToConfiguredHostsOnly(t *testing.T) {
	a, other := newNode(t, httptest.NewServer), newNode(t, httptest.NewServer)
	a.says(clusterOf("a", 1, other), true) // The API of the leader is somewhere else.
	other.says("", true)
	p, err := NewPatroni(PatroniConfig{URLs: []string{a.URL}, Username: "u", Password: "secret"})
	require.NoError(t, err)
	until(t, follow(t, p), leads("a"))
	a.set(func(n *node) { require.Equal(t, "secret", n.password) })
	other.set(func(n *node) { require.Empty(t, n.password) })
}

func TestPatroni_speaksTLS(t *testing.T) {
	a := newNode(t, httptest.NewTLSServer)
	a.says(clusterOf("a", 1, a), true)
	p, err := NewPatroni(PatroniConfig{URLs: []string{a.URL}, Timeout: 20 * time.Second})
	require.NoError(t, err)
	require.ErrorContains(t, (<-follow(t, p)).Err, "certificate")

	authorities := x509.NewCertPool()
	authorities.AddCert(a.Certificate())
	p, err = NewPatroni(PatroniConfig{URLs: []string{a.URL}, Timeout: 20 * time.Second, TLS: &tls.Config{RootCAs: authorities}})
	require.NoError(t, err)
	until(t, follow(t, p), leads("a"))
}

func TestNewPatroni_refusesWhatIsNoURL(t *testing.T) {
	for _, urls := range [][]string{nil, {"10.0.0.1:8008"}, {"ftp://h"}, {"http://"}, {"http://h", "\x00"}} {
		_, err := NewPatroni(PatroniConfig{URLs: urls})
		require.Error(t, err, urls)
	}
}
