package config

import (
	"maps"
	"slices"

	"gopkg.in/yaml.v3"
)

// entries is a mapping from names that people choose to sections of one kind. It replaces what was there before as a
// whole: merging a file's entries with a variable's would leave no way to take one out.
type entries[T any] struct {
	to      *map[string]T
	options func(*T) []option // The keys of one entry, without a prefix.
	example string            // One entry in YAML's flow form.
}

func (e entries[T]) decode(r *reader, key string, n *yaml.Node) {
	all := map[string]T{}
	before := len(r.faults)
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null": // Its entries are all commented out.
	case n.Kind != yaml.MappingNode:
		r.fault(n, key, "takes a mapping, not "+kindOf(n), "write lines such as "+e.example)
	default:
		for i := 0; i+1 < len(n.Content); i += 2 {
			e.decodeEntry(r, key, n.Content[i], n.Content[i+1], all)
		}
	}
	if len(r.faults) > before {
		r.failed[key] = true
		return
	}
	*e.to = all
}

// decodeEntry reads one entry into all.
func (e entries[T]) decodeEntry(r *reader, key string, name, node *yaml.Node, all map[string]T) {
	place := key + "." + name.Value
	if _, twice := all[name.Value]; twice {
		r.fault(name, place, "is there twice", "keep one of the two")
		return
	}
	var entry T
	options := e.options(&entry)
	for i := range options {
		options[i].key = place + "." + options[i].key
	}
	r.mapping(place+".", node, options)
	all[name.Value] = entry
}

func (e entries[T]) encode() *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	if len(*e.to) == 0 {
		node.Style = yaml.FlowStyle // {} in place of nothing.
	}
	for _, name := range slices.Sorted(maps.Keys(*e.to)) {
		entry, unset := (*e.to)[name], *new(T)
		node.Content = append(node.Content, textNode(name), encodeChanged(e.options(&entry), e.options(&unset)))
	}
	return node
}

// encodeChanged returns a mapping of the options that differ from those unset.
func encodeChanged(options, unset []option) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle}
	for i, o := range options {
		if v := o.value.encode(); v.Value != unset[i].value.encode().Value {
			node.Content = append(node.Content, textNode(o.key), v)
		}
	}
	return node
}

// keys returns the table of the keys in one entry, for the reference.
func (e entries[T]) keys() []option { return e.options(new(T)) }

func (e entries[T]) accepts() string {
	return "a mapping of names such as " + e.example
}
