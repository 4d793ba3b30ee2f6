package compat_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// jsDrivers are drivers and object-relational mappers for Node.js.
func jsDrivers() []driver {
	postgres := jsDriver("postgres.js", "drivers", "postgres", situations)
	postgres.differs = oldColumns
	return []driver{
		jsDriver("node-postgres", "drivers", "pg", situations),
		postgres,
		jsDriver("Sequelize", "mappers", "sequelize", mapperSituations),
		jsDriver("Knex", "mappers", "knex", mapperSituations),
		jsDriver("Drizzle", "mappers", "drizzle-orm", mapperSituations),
		jsDriver("TypeORM", "mappers", "typeorm", mapperSituations),
	}
}

// jsDriver is played with what scripts/deps.sh has put into the directory from.
func jsDriver(name, from, module string, situations []string) driver {
	nodeModules := filepath.Join("../../.local/node", from, "node_modules")
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
			return runProgram(t, at, situations, []string{"NODE_PATH=" + modules}, "node", "js/with_"+strings.TrimSuffix(module, "-orm")+".js")
		},
	}
}
