package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// executable is a program with build information: this test.
func executable(t *testing.T) []byte {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

func TestPublish_sameBytes_areListedAndSummed(t *testing.T) {
	first, second, dist := t.TempDir(), t.TempDir(), t.TempDir()
	content := executable(t)
	for _, dir := range []string{first, second} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "program"), content, 0o600))
	}
	require.NoError(t, publish("program", "v1.2.3", first, second, dist))
	require.NoError(t, writeSums(dist))

	text, err := os.ReadFile(filepath.Join(dist, "program.cdx.json"))
	require.NoError(t, err)
	var have bill
	require.NoError(t, json.Unmarshal(text, &have))
	require.Equal(t, "CycloneDX", have.Format)
	require.Equal(t, "v1.2.3", have.Metadata.Component.Version)
	require.Equal(t, "std", have.Components[0].Name)
	require.Equal(t, strings.TrimPrefix(runtime.Version(), "go"), have.Components[0].Version)

	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	require.NoError(t, err)
	require.Equal(t, sum(content)+"  program\n"+sum(text)+"  program.cdx.json\n", string(sums))
}

func TestPublish_otherBytes_isRefused(t *testing.T) {
	first, second, dist := t.TempDir(), t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(first, "program"), []byte("a"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(second, "program"), []byte("b"), 0o600))
	require.ErrorContains(t, publish("program", "v1", first, second, dist), "the second build has other bytes")
	entries, err := os.ReadDir(dist)
	require.NoError(t, err)
	require.Empty(t, entries)
}

func TestBill_listsModulesAsTheyWereBuilt(t *testing.T) {
	have := newBill(&debug.BuildInfo{
		GoVersion: "go1.26.8", Main: debug.Module{Path: "pgsidecar"},
		Deps: []*debug.Module{
			{Path: "example.com/a", Version: "v1.0.0", Sum: "h1:a="},
			{Path: "example.com/b", Version: "v2.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v2.0.1", Sum: "h1:f="}},
		},
		Settings: []debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}, {Key: "vcs.revision", Value: "abc"}, {Key: "-ldflags", Value: "x"}},
	}, "v9")
	require.Equal(t, []component{
		{Type: "library", Ref: "std", Name: "std", Version: "1.26.8", PURL: "pkg:golang/std@1.26.8"},
		{
			Type: "library", Ref: "example.com/a", Name: "example.com/a", Version: "v1.0.0", PURL: "pkg:golang/example.com/a@v1.0.0",
			Properties: []property{{"go:sum", "h1:a="}},
		},
		{
			Type: "library", Ref: "example.com/fork", Name: "example.com/fork", Version: "v2.0.1", PURL: "pkg:golang/example.com/fork@v2.0.1",
			Properties: []property{{"go:sum", "h1:f="}},
		},
	}, have.Components)
	require.Equal(t, component{
		Type: "application", Ref: "pgsidecar", Name: "pgsidecar", Version: "v9",
		Properties: []property{{"go:build:GOARCH", "arm64"}, {"go:build:vcs.revision", "abc"}},
	}, have.Metadata.Component)
}

func TestPlatforms_eachHasANameOfItsOwn(t *testing.T) {
	names := map[string]bool{}
	for _, p := range platforms() {
		names[p.name("v1")] = true
	}
	require.Equal(t, map[string]bool{"pgsidecar_v1_linux_amd64v1": true, "pgsidecar_v1_linux_amd64v3": true, "pgsidecar_v1_linux_arm64": true}, names)
}
