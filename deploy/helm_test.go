package deploy_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
)

// effects says of each value of the chart, by its path in the schema, what it is changed to, and what is in the manifest only
// then, or only before.
var effects = map[string]struct{ values, added, removed string }{
	"image.repository":                  {"image: {repository: registry/proxy}", "image: registry/proxy:1.0\n", ""},
	"image.tag":                         {"image: {tag: '2.0'}", "image: pgsidecar:2.0\n", ""},
	"image.digest":                      {"image: {digest: 'sha256:" + someDigest + "'}", "image: pgsidecar@sha256:" + someDigest + "\n", ""},
	"image.pullPolicy":                  {"image: {pullPolicy: Always}", "imagePullPolicy: Always\n", ""},
	"database.secretName":               {"database: {secretName: other}", "name: other,", ""},
	"database.secretKey":                {"database: {secretKey: uri}", "key: uri }", ""},
	"terminationGracePeriodSeconds":     {"terminationGracePeriodSeconds: 77", "pod_grace: 77s", ""},
	"lifecycle":                         {"lifecycle: classic", "lifecycle: classic", ""},
	"notice":                            {"notice: true", "path: /pod-terminating", ""},
	"config":                            {"config: {pool: {max_connections: 11}}", "max_connections: 11", ""},
	"resources":                         {"resources: {limits: {memory: 99Mi}}", "memory: 99Mi", ""},
	"extraEnv":                          {"extraEnv: [{name: MORE, value: 'yes'}]", "name: MORE", ""},
	"podMonitor":                        {"podMonitor: false", "", "kind: PodMonitor"},
	"networkPolicy.enabled":             {"networkPolicy: {enabled: true}", "kind: NetworkPolicy", ""},
	"networkPolicy.prometheusNamespace": {"networkPolicy: {enabled: true, prometheusNamespace: watch}", "metadata.name: watch", ""},
}

var someDigest = strings.Repeat("0a", 32)

// leaves returns the paths of a schema's values, without `global`, which is Helm's own.
func leaves(t *testing.T, schema []byte) []string {
	t.Helper()
	type node struct {
		Properties map[string]json.RawMessage
	}
	var walk func(prefix string, raw []byte) []string
	walk = func(prefix string, raw []byte) (paths []string) {
		var n node
		require.NoError(t, json.Unmarshal(raw, &n))
		for name, below := range n.Properties {
			switch inner := walk(prefix+name+".", below); {
			case name == "global":
			case len(inner) > 0:
				paths = append(paths, inner...)
			default:
				paths = append(paths, prefix+name)
			}
		}
		return paths
	}
	return walk("", schema)
}

func TestHelm_eachValue_hasItsEffectAndIsChecked(t *testing.T) {
	require.ElementsMatch(t, leaves(t, read(t, "helm/pgsidecar/values.schema.json")), slices.Collect(maps.Keys(effects)))
	before, err := helm(t, "")
	require.NoError(t, err)
	for path, effect := range effects {
		t.Run(path, func(t *testing.T) {
			after, err := helm(t, "pgsidecar: {"+effect.values+"}")
			require.NoError(t, err)
			if effect.added != "" {
				require.NotContains(t, string(before), effect.added)
				require.Contains(t, string(after), effect.added)
			} else {
				require.Contains(t, string(before), effect.removed)
				require.NotContains(t, string(after), effect.removed)
			}
			decode(t, after)
			// Nothing is a number below zero.
			wrong := "-1"
			for _, part := range slices.Backward(strings.Split(path, ".")) {
				wrong = "{" + part + ": " + wrong + "}"
			}
			_, err = helm(t, "pgsidecar: "+wrong)
			require.ErrorContains(t, err, "check values")
		})
	}
}

func TestHelm_valuesThatAreWrong_areRefused(t *testing.T) {
	for _, values := range []string{
		"pgsidecar: {lifecycle: sidecar}",
		"pgsidecar: {terminationGracePeriodSeconds: 30s}",
		"pgsidecar: {image: {digest: latest}}",
		"pgsidecar: {imag: {}}",
	} {
		_, err := helm(t, values)
		require.ErrorContains(t, err, "check values", values)
	}
}

func TestHelm_configurationChanges_podsAreRestarted(t *testing.T) {
	annotation := func(values string) string {
		manifest, err := helm(t, values)
		require.NoError(t, err)
		for _, object := range decode(t, manifest) {
			if d, ok := object.(*apps.Deployment); ok {
				return d.Spec.Template.Annotations["pgsidecar/config"]
			}
		}
		return ""
	}
	require.NotEmpty(t, annotation(""))
	require.NotEqual(t, annotation(""), annotation("pgsidecar: {config: {pool: {max_connections: 11}}}"))
}
