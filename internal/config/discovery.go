package config

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Discovery is where servers are found that nobody has written down. The zero value finds none.
type Discovery struct {
	DNS       []string // Names, with or without a port.
	SRV       []string // Names of SRV records.
	DNSServer string   // host:port; "": the system's.

	PrimaryService string // A name, with or without a port; "": none.
	StandbyService string

	Patroni             []string // URLs, or host:port for http.
	PatroniUser         string
	PatroniPasswordFile string
	PatroniCAFile       string
	PatroniCertFile     string
	PatroniKeyFile      string

	Members bool // What Aurora and RDS tell of their clusters.
}

// ByName tells whether servers are found by names in DNS: then the hosts of the upstream URL are not servers by themselves.
func (d *Discovery) ByName() bool { return len(d.DNS)+len(d.SRV) > 0 || d.PrimaryService != "" }

// Any tells whether servers are found at all.
func (d *Discovery) Any() bool { return d.ByName() || len(d.Patroni) > 0 || d.Members }

func (c *Config) discoveryOptions() []option {
	d := &c.Discovery
	return []option{{
		key: "discovery.dns", value: textList{to: &d.DNS, one: "a name, or name:port", several: "names, with or without a port", check: checkName},
		doc: "Names whose addresses are the servers of the cluster, each address a server; they are resolved every 5s, and at once when the primary " +
			"is lost. With them, or with srv or primary_service, the hosts in upstream.url are not used.",
	}, {
		key: "discovery.srv", value: textList{to: &d.SRV, one: "the name of an SRV record", several: "names of SRV records", check: checkService},
		doc: "Names of SRV records, such as _postgresql._tcp.db.example, which name the hosts and ports of the servers.",
	}, {
		key: "discovery.dns_server", value: text(&d.DNSServer, "host:port"),
		doc: "The DNS server that is asked for these names, if it is not the system's.",
	}, {
		key: "discovery.primary_service", value: text(&d.PrimaryService, "a name, or name:port"),
		doc: "The name under which an operator on Kubernetes publishes the primary, such as db-rw. It is a hint: which role a server has is " +
			"asked of itself.",
	}, {
		key: "discovery.standby_service", value: text(&d.StandbyService, "a name, or name:port"),
		doc: "The same for standbys, such as db-ro or db-r. A service without an address of its own (headless) shows all of them.",
	}, {
		key: "discovery.patroni", value: textList{to: &d.Patroni, one: "a URL", several: "URLs such as http://10.0.0.1:8008", check: checkPatroni},
		doc: "Patroni's REST API on its members. Patroni says which servers there are, and who leads has the last word about who may be the " +
			"primary, unless what it says contradicts a primary that is well. While it cannot be asked everything goes on as the servers say.",
	}, {
		key: "discovery.patroni_user", value: text(&d.PatroniUser, "a name"),
		doc: "As whom Patroni is asked, where its API wants that.",
	}, {
		key: "discovery.patroni_password_file", value: path(&d.PatroniPasswordFile),
		doc: "A file with the password for that.",
	}, {
		key: "discovery.patroni_ca_file", value: path(&d.PatroniCAFile),
		doc: "The authorities that may have signed the certificates of Patroni's API, in PEM, if they are not the system's.",
	}, {
		key: "discovery.patroni_cert_file", value: path(&d.PatroniCertFile),
		doc: "The certificate that Patroni's API is shown, in PEM.",
	}, {
		key: "discovery.patroni_key_file", value: path(&d.PatroniKeyFile),
		doc: "The key of that certificate.",
	}, {
		key: "discovery.members", value: boolean(&d.Members),
		doc: "Ask the servers for the members of their cluster by the functions of Aurora and of RDS Multi-AZ clusters. Elsewhere nobody answers, " +
			"and nothing is found.",
	}}
}

// checkName returns what is wrong with a name that may have a port.
func checkName(name string) *problem {
	host, port, _ := SplitName(name)
	if host == "" || strings.ContainsAny(host, " /@") || port == 0 {
		return &problem{fmt.Sprintf("%q is not a name", name), "write a name such as db.example, or db.example:5432"}
	}
	return nil
}

// SplitName returns the host of a name, and its port; without one that of PostgreSQL, and 0 if it is no port.
func SplitName(name string) (host string, port uint16, given bool) {
	host, text, err := net.SplitHostPort(name)
	if err != nil {
		return strings.Trim(name, "[]"), 5432, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		n = 0
	}
	return host, uint16(n), true
}

func checkService(name string) *problem {
	if !strings.HasPrefix(name, "_") || strings.ContainsAny(name, " :/@") {
		return &problem{fmt.Sprintf("%q is not the name of an SRV record", name), "write one such as _postgresql._tcp.db.example"}
	}
	return nil
}

// PatroniURL returns the URL of an entry of discovery.patroni.
func PatroniURL(entry string) string {
	if strings.Contains(entry, "://") {
		return entry
	}
	return "http://" + entry
}

func checkPatroni(entry string) *problem {
	u, err := url.Parse(PatroniURL(entry))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return &problem{"is not the URL of an API", "write one such as http://10.0.0.1:8008, and discovery.patroni_user if it wants a user"}
	}
	return nil
}

func (r *reader) validateDiscovery(c *Config) {
	d := &c.Discovery
	for key, name := range map[string]string{"discovery.primary_service": d.PrimaryService, "discovery.standby_service": d.StandbyService} {
		if p := checkName(name); name != "" && p != nil && r.sound(key) {
			r.wrong(key, p.wrong, p.instead)
		}
	}
	if p := checkAddress(d.DNSServer); d.DNSServer != "" && r.sound("discovery.dns_server") && (p != nil || strings.HasPrefix(d.DNSServer, "/")) {
		r.wrong("discovery.dns_server", fmt.Sprintf("%q is not host:port", d.DNSServer), "write one such as 127.0.0.1:8600")
	}
	if d.StandbyService != "" && d.PrimaryService == "" && r.sound("discovery.primary_service") {
		r.wrong("discovery.standby_service", "does not show the primary", "set discovery.primary_service, too")
	}
	if (d.PatroniCertFile == "") != (d.PatroniKeyFile == "") {
		r.wrong("discovery.patroni_cert_file", "goes with discovery.patroni_key_file", "set both or none")
	}
	if d.PatroniUser != "" && d.PatroniPasswordFile == "" {
		r.wrong("discovery.patroni_user", "has no password", "set discovery.patroni_password_file")
	}
	attrs := sessionAttrs(c.Upstream.URL.Reveal())
	if d.Any() && attrs != "" && !slices.Contains([]string{"primary", "read-write"}, attrs) {
		r.wrong("upstream.url", "asks for target_session_attrs="+attrs+", and servers that are found are for following the primary",
			"leave it out, or take discovery out")
	}
}

// sessionAttrs returns the target_session_attrs of a connection string, "" without.
func sessionAttrs(text string) string {
	_, rest, _ := strings.Cut(text, "target_session_attrs=")
	end := strings.IndexAny(rest, "& '\t\n")
	if end < 0 {
		return rest
	}
	return rest[:end]
}
