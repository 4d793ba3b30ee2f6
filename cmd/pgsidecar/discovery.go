package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/config"
	"pgsidecar/proxy/server"
	"pgsidecar/router/discover"
	"pgsidecar/router/probe"
)

// found is where the servers of a cluster are learned from.
type found struct {
	sources []discover.Source
	patroni *discover.Patroni // Among the sources; nil: there is none.
	members *discover.Members // The same.
}

// findServers makes the sources that a configuration asks for. Those come first whose names people have written down.
func findServers(c config.Config, upstream *pgconn.Config) (f found, err error) {
	d := &c.Discovery
	if hosts := hostsOf(c.Upstream, upstream); len(c.Upstream.Hosts) > 0 || !d.ByName() {
		f.sources = append(f.sources, discover.NewList(hosts))
	}
	resolver := resolverOf(d.DNSServer)
	for _, name := range d.DNS {
		host, port, _ := config.SplitName(name)
		f.sources = append(f.sources, discover.NewDNS(discover.DNSConfig{Host: host, Port: port, Resolver: resolver}))
	}
	for _, name := range d.SRV {
		f.sources = append(f.sources, discover.NewDNS(discover.DNSConfig{Host: name, SRV: true, Resolver: resolver}))
	}
	for _, s := range []struct {
		name string
		role discover.Hint
	}{{d.PrimaryService, discover.Primary}, {d.StandbyService, discover.Standby}} {
		if s.name == "" {
			continue
		}
		host, port, _ := config.SplitName(s.name)
		f.sources = append(f.sources, discover.NewDNS(discover.DNSConfig{Host: host, Port: port, Role: s.role, Resolver: resolver}))
	}
	if len(d.Patroni) > 0 {
		if f.patroni, err = findPatroni(d); err != nil {
			return found{}, err
		}
		f.sources = append(f.sources, f.patroni)
	}
	if d.Members {
		f.members = discover.NewMembers(discover.MembersConfig{Hosts: discover.InstanceHosts(upstream.Host), Port: upstream.Port})
		f.sources = append(f.sources, f.members)
	}
	return f, nil
}

// resolverOf returns what asks a DNS server; nil: that of the system.
func resolverOf(address string) discover.Resolver {
	if address == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}}
}

// findPatroni reads what its API wants.
func findPatroni(d *config.Discovery) (*discover.Patroni, error) {
	p := discover.PatroniConfig{Username: d.PatroniUser}
	for _, entry := range d.Patroni {
		p.URLs = append(p.URLs, config.PatroniURL(entry))
	}
	if file := d.PatroniPasswordFile; file != "" {
		password, err := server.ReadPassword(file)
		if err != nil {
			return nil, fmt.Errorf("discovery.patroni_password_file: %w", err)
		}
		p.Password = password
	}
	encryption, err := patroniTLS(d)
	if err != nil {
		return nil, err
	}
	p.TLS = encryption
	return discover.NewPatroni(p)
}

// patroniTLS reads authorities and certificate; nil: the system's authorities, and no certificate.
func patroniTLS(d *config.Discovery) (*tls.Config, error) {
	if d.PatroniCAFile == "" && d.PatroniCertFile == "" {
		return nil, nil //nolint:nilnil // Both mean the standard.
	}
	encryption := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := d.PatroniCAFile; file != "" {
		content, err := os.ReadFile(file) //nolint:gosec // The name is the operator's own.
		if err != nil {
			return nil, fmt.Errorf("discovery.patroni_ca_file: %w", err)
		}
		encryption.RootCAs = x509.NewCertPool()
		if !encryption.RootCAs.AppendCertsFromPEM(content) {
			return nil, errors.New("discovery.patroni_ca_file: has no certificate in PEM")
		}
	}
	if d.PatroniCertFile != "" {
		pair, err := tls.LoadX509KeyPair(d.PatroniCertFile, d.PatroniKeyFile)
		if err != nil {
			return nil, fmt.Errorf("discovery.patroni_cert_file: %w", err)
		}
		encryption.Certificates = []tls.Certificate{pair}
	}
	return encryption, nil
}

// observe passes on what a server has told of its cluster.
func (f *found) observe(o *probe.Observation) {
	if f.members == nil || len(o.Topology) == 0 {
		return
	}
	members := make([]discover.Member, len(o.Topology))
	for i, m := range o.Topology {
		members[i] = discover.Member{ID: m.ID, Host: m.Host, Port: m.Port, Writer: m.Writer, Self: m.Self}
	}
	f.members.Observe(members)
}
