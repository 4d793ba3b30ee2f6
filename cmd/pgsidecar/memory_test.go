package main

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestCgroupMemory_leastLimitOnTheWayUp(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  int64 // 0: none.
	}{
		"no cgroups": {nil, 0},
		"container, version 2": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "134217728\n",
		}, 134217728},
		"unlimited, version 2": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 0},
		"the group above is tighter": {map[string]string{
			"proc/self/cgroup":             "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "200\n", "sys/fs/cgroup/a/memory.max": "100\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 100},
		"path of the host, which is not there": {map[string]string{
			"proc/self/cgroup": "0::/../kubepods/x\n", "sys/fs/cgroup/memory.max": "300\n",
		}, 300},
		"version 1": {map[string]string{
			"proc/self/cgroup":                             "9:cpu,cpuacct:/x\n4:memory:/y\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   "9223372036854771712\n",
			"sys/fs/cgroup/memory/y/memory.limit_in_bytes": "400\n",
		}, 400},
		"unlimited, version 1": {map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 0},
		"garbage": {map[string]string{"proc/self/cgroup": "x\n0::/\n", "sys/fs/cgroup/memory.max": "-5"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{}
			for file, text := range test.files {
				root[file] = &fstest.MapFile{Data: []byte(text)}
			}
			limit, ok := cgroupMemory(root)
			require.Equal(t, test.want != 0, ok)
			if ok {
				require.Equal(t, test.want, limit)
			}
		})
	}
}
