package discover

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Member is a server of a cluster as another of its servers tells it, by the functions of Aurora and of RDS Multi-AZ clusters.
type Member struct {
	ID     string
	Host   string // "": made of the ID by MembersConfig.Hosts
	Port   uint16 // 0: MembersConfig.Port
	Writer bool
	Self   bool
}

// MembersConfig says how members are reached.
type MembersConfig struct {
	// Hosts has a "?" where the member's ID goes (see InstanceHosts). Members without a host are left out if it is "".
	Hosts string
	Port  uint16 // 5432
}

// readersWait is how long what a reader says of the cluster does not count after a writer has spoken, which knows better.
const readersWait = 30 * time.Second

// Members is a source of servers that the servers themselves have named.
type Members struct {
	config MembersConfig
	list   *List

	mu     sync.Mutex
	writer time.Time // when one last spoke
}

// NewMembers returns a source that knows nobody until Observe tells it.
func NewMembers(config MembersConfig) *Members {
	config.Port = cmp.Or(config.Port, 5432)
	return &Members{config: config, list: NewList(nil)}
}

// Run implements Source.
func (m *Members) Run(ctx context.Context, publish func(Snapshot)) { m.list.Run(ctx, publish) }

// Observe takes what a server has told. Any goroutine may call it. What tells nothing changes nothing.
func (m *Members) Observe(members []Member) {
	now := time.Now()
	byWriter := slices.ContainsFunc(members, func(o Member) bool { return o.Self && o.Writer })
	m.mu.Lock()
	defer m.mu.Unlock()
	if !byWriter && !m.writer.IsZero() && now.Sub(m.writer) < readersWait {
		return
	}
	if byWriter {
		m.writer = now
	}
	_ = m.list.Replace(m.targets(members)) // An empty list is nothing.
}

func (m *Members) targets(members []Member) (targets []Target) {
	for _, member := range members {
		host := member.Host
		if host == "" && m.config.Hosts != "" && isLabel(member.ID) {
			host = strings.Replace(m.config.Hosts, "?", member.ID, 1)
		}
		if host == "" {
			continue
		}
		t := Target{Name: member.ID, Host: host, Port: cmp.Or(member.Port, m.config.Port), Role: Standby}
		if member.Writer {
			t.Role = Primary
		}
		targets = append(targets, t)
	}
	return named(targets)
}

// isLabel tells whether an ID can be a part of a host's name.
func isLabel(id string) bool {
	return id != "" && !strings.ContainsFunc(id, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// InstanceHosts makes MembersConfig.Hosts of any endpoint of an Aurora cluster: its instances' names differ in the first part only, and those of
// the cluster's own endpoints have a prefix in the second (NAME.cluster-ID.REGION.rds.amazonaws.com). "": it is none.
func InstanceHosts(endpoint string) string {
	labels := strings.Split(endpoint, ".")
	amazon := strings.HasSuffix(endpoint, ".amazonaws.com") || strings.HasSuffix(endpoint, ".amazonaws.com.cn")
	if !amazon || len(labels) < 5 || !slices.Contains(labels, "rds") {
		return ""
	}
	for _, prefix := range []string{"cluster-ro-", "cluster-custom-", "cluster-"} {
		if id, ok := strings.CutPrefix(labels[1], prefix); ok {
			labels[1] = id
			break
		}
	}
	labels[0] = "?"
	return strings.Join(labels, ".")
}
