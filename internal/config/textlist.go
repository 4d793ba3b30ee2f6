package config

import (
	"fmt"

	"gopkg.in/yaml.v3"
)

// textList is a list of texts of one kind. An empty one is allowed, and a single text is a list of one.
type textList struct {
	to           *[]string
	one, several string                // What it takes, in words.
	check        func(string) *problem // What is wrong with one of them, or nil.
}

func (l textList) decode(r *reader, key string, n *yaml.Node) {
	var list []string
	before := len(r.faults)
	for i, element := range sequence(n) {
		var one string
		place := fmt.Sprintf("%s[%d]", key, i)
		text(&one, l.one).decode(r, place, resolve(element))
		if r.failed[place] {
			continue
		}
		if p := l.check(one); p != nil {
			r.fault(element, place, p.wrong, p.instead)
			continue
		}
		list = append(list, one)
	}
	if len(r.faults) > before {
		r.failed[key] = true
		return
	}
	*l.to = list
}

func (l textList) encode() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, one := range *l.to {
		list.Content = append(list.Content, textNode(one))
	}
	return list
}

func (l textList) accepts() string { return "a list of " + l.several }
