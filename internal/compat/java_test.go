package compat_test

import (
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// pgjdbcJar is where Debian's package and others put the driver.
const pgjdbcJar = "/usr/share/java/postgresql.jar"

func javaDrivers() []driver {
	var classes string
	var compiled sync.Once
	return []driver{{
		name:       "pgjdbc",
		situations: situations,
		differs:    oldColumns,
		missing: func(t *testing.T) string {
			if _, err := os.Stat(pgjdbcJar); err != nil || !succeeds(t, "javac", "-version") {
				return "a JDK or " + pgjdbcJar + " is missing: run `make deps`, or install Debian's default-jdk-headless and libpostgresql-jdbc-java"
			}
			return ""
		},
		run: func(t *testing.T, at target) []step {
			compiled.Do(func() { classes = compileJava(t) })
			// Three short lives are cheaper without the better compiler, and with one thread to collect garbage.
			args := []string{"-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", pgjdbcJar + ":" + classes, "Pgjdbc"}
			return runProgram(t, at, situations, nil, "java", append(args, situations...)...)
		},
	}}
}

// compileJava returns the directory of the program's classes, which lasts as long as the test that needs it first: the one
// that all runs of the driver belong to.
func compileJava(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "javac", "-cp", pgjdbcJar, "-d", dir, "java/Pgjdbc.java").CombinedOutput()
	require.NoError(t, err, string(out))
	return dir
}
