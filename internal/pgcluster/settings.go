package pgcluster

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// configure writes postgresql.conf, pg_hba.conf and, with TLS, the server's certificate.
func (c *Cluster) configure() error {
	if c.cfg.TLS != nil {
		if err := c.writeCertificate(); err != nil {
			return err
		}
	}
	if err := c.owner.write(filepath.Join(c.DataDir(), "postgresql.conf"), c.postgresqlConf()); err != nil {
		return err
	}
	return c.owner.write(filepath.Join(c.DataDir(), "pg_hba.conf"), c.pgHBAConf())
}

// writeCertificate issues the server's certificate and puts it, its key and the authority's certificate in their places.
func (c *Cluster) writeCertificate() error {
	issued, err := c.cfg.TLS.Issue("localhost", "localhost", "127.0.0.1", "::1")
	if err != nil {
		return err
	}
	dir := filepath.Join(c.cfg.Dir, "tls")
	for name, pem := range map[string][]byte{"server.crt": issued.Cert, "server.key": issued.Key, "root.crt": c.cfg.TLS.PEM()} {
		if err := c.owner.write(filepath.Join(dir, name), pem); err != nil {
			return err
		}
	}
	return nil
}

// postgresqlConf are the defaults of a throwaway server, and on top of them what the Config asks for.
func (c *Cluster) postgresqlConf() []byte {
	settings := map[string]string{
		"listen_addresses":        c.Host(),
		"port":                    strconv.Itoa(c.Port()),
		"unix_socket_directories": c.SocketDir(),
		// Nothing here need survive a crash of the machine; a killed server loses nothing even so, because what it
		// has written is with the kernel. That is why synchronous_commit stays on.
		"fsync":            "off",
		"full_page_writes": "off",
		"shared_buffers":   "32MB",
		// Replication: standbys are made by copying, and catch up from what the primary still has.
		"wal_level":     "replica",
		"wal_keep_size": "256MB",
		"hot_standby":   "on",
		// Two-phase commit is off by default, and clients of the proxy may use it.
		"max_prepared_transactions": "10",
		"max_connections":           "100",
		"jit":                       "off",
		"lc_messages":               "C",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
		"log_line_prefix":           "%m [%p] %q%u@%d ",
		"logging_collector":         "off",
	}
	if c.primary != "" {
		settings["primary_conninfo"] = c.primary
		settings["wal_retrieve_retry_interval"] = "100ms"
	}
	if c.cfg.TLS != nil {
		dir := filepath.Join(c.cfg.Dir, "tls")
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = filepath.Join(dir, "server.crt")
		settings["ssl_key_file"] = filepath.Join(dir, "server.key")
		settings["ssl_ca_file"] = filepath.Join(dir, "root.crt")
	}
	maps.Copy(settings, c.cfg.Settings)

	var conf strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&conf, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return []byte(conf.String())
}

// pgHBAConf lets the superuser in over the unix socket and asks everyone else for what Config.Auth says. Replication by the
// superuser over the socket is how standbys follow.
func (c *Cluster) pgHBAConf() []byte {
	auth := c.cfg.Auth
	if auth == "" {
		auth = "trust"
	}
	lines := slices.Clone(c.cfg.HBA)
	lines = append(lines,
		"local all,replication "+Superuser+" trust",
	)
	if auth == "cert" {
		// The method exists only under TLS.
		lines = append(lines, "hostssl all,replication all all cert")
	} else {
		lines = append(lines,
			"local all,replication all "+auth,
			"host all,replication all all "+auth)
	}
	return []byte(strings.Join(lines, "\n") + "\n")
}
