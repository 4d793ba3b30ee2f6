package config_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
)

// The reference is written by the test that checks it, so that no second program has to know how.
//go:generate go test -run TestReference_fileInRepository -args -update

const (
	configs   = "../../configs"
	reference = configs + "/reference.yaml"
)

var update = flag.Bool("update", false, "write configs/reference.yaml")

func TestReference_fileInRepository_isCurrent(t *testing.T) {
	if *update {
		require.NoError(t, os.WriteFile(reference, config.Reference(), 0o644))
	}
	have, err := os.ReadFile(reference)
	require.NoError(t, err)
	require.Equal(t, string(config.Reference()), string(have), "run go generate ./internal/config")
}

func TestReference_loaded_isTheDefault(t *testing.T) {
	have, _, err := config.Load(reference, []string{"DATABASE_URL=postgres://app:secret@db/app"})
	require.NoError(t, err)
	want := config.Default()
	want.Upstream.URL = "postgres://app:secret@db/app"
	want.Databases, want.Users = map[string]config.Database{}, map[string]config.User{}
	require.Equal(t, want, have)
}

func TestExamples_eachLoads(t *testing.T) {
	files, err := filepath.Glob(configs + "/*.yaml")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 4)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, _, err := config.Load(file, []string{"DATABASE_URL=postgres://app:secret@db/app"})
			require.NoError(t, err)
		})
	}
}

func TestReference_keptShort(t *testing.T) {
	for line := range strings.Lines(string(config.Reference())) {
		require.LessOrEqual(t, len(line), 125, line)
	}
}
