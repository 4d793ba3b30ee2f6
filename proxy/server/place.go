package server

import (
	"crypto/tls"
	"net"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
)

// Place is the one server to go to, in place of those that the upstream names.
type Place struct {
	Host string // a name, an address, or the directory of a unix socket
	Port uint16

	// ServerName is whom the server's certificate must name where Host is an address that a name was resolved to. "": Host.
	ServerName string
}

// At returns a configuration that leads to a place and nowhere else, with the user, the settings and the encryption of the
// given one: of the host at that place if it names it, of its first host otherwise. Nothing is asked of the server's role.
func At(config *pgconn.Config, place Place) *pgconn.Config {
	config = config.Copy()
	ways := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	host, port := place.Host, place.Port
	if !slices.ContainsFunc(ways, func(w *pgconn.FallbackConfig) bool { return w.Host == host && w.Port == port }) {
		host, port = config.Host, config.Port
	}
	config.Fallbacks, config.ValidateConnect = nil, nil
	first := true
	for _, w := range ways {
		if w.Host != host || w.Port != port {
			continue
		}
		encryption := named(w.TLSConfig, w.Host, place)
		if first {
			config.Host, config.Port, config.TLSConfig = place.Host, place.Port, encryption
			first = false
			continue
		}
		config.Fallbacks = append(config.Fallbacks, &pgconn.FallbackConfig{Host: place.Host, Port: place.Port, TLSConfig: encryption})
	}
	return config
}

// named returns the encryption for a host as it is to be for a place: with the name that the place's certificate has.
func named(encryption *tls.Config, host string, place Place) *tls.Config {
	name := place.ServerName
	if name == "" {
		name = place.Host
	}
	if encryption == nil || encryption.ServerName == "" || name == host {
		return encryption
	}
	encryption = encryption.Clone()
	encryption.ServerName = name
	return encryption
}

// Addr is host:port.
func (p Place) Addr() string { return net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))) }
