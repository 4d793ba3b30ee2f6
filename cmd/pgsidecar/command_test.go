package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
)

func TestCommands_exitCodesAndWords(t *testing.T) {
	for _, test := range []struct {
		args string
		want int
		text string
	}{
		{"--help", exitOK, "Usage: pgsidecar [command] [flags]"},
		{"-h", exitOK, "Exit codes: 0 done"},
		{"help", exitOK, "Commands:"},
		{"help check", exitOK, "Usage: pgsidecar check [flags]"},
		{"help nothing", exitUsage, `there is no command "nothing"`},
		{"version", exitOK, "pgsidecar "},
		{"--version", exitOK, "pgsidecar "},
		{"chek", exitUsage, `there is no command "chek": write one of run, check, status, health, drain, switchover, verify, version`},
		{"check extra", exitUsage, `check takes no argument "extra"; see pgsidecar check --help`},
		{"--nothing", exitUsage, "flag provided but not defined: -nothing; see pgsidecar run --help"},
		{"run", exitUsage, "upstream.url: is not set"},
		{"", exitUsage, "upstream.url: is not set"},
		{"run --config /nowhere", exitUsage, "/nowhere: does not exist"},
		{"check", exitUsage, "upstream.url: is not set"},
		{"health --http 127.0.0.1:1", exitFailure, "ask the proxy on 127.0.0.1:1: connection refused; is it running"},
		{"status --http /nowhere/http", exitFailure, "no such file or directory"},
		{"drain --http not-an-address", exitFailure, "not-an-address"},
	} {
		code, out := call(strings.Fields(test.args), nil)
		require.Equal(t, test.want, code, "%s: %s", test.args, out)
		require.Contains(t, out, test.text, test.args)
	}
}

func TestCommands_eachHasHelpWithAnExample(t *testing.T) {
	for _, c := range commands() {
		code, out := call([]string{c.name, "--help"}, nil)
		require.Equal(t, exitOK, code)
		require.Contains(t, out, "Usage: pgsidecar "+c.name)
		if c.name != "version" {
			require.Contains(t, out, "Example")
		}
	}
}

func TestCheck_printsWhatIsInEffectWithoutSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pgsidecar.yaml")
	require.NoError(t, os.WriteFile(file, []byte("pool:\n  max_connections: 3\n"), 0o600))
	code, out := call([]string{"check"}, []string{databaseURL, config.FileVariable + "=" + file})
	require.Equal(t, exitOK, code, out)
	require.Contains(t, out, "max_connections: 3 # "+file+":2\n")
	require.Contains(t, out, "url: postgres://app:xxxxx@127.0.0.1:1/app # DATABASE_URL\n")
	require.NotContains(t, out, "secret@")
}

func TestCheck_faults_areAllTold(t *testing.T) {
	code, out := call([]string{"check"}, []string{databaseURL, "PGSIDECAR_POOL_MODE=x", "PGSIDECAR_LOOPS=y"})
	require.Equal(t, exitUsage, code)
	require.Len(t, lines(out), 3)
	require.Contains(t, out, "\nPGSIDECAR_LOOPS: \"y\" is not a whole number")
	require.Contains(t, out, "\nPGSIDECAR_POOL_MODE: \"x\" is not known here")
}

func TestCheck_usersFile_isRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users.txt")
	require.NoError(t, os.WriteFile(file, []byte("alice secret\n"), 0o600))
	code, out := call([]string{"check"}, []string{databaseURL, "PGSIDECAR_CLIENT_AUTH_USERS_FILE=" + file})
	require.Equal(t, exitUsage, code)
	require.Contains(t, out, file+":1: ")
	require.NotContains(t, out, "alice secret")
}

func TestExamples_eachPassesCheck(t *testing.T) {
	files, err := filepath.Glob("../../configs/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		code, out := call([]string{"check", "--config", file}, []string{databaseURL})
		require.Equal(t, exitOK, code, out)
	}
}
