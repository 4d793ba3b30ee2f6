package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"pgsidecar/internal/config"
)

// rendered are all manifests with pods, however they are made.
func rendered(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"kustomize": kustomize(t, "kustomize/example")}
	files, err := filepath.Glob("kubernetes/*.yaml")
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, file := range files {
		all[file] = read(t, file)
	}
	for name, values := range map[string]string{
		"helm": "", "helm with all": "pgsidecar: {notice: true, podMonitor: true, networkPolicy: {enabled: true}, extraEnv: [{name: A, value: b}]}",
		"helm classic": "pgsidecar: {lifecycle: classic, terminationGracePeriodSeconds: 60, notice: true, config: {drain: {timeout: 20s}}}",
	} {
		manifest, err := helm(t, values)
		require.NoError(t, err)
		all[name] = manifest
	}
	return all
}

// podSpec returns the pod that an object makes, or nil.
func podSpec(object any) *core.PodSpec {
	switch o := object.(type) {
	case *apps.Deployment:
		return &o.Spec.Template.Spec
	case *apps.StatefulSet:
		return &o.Spec.Template.Spec
	case *batch.Job:
		return &o.Spec.Template.Spec
	case *batch.CronJob:
		return &o.Spec.JobTemplate.Spec.Template.Spec
	}
	return nil
}

// sidecar finds the proxy's container, and tells whether it is a native sidecar.
func sidecar(pod *core.PodSpec) (container *core.Container, native bool) {
	for i := range pod.InitContainers {
		if pod.InitContainers[i].Name == "pgsidecar" {
			return &pod.InitContainers[i], true
		}
	}
	for i := range pod.Containers {
		if pod.Containers[i].Name == "pgsidecar" {
			return &pod.Containers[i], false
		}
	}
	return nil, false
}

func TestSidecars_areWhatTheLifecycleNeeds(t *testing.T) {
	for name, manifest := range rendered(t) {
		t.Run(name, func(t *testing.T) {
			objects := decode(t, manifest)
			configs := map[string]string{}
			found := 0
			for _, object := range objects {
				if m, ok := object.(*core.ConfigMap); ok {
					configs[m.Name] = m.Data["pgsidecar.yaml"]
				}
			}
			for _, object := range objects {
				pod := podSpec(object)
				if pod == nil {
					continue
				}
				container, native := sidecar(pod)
				if container == nil {
					continue
				}
				found++
				checkContainer(t, pod, container, native)
				checkConfig(t, pod, container, native, configs)
			}
			if !strings.HasSuffix(name, "networkpolicy.yaml") {
				require.Equal(t, 1, found)
			}
		})
	}
}

func checkContainer(t *testing.T, pod *core.PodSpec, c *core.Container, native bool) {
	t.Helper()
	if native {
		require.Equal(t, "pgsidecar", pod.InitContainers[0].Name, "the other init containers use it")
		require.NotNil(t, c.RestartPolicy)
		require.Equal(t, core.ContainerRestartPolicyAlways, *c.RestartPolicy)
		require.Equal(t, "/readyz", c.StartupProbe.HTTPGet.Path)
	} else {
		require.Nil(t, c.RestartPolicy)
	}
	for _, probe := range []*core.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if probe != nil {
			require.Equal(t, 6433, probe.HTTPGet.Port.IntValue(), "by number")
		}
	}
	require.Equal(t, "/livez", c.LivenessProbe.HTTPGet.Path)
	if c.ReadinessProbe != nil {
		require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
	}
	if c.Lifecycle != nil {
		require.Equal(t, "/pod-terminating", c.Lifecycle.PreStop.HTTPGet.Path, "preStop must not stop the proxy: the application is still at work")
	}
	require.False(t, c.Resources.Limits.Memory().IsZero())
	require.True(t, c.Resources.Limits.Cpu().IsZero(), "throttling delays every query")
	require.False(t, c.Resources.Requests.Cpu().IsZero())
	s := c.SecurityContext
	require.True(t, *s.RunAsNonRoot)
	require.True(t, *s.ReadOnlyRootFilesystem)
	require.False(t, *s.AllowPrivilegeEscalation)
	require.Equal(t, []core.Capability{"ALL"}, s.Capabilities.Drop)
	require.Equal(t, core.SeccompProfileTypeRuntimeDefault, s.SeccompProfile.Type)
}

