package config

import (
	"errors"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// variablePrefix begins the names of all variables that are ours.
const variablePrefix = "PGSIDECAR_"

// FileVariable names the configuration file in the environment, for images whose command line is not at hand.
const FileVariable = "PGSIDECAR_CONFIG"

// testPrefix begins variables that tell the tests where PostgreSQL is; the proxy under test inherits them.
const testPrefix = "PGSIDECAR_TEST_"

var errNoValue = errors.New("no value")

// readEnviron sets the options from variables in the form of os.Environ. The variables in our own name come last, so that
// they win over those that are only understood (DATABASE_URL). A variable that is set to nothing counts as not set, as
// manifests cannot leave one out conditionally.
func (r *reader) readEnviron(environ []string, options []option) {
	variables := map[string]string{}
	for _, entry := range environ {
		if name, text, ok := strings.Cut(entry, "="); ok && text != "" {
			variables[name] = text
		}
	}
	for _, o := range options {
		if text, ok := variables[o.variable]; ok {
			r.readVariable(o, o.variable, text)
		}
	}
	for _, o := range options {
		name := variableOf(o.key)
		if text, ok := variables[name]; ok {
			r.readVariable(o, name, text)
			delete(variables, name)
		}
	}
	r.unknownVariables(variables, options)
}

// readVariable sets one option from a variable.
func (r *reader) readVariable(o option, name, text string) {
	r.file, r.variable = "", name
	defer func() { r.variable = "" }()
	delete(r.failed, o.key) // What the file said no longer counts.
	node, err := variableNode(o, text)
	if err != nil {
		r.fault(&yaml.Node{}, o.key, "cannot be understood", "write "+o.value.accepts())
		return
	}
	r.set(o, 0, node)
}

// variableNode returns the text of a variable as YAML: lists may be separated by commas, mappings are in YAML's flow
// form, and everything else is taken as it stands.
func variableNode(o option, text string) (*yaml.Node, error) {
	shape := o.value.encode().Kind
	if shape == yaml.ScalarNode {
		return textNode(text), nil
	}
	if shape == yaml.SequenceNode && text[0] != '[' {
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for part := range strings.SplitSeq(text, ",") {
			list.Content = append(list.Content, textNode(strings.TrimSpace(part)))
		}
		return list, nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		return nil, err
	}
	if len(document.Content) == 0 {
		return nil, errNoValue
	}
	return resolve(document.Content[0]), nil
}

// unknownVariables notes the variables that look like ours and are not.
func (r *reader) unknownVariables(variables map[string]string, options []option) {
	// Kubernetes sets these for each Service of the namespace, and a Service may be called pgsidecar.
	service := regexp.MustCompile(`^PGSIDECAR(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)
	keys := make([]string, len(options))
	for i, o := range options {
		keys[i] = strings.ToLower(strings.TrimPrefix(variableOf(o.key), variablePrefix))
	}
	for name := range variables {
		if !strings.HasPrefix(name, variablePrefix) || name == FileVariable || strings.HasPrefix(name, testPrefix) || service.MatchString(name) {
			continue
		}
		instead := "unset it; configs/reference.yaml lists every variable"
		if near := nearest(strings.TrimPrefix(name, variablePrefix), keys); near != "" {
			instead = "did you mean " + variablePrefix + strings.ToUpper(near) + "?"
		}
		r.faults = append(r.faults, &FaultError{Variable: name, Wrong: "is not a variable of pgsidecar", Instead: instead})
	}
}
