package login

import (
	"fmt"
	"slices"
	"strings"

	"pgsidecar/proxy/auth"
)

// parseOptions reads the startup parameter options: the settings that -c name=value and --name=value make, in order.
// Other switches of a server process are refused, since nobody would carry them out; for a replication connection,
// whose options go to a server of its own as they are, they are passed over.
func parseOptions(s string, replication bool) ([]Param, error) {
	var settings []Param
	args := splitOptions(s)
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var setting, flag string
		switch {
		case arg == "-c" && len(args) > 0:
			flag, setting, args = "-c ", args[0], args[1:]
		case strings.HasPrefix(arg, "-c") && len(arg) > 2:
			flag, setting = "-c ", arg[2:]
		case strings.HasPrefix(arg, "--") && len(arg) > 2:
			flag, setting = "--", arg[2:]
		case replication:
			continue
		default:
			return nil, &auth.FatalError{
				SQLState: "0A000", Message: fmt.Sprintf(`unsupported switch in startup parameter "options": "%s"`, arg),
				Hint: "Write settings as -c name=value or --name=value.",
			}
		}
		name, value, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, &auth.FatalError{SQLState: "42601", Message: flag + setting + " requires a value"}
		}
		settings = append(settings, Param{strings.ReplaceAll(name, "-", "_"), value})
	}
	return settings, nil
}

// splitOptions splits at white space as PostgreSQL's pg_split_opts does: a backslash makes the character behind it
// an ordinary one.
func splitOptions(s string) []string {
	var (
		args   []string
		arg    strings.Builder
		inside bool // arg has begun, be it still empty
	)
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\':
			inside = true
			if i++; i < len(s) {
				arg.WriteByte(s[i])
			}
		case strings.IndexByte(" \t\n\v\f\r", c) < 0:
			inside = true
			arg.WriteByte(c)
		case inside:
			args = append(args, arg.String())
			arg.Reset()
			inside = false
		}
	}
	if inside {
		args = append(args, arg.String())
	}
	return args
}

// Settings returns what the startup packet sets: each setting once, with the value that counts, in the order in which
// PostgreSQL would apply them, which is options before the packet's own parameters. Names of settings have no case.
func (c *Client) Settings() []Param {
	all := slices.Concat(c.OptionSettings, c.Parameters)
	last := make(map[string]int, len(all))
	for i, p := range all {
		last[foldASCII(p.Name)] = i
	}
	settings := make([]Param, 0, len(last))
	for i, p := range all {
		if last[foldASCII(p.Name)] == i {
			settings = append(settings, p)
		}
	}
	return settings
}

// foldASCII lowers ASCII letters and nothing else, as PostgreSQL compares the names of settings.
func foldASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
