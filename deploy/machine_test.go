package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"pgsidecar/internal/config"
)

// toClose is what the end takes after drain.timeout.
const toClose = 3 * time.Second

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
