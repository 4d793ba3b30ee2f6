package compat_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// nodeModules is where scripts/deps.sh puts the drivers.
const nodeModules = "../../.local/node/drivers/node_modules"

func jsDrivers() []driver {
	postgres := jsDriver("postgres.js", "postgres")
	postgres.differs = oldColumns
	return []driver{jsDriver("node-postgres", "pg"), postgres}
}

func jsDriver(name, module string) driver {
	return driver{
		name:       name,
		situations: situations,
		missing: func(t *testing.T) string {
			if _, err := os.Stat(filepath.Join(nodeModules, module)); err != nil || !succeeds(t, "node", "--version") {
				return "Node.js or its module " + module + " is missing: install Node.js with npm, and run `make deps`"
			}
			return ""
		},
		run: func(t *testing.T, at target) []step {
			modules, err := filepath.Abs(nodeModules)
			require.NoError(t, err)
			return runProgram(t, at, situations, []string{"NODE_PATH=" + modules}, "node", "js/with_"+module+".js")
		},
	}
}
