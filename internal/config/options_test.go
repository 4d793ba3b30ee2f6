package config

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func TestOptions_table_isConsistent(t *testing.T) {
	c := Default()
	variables, aliases := map[string]string{}, map[string]string{}
	for _, o := range c.options() {
		require.Regexp(t, `^[a-z_]+(\.[a-z_]+)?$`, o.key)
		require.Regexp(t, `(?s)^[A-Za-z].*\.$`, o.doc, "%s: its text is sentences", o.key)
		require.NotEmpty(t, o.value.accepts())
		for _, v := range []string{variableOf(o.key), o.variable} {
			if v != "" {
				require.NotContains(t, variables, v)
				variables[v] = o.key
			}
		}
		for alias := range strings.FieldsSeq(o.alias) {
			require.NotContains(t, aliases, alias, "%s", o.key)
			aliases[alias] = o.key
		}
	}
}

// Every option writes to its own place: a slip in the table would make two keys share one.
func TestOptions_eachKey_changesOnlyItself(t *testing.T) {
	c := Default()
	for i, o := range c.options() {
		changed := Default()
		options := changed.options()
		r := &reader{origins: Origins{}, failed: map[string]bool{}}
		other := otherThan(o)
		if other.Value == o.value.encode().Value && other.Kind == yaml.ScalarNode {
			continue // A choice of one.
		}
		options[i].value.decode(r, o.key, other)
		require.Empty(t, r.faults, o.key)
		_, changes := Merge(Default(), changed)
		require.Len(t, changes, 1, o.key)
		require.Equal(t, o.key, changes[0].Key)
		require.Equal(t, !o.restart, changes[0].Live)
	}
}

// otherThan returns a value for o that is not its default.
func otherThan(o option) *yaml.Node {
	now := o.value.encode()
	switch {
	case strings.Contains(o.value.accepts(), "SRV records"):
		return textNode("_postgresql._tcp.db")
	case o.key == "discovery.dns_server", strings.HasPrefix(o.value.accepts(), "a name"):
		return textNode("a.example")
	case now.Kind == yaml.SequenceNode:
		return textNode("127.0.0.1:99")
	case now.Kind == yaml.MappingNode:
		var n yaml.Node
		if err := yaml.Unmarshal([]byte(o.value.(interface{ keys() []option }).keys()[0].key+"x: {max_clients: 3}"), &n); err != nil {
			panic(err)
		}
		return n.Content[0]
	case strings.HasPrefix(o.value.accepts(), "a whole number"):
		return textNode("7")
	case strings.HasPrefix(o.value.accepts(), "a time"):
		return textNode("7s")
	case strings.HasPrefix(o.value.accepts(), "a size"):
		return textNode("7MiB")
	case strings.HasPrefix(o.value.accepts(), "a list of CPUs"):
		return textNode("7")
	case o.value.accepts() == "true or false":
		return textNode("true")
	case strings.HasPrefix(o.value.accepts(), "a PostgreSQL URL"):
		return textNode("postgres://x@db/x")
	case o.value.accepts() == "the path of a file":
		return textNode("/x")
	}
	for _, word := range regexp.MustCompile(`, | or `).Split(o.value.accepts(), -1) {
		if word != now.Value {
			return textNode(word)
		}
	}
	return now
}

func TestNearest_slips(t *testing.T) {
	words := []string{"pool.max_connections", "pool.mode", "listen"}
	for word, want := range map[string]string{
		"pool.max_conections": "pool.max_connections", "pool.maxconnections": "pool.max_connections", "pool.mdoe": "pool.mode",
		"LISTEN": "listen", "lsiten": "listen", "x": "", "": "", "pool.something": "",
	} {
		require.Equal(t, want, nearest(word, words), word)
	}
}

func TestFormatDuration_roundValues(t *testing.T) {
	for text, want := range map[string]string{"600s": "10m", "3600s": "1h", "5400s": "1h30m", "3605s": "1h0m5s", "0s": "0", "1500ms": "1.5s", "720h": "720h", "10s": "10s"} {
		d := Default()
		r := &reader{failed: map[string]bool{}}
		v := duration(&d.Pool.IdleTimeout, 0, maxLifetime)
		v.decode(r, "x", textNode(text))
		require.Equal(t, want, v.encode().Value)
	}
}

func FuzzReadFile_neverPanics(f *testing.F) {
	f.Add(string(Reference()))
	f.Add("listen: [{address: x, route: [}, *a]\ndatabases: {a: {b: c}}")
	f.Add("pool: &a {mode: *a, <<: *a}\n? {}\n: []")
	f.Fuzz(func(t *testing.T, content string) {
		c := Default()
		r := &reader{file: "f", origins: Origins{}, failed: map[string]bool{}}
		r.readFile([]byte(content), c.options())
		if err := sortedError(r.faults); err == nil {
			if r.validate(&c); len(r.faults) == 0 {
				Print(c, r.origins)
			}
		}
	})
}