// checkConfig loads the configuration as the container would, and checks that the end fits into the pod's.
func checkConfig(t *testing.T, pod *core.PodSpec, c *core.Container, native bool, configs map[string]string) {
	t.Helper()
	require.Equal(t, []string{"run", "--config", "/etc/pgsidecar/pgsidecar.yaml"}, c.Args)
	require.Equal(t, "/etc/pgsidecar", c.VolumeMounts[0].MountPath)
	content := ""
	for _, volume := range pod.Volumes {
		if volume.Name == c.VolumeMounts[0].Name {
			content = configs[volume.ConfigMap.Name]
		}
	}
	require.NotEmpty(t, content, "the volume's ConfigMap is there")
	file := filepath.Join(t.TempDir(), "pgsidecar.yaml")
	require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
	loaded, _, err := config.Load(file, []string{"DATABASE_URL=postgres://app:secret@db:5432/app"})
	require.NoError(t, err)

	grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second
	require.Equal(t, grace, loaded.Drain.PodGrace)
	if native {
		require.Equal(t, config.LifecycleNative, loaded.Lifecycle)
	} else {
		require.Equal(t, config.LifecycleClassic, loaded.Lifecycle)
		require.GreaterOrEqual(t, loaded.Drain.MaxLinger(), loaded.Drain.MinLinger)
		require.Less(t, loaded.Drain.MaxLinger()+loaded.Drain.Timeout, grace)
	}
	require.Less(t, loaded.Drain.Timeout, grace)
	require.Equal(t, c.Lifecycle != nil, loaded.HTTP.PodTerminating, "the kubelet may call what preStop names")
	require.Equal(t, []string{"0.0.0.0:6433"}, loaded.HTTP.Listen)
	require.Len(t, loaded.Listen, 1)
	require.True(t, config.Local(loaded.Listen[0].Address), "clients come from within the pod")
}

func TestKustomize_addsTheSidecarOnlyWhereItIsAskedFor(t *testing.T) {
	with, without := 0, 0
	for _, object := range decode(t, kustomize(t, "kustomize/example")) {
		pod := podSpec(object)
		if pod == nil {
			continue
		}
		if c, _ := sidecar(pod); c != nil {
			with++
			require.Equal(t, "pgsidecar:1.0", c.Image)
			require.Len(t, pod.InitContainers, 2, "the application keeps its own")
		} else {
			without++
		}
	}
	require.Equal(t, 1, with)
	require.Equal(t, 1, without)
}

// TestREADME_sidecar_isOne reads the example in the README as Kubernetes would, and its environment as the proxy would.
func TestREADME_sidecar_isOne(t *testing.T) {
	_, text, found := strings.Cut(string(read(t, "../README.md")), "```yaml\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "```\n")
	var pod core.PodSpec
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &pod))
	c, native := sidecar(&pod)
	require.True(t, native)
	require.Equal(t, core.ContainerRestartPolicyAlways, *c.RestartPolicy)
	require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	var environ []string
	for _, v := range c.Env {
		if v.ValueFrom != nil {
			v.Value = "postgres://app:secret@db:5432/app"
		}
		environ = append(environ, v.Name+"="+v.Value)
	}
	loaded, _, err := config.Load("", environ)
	require.NoError(t, err)
	require.Equal(t, 10, loaded.Pool.MaxConnections)
	require.Equal(t, "127.0.0.1:6432", loaded.Listen[0].Address, "where the application is told to connect")
	for _, probe := range []*core.Probe{c.StartupProbe, c.LivenessProbe} {
		require.Equal(t, loaded.HTTP.Listen, []string{"0.0.0.0:" + probe.HTTPGet.Port.String()})
	}
}
