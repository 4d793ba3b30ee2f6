package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"pgsidecar/internal/pgcluster"
)

// tests are PostgreSQL's tests, and the server that they belong to.
type tests struct {
	version string
	server  pgcluster.Installation
	dir     string // regress and isolation of src/test
}

// findTests gets the tests; the first time that takes a while.
func findTests(ctx context.Context, o options, stderr io.Writer) (tests, error) {
	cmd := exec.CommandContext(ctx, "internal/regress/suite.sh", strconv.Itoa(o.major), o.version)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return tests{}, fmt.Errorf("get PostgreSQL's tests: %w", err)
	}
	bin, dir, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	version, err := exec.CommandContext(ctx, filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		return tests{}, fmt.Errorf("ask version of PostgreSQL: %w", err)
	}
	text := strings.TrimPrefix(strings.TrimSpace(string(version)), "postgres (PostgreSQL) ")
	return tests{
		version: text,
		server:  pgcluster.Installation{Major: o.major, Version: text, Bin: bin},
		dir:     dir,
	}, nil
}

// run runs a suite, or some of its tests, against a port on loopback, and leaves everything in dir.
func (t *tests) run(ctx context.Context, l leg, port int, dir string, only []string) (results, error) {
	program := map[string]string{"regress": "pg_regress", "isolation": "pg_isolation_regress"}[l.suite]
	input := filepath.Join(t.dir, l.suite)
	args := []string{
		"--bindir=" + t.server.Bin, "--inputdir=" + input, "--outputdir=" + dir, "--dlpath=" + filepath.Join(t.dir, "regress"),
		"--use-existing", "--dbname=" + databaseOf(l.suite), "--host=127.0.0.1", "--port=" + strconv.Itoa(port), "--user=" + pgcluster.Superuser,
		"--max-concurrent-tests=20",
	}
	if t.server.Major >= 16 {
		args = append(args, "--expecteddir="+input)
	}
	if l.order == "serial" {
		args = append(args, "--max-connections=1")
	}
	switch {
	case len(only) == 0:
		schedule := map[string]string{"regress": "parallel_schedule", "isolation": "isolation_schedule"}[l.suite]
		args = append(args, "--schedule="+filepath.Join(input, schedule))
	case l.suite == "regress":
		args = append(args, "test_setup")
		fallthrough
	default:
		args = append(args, only...)
	}
	log, err := os.Create(filepath.Join(dir, "output"))
	if err != nil {
		return results{}, fmt.Errorf("make log: %w", err)
	}
	defer func() { _ = log.Close() }() // What was not written will be missed by parseResults.
	cmd := exec.CommandContext(ctx, filepath.Join(t.server.Bin, "../lib/pgxs/src/test", l.suite, program), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = withoutPostgreSQL(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // its psql processes too
	failure := cmd.Run()
	if ctx.Err() != nil {
		return results{}, fmt.Errorf("run %s: %w", program, context.Cause(ctx))
	}
	done, err := readResults(dir)
	switch {
	case err != nil:
		return results{}, err
	case done.count() == 0:
		return results{}, fmt.Errorf("run %s: %w; %s says more", program, errors.Join(failure, errors.New("it has run no test")), log.Name())
	}
	return done, nil
}

// withoutPostgreSQL leaves out what would change what libpq does, or where the programs write.
func withoutPostgreSQL(environ []string) []string {
	kept := make([]string, 0, len(environ))
	for _, variable := range environ {
		if !strings.HasPrefix(variable, "PG") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// results are the tests of one run.
type results struct {
	dir            string
	passed, failed []string
	leaks          string // of the proxy, as its metric says
}

func (r *results) count() int { return len(r.passed) + len(r.failed) }

// readResults reads what pg_regress has printed.
func readResults(dir string) (results, error) {
	file, err := os.Open(filepath.Join(dir, "output"))
	if err != nil {
		return results{}, fmt.Errorf("read output: %w", err)
	}
	defer func() { _ = file.Close() }() // It was only read.
	r := results{dir: dir}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if name, ok := parsePassed(lines.Text()); ok {
			r.passed = append(r.passed, name)
		}
		if name, ok := parseFailed(lines.Text()); ok {
			r.failed = append(r.failed, name)
		}
	}
	if err := lines.Err(); err != nil {
		return results{}, fmt.Errorf("read output: %w", err)
	}
	return r, nil
}

func parsePassed(line string) (test string, ok bool) { return parseLine(line, "ok") }

func parseFailed(line string) (test string, ok bool) {
	if test, ok = parseLine(line, "FAILED"); ok {
		return test, true
	}
	return parseLine(line, "not ok")
}

// parseLine reads a line of a test with a certain outcome: "test name ... ok 12 ms", and the same without the word test
// in a parallel group, up to PostgreSQL 15; "ok 3 - name 12 ms", with + for - in a parallel group, since then.
func parseLine(line, outcome string) (test string, ok bool) {
	if before, after, found := strings.Cut(line, " ... "); found {
		name := strings.TrimSpace(strings.TrimPrefix(before, "test "))
		return name, strings.HasPrefix(after, outcome)
	}
	rest, found := strings.CutPrefix(line, outcome+" ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 3 || (fields[1] != "-" && fields[1] != "+") {
		return "", false
	}
	return fields[2], true
}

// saveDiff puts the diff of a failed test into a file of its own and returns its path.
func (r *results) saveDiff(test string) (string, error) {
	path := filepath.Join(r.dir, "regression.diffs")
	all, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read differences: %w", err)
	}
	for one := range strings.SplitSeq("\n"+string(all), "\ndiff ") {
		head, _, _ := strings.Cut(one, "\n")
		if !strings.HasSuffix(head, "/"+test+".out") {
			continue
		}
		path = filepath.Join(r.dir, test+".diff")
		if err := os.WriteFile(path, []byte("diff "+strings.TrimSuffix(one, "\n")+"\n"), 0o644); err != nil {
			return "", fmt.Errorf("write difference: %w", err)
		}
		break
	}
	return path, nil
}
