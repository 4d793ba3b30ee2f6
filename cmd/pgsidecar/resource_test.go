package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// TestResources_asConfigured looks at a process of its own, as limits are those of a whole process.
func TestResources_asConfigured(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	text, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	allowed := regexp.MustCompile(`(?m)^Cpus_allowed_list:\s+(\d+)`).FindStringSubmatch(string(text))
	require.NotNil(t, allowed)
	p := newPod(t, cluster, "resources", time.Minute, "PGSIDECAR_CPUS="+allowed[1], "PGSIDECAR_MEMORY_LIMIT=64MiB")
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid))
	require.NoError(t, err)
	require.NotEmpty(t, threads)
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if os.IsNotExist(err) {
			continue // It has ended.
		}
		require.Regexp(t, `(?m)^Cpus_allowed_list:\s+`+allowed[1]+`$`, string(text))
	}
	conn, err := p.connect(t.Context())
	require.NoError(t, err, "there is room")
	require.NoError(t, conn.Close(t.Context()))
	p.signal()
	p.await(cluster, time.Now())

	p = newPod(t, cluster, "full", time.Minute, "PGSIDECAR_MEMORY_LIMIT=4MiB", "PGSIDECAR_MEMORY_ADMISSION=1")
	_, err = p.connect(t.Context())
	require.Equal(t, "53300", sqlState(err))
	require.ErrorContains(t, err, "the share of the memory limit is reached")
	p.signal()
	p.await(cluster, time.Now())
}

func TestRun_cpuThatIsNotThere_isTold(t *testing.T) {
	code, out := call([]string{"run"}, []string{databaseURL, "PGSIDECAR_CPUS=1023"})
	require.Equal(t, exitFailure, code)
	require.Contains(t, out, "run on cpus [1023]: invalid argument; the list has to have some that this process is given")
}
