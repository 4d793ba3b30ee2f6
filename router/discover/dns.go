package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Resolver is what DNS needs of *net.Resolver.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// DNSConfig says which name is resolved. The zero values of the durations mean the defaults named with them.
type DNSConfig struct {
	// Host is a name with addresses, each of which is a target. An address or the directory of a unix socket is one itself.
	Host string
	Port uint16 // of the targets, unless they come from SRV records; 5432
	// SRV says that Host has SRV records, such as _postgresql._tcp.pg.example, which name hosts and ports.
	SRV      bool
	Role     Hint          // what the name says of all its targets
	Every    time.Duration // between attempts, about; 5 s. Times to live are not known here
	Timeout  time.Duration // for one attempt; 3 s
	Resolver Resolver      // nil: net.DefaultResolver
}

// DNS is a source of the addresses that a name has. Nothing is cached: each attempt asks the resolver anew.
type DNS struct {
	rounds

	config DNSConfig
}

// NewDNS returns the source of a name.
func NewDNS(config DNSConfig) *DNS {
	config.Port = cmp.Or(config.Port, 5432)
	if config.Timeout <= 0 {
		config.Timeout = 3 * time.Second
	}
	if config.Resolver == nil {
		config.Resolver = net.DefaultResolver
	}
	return &DNS{rounds: newRounds(config.Every, 5*time.Second), config: config}
}

// Run implements Source.
func (d *DNS) Run(ctx context.Context, publish func(Snapshot)) { d.run(ctx, publish, d.ask) }

func (d *DNS) ask(ctx context.Context, known []Target) (s Snapshot, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.config.Timeout)
	defer cancel()
	if d.config.SRV {
		s.Targets, err = d.service(ctx, known)
	} else {
		s.Targets, err = d.addresses(ctx, d.config.Host, d.config.Port)
	}
	return s, err
}

// addresses resolves one name into targets, in an order that does not change with the answer's.
func (d *DNS) addresses(ctx context.Context, host string, port uint16) ([]Target, error) {
	if _, err := netip.ParseAddr(host); err == nil || strings.HasPrefix(host, "/") {
		return named([]Target{{Host: host, Port: port, Role: d.config.Role}}), nil
	}
	addrs, err := d.config.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolve %s: %w", host, ErrEmpty)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	targets := make([]Target, 0, len(addrs))
	for _, addr := range addrs {
		t := Target{Host: addr.String(), Port: port, ServerName: host, Role: d.config.Role}
		t.Name = host + "/" + t.Addr()
		targets = append(targets, t)
	}
	return targets, nil
}

// service resolves SRV records and the names in them. Where one of those cannot be resolved, what it was before stays.
func (d *DNS) service(ctx context.Context, known []Target) ([]Target, error) {
	_, records, err := d.config.Resolver.LookupSRV(ctx, "", "", d.config.Host)
	if err != nil {
		return nil, fmt.Errorf("resolve service %s: %w", d.config.Host, err)
	}
	var targets []Target
	var errs []error
	for _, record := range records {
		host := strings.TrimSuffix(record.Target, ".")
		found, err := d.addresses(ctx, host, record.Port)
		if err != nil {
			errs = append(errs, err)
			found = slices.DeleteFunc(slices.Clone(known), func(t Target) bool {
				return t.ServerName != host || t.Port != record.Port
			})
		}
		targets = append(targets, found...)
	}
	if len(targets) == 0 && len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(targets, func(a, b Target) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(targets, func(a, b Target) bool { return a.Name == b.Name }), nil
}

// Services is the source of the services that an operator on Kubernetes publishes: the one that leads to the primary (such as pg-rw), and
// the one that leads to standbys (pg-ro), which may be "". What they say of roles are hints, which lag behind.
func Services(readWrite, readOnly string, config DNSConfig) Source {
	config.Host, config.Role = readWrite, Primary
	sources := []Source{NewDNS(config)}
	if readOnly != "" {
		config.Host, config.Role = readOnly, Standby
		sources = append(sources, NewDNS(config))
	}
	return Merge(sources...)
}
