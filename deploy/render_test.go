package deploy_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// kinds are the types that the manifests may contain.
var kinds = map[string]any{
	"v1/ConfigMap":                            core.ConfigMap{},
	"apps/v1/Deployment":                      apps.Deployment{},
	"apps/v1/StatefulSet":                     apps.StatefulSet{},
	"batch/v1/Job":                            batch.Job{},
	"batch/v1/CronJob":                        batch.CronJob{},
	"networking.k8s.io/v1/NetworkPolicy":      networking.NetworkPolicy{},
	"monitoring.coreos.com/v1/PodMonitor":     monitoring.PodMonitor{},
	"monitoring.coreos.com/v1/PrometheusRule": monitoring.PrometheusRule{},
}

// decode reads the documents of a manifest strictly: a key that the type does not have, or that is there twice, is a fault.
func decode(t *testing.T, manifest []byte) []any {
	t.Helper()
	var objects []any
	for document := range bytes.SplitSeq(append([]byte("\n"), manifest...), []byte("\n---\n")) {
		var meta struct{ APIVersion, Kind string }
		require.NoError(t, yaml.Unmarshal(document, &meta), "%s", document)
		if meta.Kind == "" {
			continue
		}
		zero, ok := kinds[meta.APIVersion+"/"+meta.Kind]
		require.True(t, ok, "%s/%s is not expected", meta.APIVersion, meta.Kind)
		object := reflect.New(reflect.TypeOf(zero)).Interface()
		require.NoError(t, yaml.UnmarshalStrict(document, object), "%s", document)
		objects = append(objects, object)
	}
	require.NotEmpty(t, objects)
	return objects
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	return content
}

func kustomize(t *testing.T, dir string) []byte {
	t.Helper()
	options := krusty.MakeDefaultOptions()
	result, err := krusty.MakeKustomizer(options).Run(filesys.MakeFsOnDisk(), dir)
	require.NoError(t, err)
	manifest, err := result.AsYaml()
	require.NoError(t, err)
	return manifest
}

// exampleChart is the example with the library chart as its dependency, as `helm dependency update` would have it.
func exampleChart(t *testing.T) *chart.Chart {
	t.Helper()
	example, err := loader.Load("helm/example")
	require.NoError(t, err)
	library, err := loader.Load("helm/pgsidecar")
	require.NoError(t, err)
	for _, c := range []*chart.Chart{example, library} {
		require.NoError(t, c.Validate())
	}
	example.AddDependency(library)
	return example
}

// helm renders the example with more values.
func helm(t *testing.T, values string) ([]byte, error) {
	t.Helper()
	given, err := chartutil.ReadValues([]byte(values))
	require.NoError(t, err)
	example := exampleChart(t)
	require.NoError(t, chartutil.ProcessDependencies(example, given))
	all, err := chartutil.ToRenderValues(example, given, chartutil.ReleaseOptions{Name: "shop", Namespace: "default"}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("check values: %w", err)
	}
	files, err := engine.Render(example, all)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for name, content := range files {
		if strings.HasSuffix(name, ".yaml") {
			_, _ = io.WriteString(&out, content+"\n---\n")
		}
	}
	return []byte(out.String()), nil
}
