package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"pgsidecar/internal/config"
)

// toClose is what the end takes after drain.timeout.
const toClose = 3 * time.Second

// TestCompose_isAsTheSpecificationSays holds the file against the schema by which compose itself reads it.
func TestCompose_isAsTheSpecificationSays(t *testing.T) {
	var project map[string]any
	require.NoError(t, yaml.UnmarshalStrict(read(t, "compose/compose.yaml"), &project))
	require.NoError(t, schema.Validate(project))
	project["services"].(map[string]any)["app"].(map[string]any)["image"] = 1
	require.Error(t, schema.Validate(project))
}

func TestCompose_filesAreThereAndTheEndHasTime(t *testing.T) {
	var compose struct {
		Services map[string]struct {
			Volumes         []string
			DependsOn       map[string]struct{ Condition string } `json:"depends_on"`
			StopGracePeriod string                                `json:"stop_grace_period"`
			Environment     map[string]string
		}
	}
	require.NoError(t, yaml.Unmarshal(read(t, "compose/compose.yaml"), &compose))
	for name, service := range compose.Services {
		for _, volume := range service.Volumes {
			script := filepath.Join("compose", strings.Split(volume, ":")[0])
			info, err := os.Stat(script)
			require.NoError(t, err)
			require.NotZero(t, info.Mode()&0o100, "%s has to be executable", script)
		}
		for other := range service.DependsOn {
			require.Contains(t, compose.Services, other, name)
		}
	}
	proxy := compose.Services["pgsidecar"]
	environ := make([]string, 0, len(proxy.Environment))
	for name, value := range proxy.Environment {
		environ = append(environ, name+"="+value)
	}
	loaded, _, err := config.Load("", environ)
	require.NoError(t, err)
	grace, err := time.ParseDuration(proxy.StopGracePeriod)
	require.NoError(t, err)
	require.Greater(t, grace, loaded.Drain.Timeout+toClose)
}

// TestSystemd_unitsAreUnderstood has systemd read the units, in a root that has nothing else but what they refer to.
func TestSystemd_unitsAreUnderstood(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze was not found")
	}
	root := t.TempDir()
	program := filepath.Join(root, "usr", "bin", "pgsidecar")
	require.NoError(t, os.MkdirAll(filepath.Dir(program), 0o755))
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755))
	units := filepath.Join(root, "etc", "systemd", "system")
	require.NoError(t, os.MkdirAll(units, 0o755))
	for _, name := range []string{"basic", "multi-user", "network", "network-online", "shutdown", "sockets", "sysinit"} {
		require.NoError(t, os.WriteFile(filepath.Join(units, name+".target"), []byte("[Unit]\nDescription="+name+"\n"), 0o644))
	}
	for _, name := range []string{"pgsidecar.service", "pgsidecar.socket"} {
		require.NoError(t, os.WriteFile(filepath.Join(units, name), read(t, filepath.Join("systemd", name)), 0o644))
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--root="+root, "pgsidecar.service", "pgsidecar.socket").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Empty(t, string(out), "what it does not understand it ignores, and says so")
}

func TestSystemd_theEndHasTime(t *testing.T) {
	found := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindSubmatch(read(t, "systemd/pgsidecar.service"))
	require.NotNil(t, found)
	seconds, err := strconv.Atoi(string(found[1]))
	require.NoError(t, err)
	require.Greater(t, time.Duration(seconds)*time.Second, config.Default().Drain.Timeout+toClose)
}

// TestSystemd_sockets_areThoseOfTheConfiguration looks for sockets that nobody would serve.
func TestSystemd_sockets_areThoseOfTheConfiguration(t *testing.T) {
	c := config.Default()
	want := append([]string{}, c.HTTP.Listen...)
	for _, l := range c.Listen {
		want = append(want, l.Address)
	}
	var have []string
	for _, found := range regexp.MustCompile(`(?m)^ListenStream=(.+)$`).FindAllSubmatch(read(t, "systemd/pgsidecar.socket"), -1) {
		have = append(have, string(found[1]))
	}
	require.ElementsMatch(t, want, have)
}
