package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// reader walks YAML and sets options from it. It goes on after a fault, so that all of them are found at once.
type reader struct {
	file     string // The file that is being read; "" while a variable is.
	variable string // The variable that is being read; "" while a file is.

	faults  []*FaultError
	origins Origins
	failed  map[string]bool // Keys whose text could not be taken; what depends on them is not judged.
}

// Origins says where each key that was set was set, by key. What is not in it has its default.
type Origins map[string]Origin

// Origin is a place in a file or a variable.
type Origin struct {
	File     string
	Line     int
	Variable string // If it is not "", it is the origin.
}

// String returns file:line or the name of the variable.
func (o Origin) String() string {
	if o.Variable != "" {
		return o.Variable
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// fault notes a fault at the node, which belongs to key.
func (r *reader) fault(n *yaml.Node, key, wrong, instead string) {
	f := &FaultError{File: r.file, Variable: r.variable, Key: key, Wrong: wrong, Instead: instead}
	if r.variable == "" {
		f.Line = n.Line
	}
	r.faults = append(r.faults, f)
	r.failed[key] = true
}

// readFile sets the options from the text of a file.
func (r *reader) readFile(content []byte, options []option) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return // An empty file sets nothing.
	} else if err != nil {
		r.syntaxFault(err)
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		r.fault(&document, "", "has more than one document", "take out the line ---")
	}
	if len(document.Content) > 0 {
		r.mapping("", document.Content[0], options)
	}
}

// syntaxFault notes what the YAML parser said, with its line in our form.
func (r *reader) syntaxFault(err error) {
	wrong, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := regexp.MustCompile(`^line (\d+): (.*)$`).FindStringSubmatch(wrong); m != nil {
		line, _ = strconv.Atoi(m[1])
		wrong = m[2]
	}
	r.fault(&yaml.Node{Line: line}, "", "is not YAML: "+wrong, "check the indentation and the quotes of this line and its neighbours")
}

// mapping sets options from a mapping whose keys have the prefix.
func (r *reader) mapping(prefix string, n *yaml.Node, options []option) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // A section whose keys are all commented out.
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, strings.TrimSuffix(prefix, "."), "is not a mapping", "write lines such as "+example(prefix, options))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, node := n.Content[i], resolve(n.Content[i+1])
		key := prefix + name.Value
		if first, twice := lines[key]; twice {
			r.fault(name, key, fmt.Sprintf("is there twice, first in line %d", first), "keep one of the two")
			continue
		}
		lines[key] = name.Line
		r.entry(key, name, node, options)
	}
}

// entry sets one key of a mapping, or goes into it if it is a section.
func (r *reader) entry(key string, name, node *yaml.Node, options []option) {
	if i := slices.IndexFunc(options, func(o option) bool { return o.key == key }); i >= 0 {
		r.set(options[i], name.Line, node)
		return
	}
	section := key + "."
	if slices.ContainsFunc(options, func(o option) bool { return strings.HasPrefix(o.key, section) }) {
		r.mapping(section, node, options)
		return
	}
	r.fault(name, key, "is not a key", suggest(key, options))
}

// set decodes one option and notes where it came from.
func (r *reader) set(o option, line int, node *yaml.Node) {
	o.value.decode(r, o.key, node)
	if r.failed[o.key] {
		return
	}
	r.origins[o.key] = Origin{File: r.file, Line: line, Variable: r.variable}
}

// resolve returns what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// example returns a line that could stand in the section.
func example(prefix string, options []option) string {
	for _, o := range options {
		if rest, ok := strings.CutPrefix(o.key, prefix); ok && !o.secret {
			name, _, nested := strings.Cut(rest, ".")
			if !nested {
				return name + ": ..."
			}
		}
	}
	return "key: value"
}

// suggest says what to write in place of a key that does not exist.
func suggest(key string, options []option) string {
	keys := make([]string, len(options))
	last := key[strings.LastIndexByte(key, '.')+1:]
	for i, o := range options {
		if slices.Contains(strings.Fields(o.alias), last) {
			return "its name here is " + o.key
		}
		keys[i] = o.key
	}
	if near := nearest(key, keys); near != "" {
		return "did you mean " + near + "?"
	}
	for _, k := range keys {
		if strings.HasSuffix(k, "."+last) {
			return "did you mean " + k + "?"
		}
	}
	return "take it out; configs/reference.yaml lists every key"
}
