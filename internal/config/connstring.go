package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// masked stands for a secret wherever a configuration is shown.
const masked = "xxxxx"

// ConnString is a connection string as libpq takes it: a URL or keywords with values. It may hold a password, and so all
// that prints it shows it masked; Reveal is the only way to the text itself.
type ConnString string

// Reveal returns the connection string with its secrets.
func (c ConnString) Reveal() string { return string(c) }

// String returns the connection string with its secrets masked.
func (c ConnString) String() string {
	if c == "" {
		return ""
	}
	scheme, rest, isURL := strings.Cut(string(c), "://")
	if !isURL {
		// In libpq's form a backslash takes the next character as it is, within quotes and without.
		value := regexp.MustCompile(`(password\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.)*)`)
		return value.ReplaceAllString(string(c), "${1}"+masked)
	}
	if place := cutQuery(rest); strings.Count(place, "@") > 1 { // The password has an @ that should have been encoded.
		user, _, _ := strings.Cut(rest, ":")
		return scheme + "://" + user + ":" + masked + rest[strings.LastIndex(place, "@"):]
	}
	// The driver masks in its error texts by the rules of its own parser, which no copy could follow as well.
	text := pgconn.NewParseConfigError(string(c), "", nil).Error()
	_, text, ok := strings.Cut(text, "`")
	end := strings.LastIndex(text, "`")
	if !ok || end < 0 {
		return masked
	}
	return text[:end]
}

// cutQuery returns a URL without its parameters.
func cutQuery(url string) string {
	before, _, _ := strings.Cut(url, "?")
	return before
}

// GoString keeps %#v from showing secrets.
func (c ConnString) GoString() string { return fmt.Sprintf("%q", c.String()) }

// MarshalText keeps encoders from showing secrets.
func (c ConnString) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// LogValue keeps logs from showing secrets.
func (c ConnString) LogValue() slog.Value { return slog.StringValue(c.String()) }

// exampleURL shows people the form; nobody's password.
const exampleURL = "postgres://user:password@host:5432/database" //nolint:gosec // See above.

// connString is a connection string that the driver understands.
func connString(to *ConnString) value {
	return scalar[ConnString]{
		to: to, tag: "!!str", takes: "a PostgreSQL URL such as " + exampleURL,
		format: ConnString.Reveal,
		parse: func(s string) (ConnString, *problem) {
			if s == "" {
				return "", nil // Whether one is needed is for validate to say.
			}
			return ConnString(s), checkConnString(s)
		},
	}
}

var errAtSign = errors.New("more than one @")

// checkConnString returns what is wrong with a connection string, without quoting from it what may be a secret.
func checkConnString(s string) *problem {
	scheme, _, isURL := strings.Cut(s, "://")
	if isURL && !strings.ContainsAny(scheme, "= ") && scheme != "postgres" && scheme != "postgresql" {
		return &problem{fmt.Sprintf("%q is not PostgreSQL's URL scheme", scheme+"://"), "begin it with postgres:// or postgresql://"}
	}
	c, err := pgconn.ParseConfig(s)
	if err != nil {
		return connStringProblem(err)
	}
	for _, target := range targets(c) {
		if strings.Contains(target.address, "@") && target.network == "tcp" {
			return connStringProblem(errAtSign) // libpq takes the rest of the password for the host, too.
		}
	}
	foreign := foreignParameters()
	for _, name := range slices.Sorted(maps.Keys(c.RuntimeParams)) {
		if cure, ok := foreign[name]; ok {
			return &problem{fmt.Sprintf("parameter %s is not one of PostgreSQL's, which would refuse the login", name), cure}
		}
	}
	return nil
}

// connStringProblem words an error of the driver's parser. What it says about the form of the string is dropped: where
// the form is broken, a piece of the password may be taken for something else and quoted.
func connStringProblem(err error) *problem {
	malformed := &problem{
		"is not a connection string that PostgreSQL's libraries understand",
		"write " + exampleURL + " with @ : / ? # and % in the password as %40 %3A %2F %3F %23 and %25",
	}
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); !ok {
		return malformed
	}
	text := err.Error()
	reason := text[strings.LastIndex(text, "`: ")+len("`: "):]
	for _, form := range []string{"failed to parse", "could not match", "invalid port", "connection string"} {
		if strings.HasPrefix(reason, form) {
			return malformed
		}
	}
	return &problem{"does not work: " + reason, "correct this part of it"}
}

// foreignParameters returns URL parameters that are meant for other programs, which the driver would send to
// PostgreSQL as settings, each with what to do about it.
func foreignParameters() map[string]string {
	const (
		keepalive = "take it out and set upstream.keepalive"
		poolSize  = "take it out and set pool.max_connections"
		remove    = "take it out"
	)
	return map[string]string{
		"keepalives": keepalive, "keepalives_idle": keepalive, "keepalives_interval": keepalive, "keepalives_count": keepalive,
		"tcp_user_timeout": "take it out and set upstream.tcp_user_timeout",
		"connection_limit": poolSize, "pool_max_conns": poolSize, "pool_size": poolSize, "max_connections": poolSize,
		"pool_timeout": "take it out and set pool.acquire_timeout",
		"pgbouncer":    remove, "schema": "take it out and write options=-csearch_path%3DNAME",
		"gssencmode": remove, "load_balance_hosts": remove, "sslcompression": remove, "sslaccept": "take it out and set sslmode",
		"fallback_application_name": "take it out and write application_name",
		"hostaddr":                  "take it out and write the address as the host",
	}
}
