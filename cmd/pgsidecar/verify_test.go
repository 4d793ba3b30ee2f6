package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgcluster"
	"pgsidecar/internal/pgtest"
	"pgsidecar/internal/verify"
)

// TestVerify_realProxy_beforeAndAfter runs verify as a pipeline would: base line, change, comparison.
func TestVerify_realProxy_beforeAndAfter(t *testing.T) {
	cluster := pgtest.Shared(t, 0)
	url := "DATABASE_URL=" + cluster.URL("postgres", pgcluster.Superuser)
	r := start(t, openProxy, "pool: {max_connections: 3}", url)
	require.Eventually(t, func() bool {
		code, _ := r.ask("health")
		return code == exitOK
	}, time.Minute, 10*time.Millisecond)
	verifying := func(args ...string) (int, string) {
		return call(append([]string{"verify", "--http", r.socket, "--leftover-age", "1h"}, args...), []string{url})
	}
	work := func(n int) {
		conn, err := pgx.Connect(t.Context(), "host="+filepath.Dir(r.socket)+" port=6432 user="+pgcluster.Superuser+" dbname=postgres")
		require.NoError(t, err)
		for range n {
			_, err := conn.Exec(t.Context(), "select 1")
			require.NoError(t, err)
		}
		require.NoError(t, conn.Close(t.Context()))
	}
	base := filepath.Join(t.TempDir(), "base.json")
	working := func(args ...string) (int, string) { // As it goes on while verify measures.
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					work(50)
				}
			}
		}()
		defer func() { close(stop); <-stopped }()
		return verifying(args...)
	}
	code, out := working("--save", base, "--window", "3s")
	require.Equal(t, exitOK, code, out)
	require.Regexp(t, `(?m)^ok       transaction  `+r.socket+` +committed on system`, out)
	code, out = working("--baseline", base, "--window", "3s", "--tolerance", "10000", "--want-version", build().Version)
	require.Equal(t, exitOK, code, out)

	code, out = verifying("--baseline", base, "--window", "0s")
	require.Equal(t, exitUnsure, code, out)
	require.Contains(t, out, "pgsidecar: verify: 2 could not be checked, ")

	code, out = verifying("--want-version", "9.9", "--json")
	require.Equal(t, exitFailure, code, out)
	var report struct {
		Outcome verify.Outcome
		Results []verify.Result
	}
	require.NoError(t, json.NewDecoder(strings.NewReader(out)).Decode(&report))
	require.Equal(t, verify.Failed, report.Outcome)
	require.Equal(t, verify.Result{
		Check: verify.CheckVersion, Subject: r.socket, Outcome: verify.Failed, Found: build().Version + " instead of 9.9",
		Cure: "wait until the rollout is through, or name the ones to check; --want-version says which one it has to be",
	}, report.Results[1])

	other := filepath.Join(t.TempDir(), "other.json")
	code, _ = verifying("--want-version", "9.9", "--save", other, "--window", "0s")
	require.Equal(t, exitFailure, code)
	require.NoFileExists(t, other, "what fails is no base line")
	r.signals <- syscall.SIGTERM
	r.end(exitOK)
}

func TestVerify_wrongFlags_areUsage(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage")
	require.NoError(t, os.WriteFile(garbage, []byte("x"), 0o600))
	for args, text := range map[string]string{
		"--from x":              "--from and --to belong together",
		"--tables":              "--from and --to belong together",
		"--skip nonsense":       `there is no check "nonsense" to skip: write some of [proxy version`,
		"--tolerance -1":        "--tolerance cannot be less than 0",
		"--baseline " + garbage: "read base line",
	} {
		code, out := call(append([]string{"verify"}, strings.Fields(args)...), nil)
		require.Equal(t, exitUsage, code, out)
		require.Contains(t, out, text)
	}
}

func TestVerify_nobodyThere_fails(t *testing.T) {
	code, out := call([]string{"verify", "--http", "127.0.0.1:1"}, nil)
	require.Equal(t, exitFailure, code)
	require.Regexp(t, `(?m)^FAILED   proxy        127.0.0.1:1  ask the proxy on 127.0.0.1:1: connection refused`, out)
	require.Contains(t, out, "         to do: see whether it runs, and its log\n")
}

func TestVerify_binaryAlone_asksNoProxy(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "old")
	require.NoError(t, os.WriteFile(binary, []byte("#!/bin/sh\nexit 0\n"), 0o700))
	code, out := call([]string{"verify", "--binary", binary}, nil)
	require.Equal(t, exitOK, code, out)
	require.Len(t, lines(out), 1)
}
