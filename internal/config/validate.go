package config

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// validate notes what is wrong between keys, each of which is right by itself.
func (r *reader) validate(c *Config) {
	r.validateUpstream(c)
	r.validateDiscovery(c)
	r.validateAddresses(c)
	r.validatePool(c)
	r.validateDrain(c)
	r.validateAuth(c)
	r.validateTLS(c)
	r.validateFiles(c)
}

// wrong notes a fault of key where key was set.
func (r *reader) wrong(key, wrong, instead string) {
	f := &FaultError{Key: key, Wrong: wrong, Instead: instead}
	if o, ok := r.origins[key]; ok {
		f.File, f.Line, f.Variable = o.File, o.Line, o.Variable
	}
	r.failed[key] = true
	r.faults = append(r.faults, f)
}

// sound reports whether all the keys could be read, so that a rule about them says something new.
func (r *reader) sound(keys ...string) bool {
	for _, key := range keys {
		if r.failed[key] {
			return false
		}
	}
	return true
}

func (r *reader) validateUpstream(c *Config) {
	if !r.sound("upstream.url") {
		return
	}
	if c.Upstream.URL == "" {
		r.wrong("upstream.url", "is not set", "write "+exampleURL+" here or in DATABASE_URL")
		return
	}
	parsed, err := pgconn.ParseConfig(c.Upstream.URL.Reveal())
	if err != nil {
		return // Said when it was read.
	}
	for _, target := range targets(parsed) {
		for _, listen := range c.Listen {
			if r.sound("listen") && target.leadsTo(listen) {
				r.wrong("upstream.url", "points at the proxy itself, "+listen.Address, "write the address of PostgreSQL, or let the proxy listen elsewhere")
				return
			}
		}
	}
}

// target is a place where a connection string looks for PostgreSQL.
type target struct{ network, address string }

// targets returns the places that a connection string names.
func targets(c *pgconn.Config) []target {
	list := make([]target, 1, 1+len(c.Fallbacks))
	list[0].network, list[0].address = pgconn.NetworkAddress(c.Host, c.Port)
	for _, f := range c.Fallbacks {
		network, address := pgconn.NetworkAddress(f.Host, f.Port)
		list = append(list, target{network, address})
	}
	return list
}

// leadsTo reports whether a connection to the target would reach listen, both being on this machine.
func (t target) leadsTo(listen Listen) bool {
	network, address := listen.Socket()
	if network != t.network || network == "unix" {
		return network == t.network && address == t.address
	}
	_, theirs, _ := net.SplitHostPort(t.address)
	host, ours, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return theirs == ours && Local(t.address) && (Local(address) || host == "" || ip != nil && ip.IsUnspecified())
}

func (r *reader) validateAddresses(c *Config) {
	if !r.sound("listen", "http.listen") {
		return
	}
	taken := map[string]bool{}
	for _, listen := range c.Listen {
		network, address := listen.Socket()
		r.validateFree("listen", network, address, taken)
	}
	for _, listen := range c.HTTP.Listen {
		network, address := Socket(listen)
		r.validateFree("http.listen", network, address, taken)
	}
	if socket := c.Takeover.Socket; socket != "" && r.sound("takeover.socket") {
		if !strings.HasPrefix(socket, "/") || len(socket) > maxSocketPath {
			r.wrong("takeover.socket", fmt.Sprintf("%q is not the whole path of a unix socket", socket),
				fmt.Sprintf("write one that begins with / and has at most %d bytes", maxSocketPath))
			return
		}
		r.validateFree("takeover.socket", "unix", socket, taken)
	}
}

// validateFree notes an address that is used a second time. Port 0 is a new port every time.
func (r *reader) validateFree(key, network, address string, taken map[string]bool) {
	if _, port, _ := net.SplitHostPort(address); network == "tcp" && port == "0" {
		return
	}
	if taken[address] {
		r.wrong(key, address+" is there twice", "write another port or path")
	}
	taken[address] = true
}

func (r *reader) validatePool(c *Config) {
	if r.sound("pool.min_connections", "pool.max_connections") && c.Pool.MinConnections > c.Pool.MaxConnections {
		r.wrong("pool.min_connections",
			fmt.Sprintf("%d is more than pool.max_connections, which is %d", c.Pool.MinConnections, c.Pool.MaxConnections),
			"lower the one or raise the other")
	}
}

// validateDrain notes an end that does not fit into the time there is.
func (r *reader) validateDrain(c *Config) {
	d, classic := c.Drain, c.Lifecycle == LifecycleClassic
	if !r.sound("drain.timeout", "drain.pod_grace", "drain.min_linger", "drain.quiet_period", "lifecycle") {
		return
	}
	if d.PodGrace == 0 {
		if classic {
			r.wrong("lifecycle", "classic needs to know when the pod is killed",
				"set drain.pod_grace to the pod's terminationGracePeriodSeconds, which is 30s unless the pod says otherwise")
		}
		return
	}
	needs, sum := d.Timeout+closingTime, "drain.timeout and 3s to close"
	if classic {
		needs, sum = needs+max(d.MinLinger, d.QuietPeriod), "drain.min_linger or drain.quiet_period, drain.timeout and 3s to close"
	}
	if needs > d.PodGrace {
		r.wrong("drain.pod_grace", fmt.Sprintf("is %s, but the end may take %s (%s)", formatDuration(d.PodGrace), formatDuration(needs), sum),
			"lower drain.timeout, or raise this and the pod's terminationGracePeriodSeconds")
	}
}

