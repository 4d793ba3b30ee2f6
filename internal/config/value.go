package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// value is the place of one key in a Config: how it is read, written and described.
type value interface {
	// decode sets the value from the node, or reports why it cannot and leaves it as it was.
	decode(r *reader, key string, n *yaml.Node)
	// encode returns the value as it would be written, secrets included.
	encode() *yaml.Node
	// accepts says for the reference what may be written.
	accepts() string
}

// scalar is a value that is a single text in YAML.
type scalar[T any] struct {
	to     *T
	parse  func(string) (T, *problem)
	format func(T) string
	tag    string // The YAML tag it is written with; "" lets the text speak for itself.
	takes  string
}

func (s scalar[T]) decode(r *reader, key string, n *yaml.Node) {
	switch {
	case n.Kind != yaml.ScalarNode:
		r.fault(n, key, "takes a single value, not "+kindOf(n), "write "+s.takes)
	case n.Tag == "!!null":
		r.fault(n, key, "has no value", "write "+s.takes+", or leave the key out")
	default:
		v, p := s.parse(n.Value)
		if p != nil {
			r.fault(n, key, p.wrong, p.instead)
			return
		}
		*s.to = v
	}
}

func (s scalar[T]) encode() *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: s.tag, Value: s.format(*s.to)}
}

func (s scalar[T]) accepts() string { return s.takes }

// textNode returns a YAML text, which is quoted where it would be taken for something else.
func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// kindOf names what a node is, for people.
func kindOf(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	if n.Kind == yaml.MappingNode {
		return "a mapping"
	}
	return "a single value"
}

// number is a whole number from low to high.
func number(to *int, low, high int) value {
	takes := fmt.Sprintf("a whole number from %d to %d", low, high)
	return scalar[int]{
		to: to, format: strconv.Itoa, takes: takes,
		parse: func(text string) (int, *problem) {
			n, err := strconv.Atoi(text)
			if err != nil {
				return 0, &problem{fmt.Sprintf("%q is not a whole number", text), "write " + takes}
			}
			if n < low || n > high {
				return 0, &problem{fmt.Sprintf("%d is out of range", n), "write " + takes}
			}
			return n, nil
		},
	}
}

// duration is a time span from low to high. A low above 0 still refuses 0.
func duration(to *time.Duration, low, high time.Duration) value {
	takes := fmt.Sprintf("a time with its unit from %s to %s", formatDuration(low), formatDuration(high))
	return scalar[time.Duration]{
		to: to, format: formatDuration, takes: takes,
		parse: func(text string) (time.Duration, *problem) {
			d, err := time.ParseDuration(text)
			if _, isNumber := strconv.ParseFloat(text, 64); err != nil && isNumber == nil {
				return 0, &problem{fmt.Sprintf("%q has no unit", text), fmt.Sprintf("write %ss if seconds are meant", text)}
			}
			if err != nil {
				return 0, &problem{fmt.Sprintf("%q is not a time span", text), "write " + takes + ", such as 30s, 10m or 1h30m"}
			}
			if d < low || d > high {
				return 0, &problem{formatDuration(d) + " is out of range", "write " + takes}
			}
			return d, nil
		},
	}
}

// formatDuration writes d in the form that people would: 10m, not 10m0s.
func formatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// boolean is true or false. The other words of YAML 1.1 are refused, as no two tools agree on them.
func boolean(to *bool) value {
	return scalar[bool]{
		to: to, format: strconv.FormatBool, takes: "true or false",
		parse: func(text string) (bool, *problem) {
			if text != "true" && text != "false" {
				return false, &problem{fmt.Sprintf("%q is neither true nor false", text), "write true or false"}
			}
			return text == "true", nil
		},
	}
}

// choice is one of the words.
func choice[T ~string](to *T, words ...T) value {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	takes := orList(known)
	return scalar[T]{
		to: to, tag: "!!str", takes: takes,
		format: func(word T) string { return string(word) },
		parse: func(text string) (T, *problem) {
			for _, w := range words {
				if string(w) == text {
					return w, nil
				}
			}
			p := &problem{fmt.Sprintf("%q is not known here", text), "write " + takes}
			if near := nearest(text, known); near != "" {
				p.instead = fmt.Sprintf("did you mean %s? Write %s", near, takes)
			}
			return "", p
		},
	}
}

// path is the name of a file; "" is none.
func path(to *string) value { return text(to, "the path of a file") }

// text is any text without control characters, which could only be a slip and would spoil messages.
func text(to *string, takes string) value {
	return scalar[string]{
		to: to, tag: "!!str", takes: takes,
		format: func(s string) string { return s },
		parse: func(s string) (string, *problem) {
			if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' }) {
				return "", &problem{"has a control character in it", "write it in one line"}
			}
			return s, nil
		},
	}
}

// orList joins words as a sentence does: "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
