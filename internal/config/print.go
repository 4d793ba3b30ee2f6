package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// Print returns the effective configuration as YAML that could be loaded again, but for its secrets, which are masked.
// What is not at its default says where it comes from.
func Print(c Config, origins Origins) []byte {
	return render(c.options(), func(o option, name, v *yaml.Node) {
		origin, ok := origins[o.key]
		if !ok {
			return
		}
		// A line comment goes behind a scalar or a flow list, else it would end up below the key.
		if v.Kind == yaml.MappingNode && len(v.Content) > 0 {
			name.HeadComment = origin.String()
			return
		}
		v.LineComment = origin.String()
	})
}

// Hash returns a short fingerprint of the effective configuration, by which the proxies of a fleet can be compared.
// Secrets have no part in it.
func (c *Config) Hash() string {
	sum := sha256.Sum256(Print(*c, nil))
	return hex.EncodeToString(sum[:6])
}

// Reference returns the reference file: every key with its text and its default, as YAML that can be loaded.
func Reference() []byte {
	c := Default()
	head := comment("# ", "The reference of pgsidecar's configuration: every key, its default, and the variable that sets it as well. "+
		"Write only what differs. Variables come before the file; DATABASE_URL alone is enough. "+
		"\"Restart\" marks what a reload does not change.") + "\n" +
		"# Written by go generate ./internal/config from the table of options; edits here are lost.\n"
	body := render(c.options(), func(o option, name, _ *yaml.Node) { name.HeadComment = describe(o) })
	return []byte(head + spaced(string(body)))
}

// spaced puts an empty line before each key with its comment, and before each section.
func spaced(body string) string {
	var out strings.Builder
	before := ""
	for line := range strings.Lines(body) {
		inSection := strings.HasSuffix(before, ":\n")
		begins := strings.HasPrefix(strings.TrimSpace(line), "#") || strings.HasSuffix(line, ":\n")
		if begins && !inSection && !strings.HasPrefix(strings.TrimSpace(before), "#") {
			out.WriteByte('\n')
		}
		out.WriteString(line)
		before = line
	}
	return out.String()
}

// describe returns the comment above a key in the reference.
func describe(o option) string {
	lines := []string{comment("# ", o.doc)}
	if nested, ok := o.value.(interface{ keys() []option }); ok {
		for _, k := range nested.keys() {
			lines = append(lines, comment("#   ", k.key+": "+k.doc+" ("+k.value.accepts()+")"))
		}
	}
	variables := variableOf(o.key)
	if o.variable != "" {
		variables += " or " + o.variable
	}
	facts := "Takes " + o.value.accepts() + ". " + variables + "."
	if o.restart {
		facts += " Restart."
	}
	return strings.Join(append(lines, comment("# ", facts)), "\n")
}

// render writes the options as a tree of sections; decorate may add comments to a key's name and value.
func render(options []option, decorate func(o option, name, v *yaml.Node)) []byte {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, o := range options {
		section, key := root, o.key
		for {
			name, rest, nested := strings.Cut(key, ".")
			if !nested {
				break
			}
			section, key = subsection(section, name), rest
		}
		name, v := textNode(key), o.value.encode()
		if o.secret {
			v.Value = ConnString(v.Value).String()
		}
		decorate(o, name, v)
		section.Content = append(section.Content, name, v)
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		panic(fmt.Sprintf("encode configuration: %v", err)) // A tree of plain nodes always encodes.
	}
	return out.Bytes()
}

// subsection returns the mapping called name in section, and makes it if there is none.
func subsection(section *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(section.Content); i += 2 {
		if section.Content[i].Value == name {
			return section.Content[i+1]
		}
	}
	sub := &yaml.Node{Kind: yaml.MappingNode}
	section.Content = append(section.Content, textNode(name), sub)
	return sub
}

// commentWidth is where lines of comments end, without their indentation.
const commentWidth = 110

// comment wraps a text into lines of a YAML comment, each of which begins with lead.
func comment(lead, text string) string {
	var lines []string
	line := lead
	for word := range strings.FieldsSeq(text) {
		if len(line)+len(word) > commentWidth {
			lines, line = append(lines, strings.TrimRight(line, " ")), lead
		}
		line += word + " "
	}
	return strings.Join(append(lines, strings.TrimRight(line, " ")), "\n")
}

// Setting is one key of a configuration.
type Setting struct {
	Key            string
	Value, Default string // As YAML, secrets masked.
	Live           bool   // A running proxy takes a change over.
}

// Settings returns all keys, in the order of the reference.
func Settings(c Config) []Setting {
	standard := Default()
	defaults := standard.options()
	options := c.options()
	all := make([]Setting, len(options))
	for i, o := range options {
		all[i] = Setting{Key: o.key, Value: show(o, o.value.encode()), Default: show(o, defaults[i].value.encode()), Live: !o.restart}
	}
	return all
}