func (r *reader) validateAuth(c *Config) {
	auth := c.ClientAuth
	if !r.sound("client_auth.method", "client_auth.users_file", "client_auth.unknown_users", "client_auth.force_trust") {
		return
	}
	if auth.Method == AuthTrust && !auth.ForceTrust && r.sound("listen") {
		for _, listen := range c.Listen {
			if !Local(listen.Address) {
				r.wrong("listen", listen.Address+" can be reached by others, and client_auth.method is trust",
					"write 127.0.0.1, or client_auth.method: scram-sha-256, or client_auth.force_trust: true if that is meant")
			}
		}
	}
	if auth.UnknownUsers == UnknownAsIs && (auth.Method == AuthMD5 || auth.Method == AuthSCRAM) {
		r.wrong("client_auth.unknown_users", "as-is cannot work with method "+string(auth.Method)+", which keeps the password from the server",
			"write reject, or client_auth.method: password")
		return
	}
	if auth.Method != AuthTrust && auth.UnknownUsers != UnknownAsIs && auth.UsersFile == "" && r.noPassword(c) {
		r.wrong("client_auth.method", string(auth.Method)+" leaves nobody who could log in, as no password is known",
			"set client_auth.users_file, or put a password into upstream.url")
	}
}

// noPassword reports whether the URL's user is known to have no password.
func (r *reader) noPassword(c *Config) bool {
	if c.Upstream.PasswordFile != "" || !r.sound("upstream.url", "upstream.password_file") {
		return false
	}
	parsed, err := pgconn.ParseConfig(c.Upstream.URL.Reveal())
	return err == nil && parsed.Password == ""
}

func (r *reader) validateTLS(c *Config) {
	t := c.ClientTLS
	if !r.sound("client_tls.mode", "client_tls.cert_file", "client_tls.key_file", "client_tls.ca_file") {
		return
	}
	if t.CertFile != "" && t.KeyFile == "" {
		r.wrong("client_tls.cert_file", "has no key", "set client_tls.key_file")
	}
	if t.KeyFile != "" && t.CertFile == "" {
		r.wrong("client_tls.key_file", "has no certificate", "set client_tls.cert_file")
	}
	if t.Mode == TLSDisable {
		if t.CertFile != "" && t.KeyFile != "" {
			r.wrong("client_tls.cert_file", "is not used, as client_tls.mode is disable", "write client_tls.mode: allow or require")
		}
		return
	}
	if t.CertFile == "" && t.KeyFile == "" {
		r.wrong("client_tls.mode", string(t.Mode)+" needs a certificate", "set client_tls.cert_file and client_tls.key_file")
	}
	if (t.Mode == TLSVerifyCA || t.Mode == TLSVerifyFull) && t.CAFile == "" {
		r.wrong("client_tls.mode", string(t.Mode)+" needs authorities to check against", "set client_tls.ca_file")
	}
}

// validateFiles notes files that cannot be read, and certificates that cannot be used.
func (r *reader) validateFiles(c *Config) {
	files := []struct{ key, name string }{
		{"upstream.password_file", c.Upstream.PasswordFile},
		{"client_auth.users_file", c.ClientAuth.UsersFile},
		{"discovery.patroni_password_file", c.Discovery.PatroniPasswordFile},
		{"discovery.patroni_ca_file", c.Discovery.PatroniCAFile},
		{"discovery.patroni_cert_file", c.Discovery.PatroniCertFile},
		{"discovery.patroni_key_file", c.Discovery.PatroniKeyFile},
		{"client_tls.cert_file", c.ClientTLS.CertFile},
		{"client_tls.key_file", c.ClientTLS.KeyFile},
		{"client_tls.ca_file", c.ClientTLS.CAFile},
	}
	for _, f := range files {
		if f.name == "" || !r.sound(f.key) {
			continue
		}
		if _, err := os.ReadFile(f.name); err != nil {
			r.wrong(f.key, f.name+" cannot be read: "+reason(err), "check the name, and that the proxy's user may read it")
		}
	}
	if c.ClientTLS.CertFile == "" || !r.sound("client_tls.cert_file", "client_tls.key_file") {
		return
	}
	if _, err := tls.LoadX509KeyPair(c.ClientTLS.CertFile, c.ClientTLS.KeyFile); err != nil {
		r.wrong("client_tls.cert_file", "cannot be used with client_tls.key_file: "+strings.TrimPrefix(err.Error(), "tls: "),
			"give a certificate and its own key, both in PEM")
	}
}
