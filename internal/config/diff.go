package config

import "gopkg.in/yaml.v3"

// Change is one key whose value differs between two configurations.
type Change struct {
	Key      string
	From, To string // As YAML, secrets masked; so they may look the same.
	Live     bool   // A running proxy takes it over; else it waits for a restart.
}

// Merge returns what a proxy that runs with running is to take over from loaded: loaded, with the keys that need a restart
// as they are running. The changes tell all that differs, in the order of the reference.
func Merge(running, loaded Config) (Config, []Change) {
	var changes []Change
	merged := loaded
	was, is, to := running.options(), loaded.options(), merged.options()
	for i := range was {
		from, becomes := was[i].value.encode(), is[i].value.encode()
		if flat(from) == flat(becomes) {
			continue
		}
		changes = append(changes, Change{
			Key: was[i].key, From: show(was[i], from), To: show(is[i], becomes), Live: !was[i].restart,
		})
		if was[i].restart {
			to[i].value.decode(&reader{failed: map[string]bool{}}, to[i].key, from)
		}
	}
	return merged, changes
}

// flat returns a value as one text.
func flat(n *yaml.Node) string {
	text, err := yaml.Marshal(n)
	if err != nil {
		panic("encode value: " + err.Error()) // Plain nodes always encode.
	}
	return string(text)
}

// show returns a value for people.
func show(o option, n *yaml.Node) string {
	if o.secret {
		return ConnString(n.Value).String()
	}
	text := flat(n)
	return text[:len(text)-1] // Without the line's end.
}
