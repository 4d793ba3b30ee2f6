package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What pg_regress of PostgreSQL 15 prints, and that of 16 and later.
func TestResults_ofBothForms_areRead(t *testing.T) {
	for name, output := range map[string]string{
		"15": `(using postmaster on 127.0.0.1, port 5432)
============== running regression test queries        ==============
test test_setup                   ... ok          303 ms
parallel group (3 tests):  boolean char name
     boolean                      ... ok           45 ms
     char                         ... FAILED       46 ms
     name                         ... failed (ignored)       47 ms
test stats                        ... FAILED (test process exited with exit code 2)     9 ms

========================
 2 of 4 tests failed.
========================
`,
		"18": `# using postmaster on 127.0.0.1, port 5432
ok 1         - test_setup                                303 ms
# parallel group (2 tests):  boolean char
ok 2         + boolean                                    45 ms
not ok 3     + char                                       46 ms
not ok 4     - stats                                       9 ms
1..4
# 2 of 4 tests failed.
`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "output"), []byte(output), 0o600))
			r, err := readResults(dir)
			require.NoError(t, err)
			require.Equal(t, []string{"test_setup", "boolean"}, r.passed)
			require.Equal(t, []string{"char", "stats"}, r.failed)
		})
	}
}

func TestResults_diffOfOneTest_isCutOut(t *testing.T) {
	dir := t.TempDir()
	const one, other = "diff -U3 /a/expected/char.out /b/results/char.out\n-1\n+2\n", "diff -U3 /a/expected/varchar.out /b/results/varchar.out\n-3\n+4\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "regression.diffs"), []byte(other+one), 0o600))
	r := results{dir: dir}
	path, err := r.saveDiff("char")
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, one, string(content))
}

func TestFlags_chooseWhatIsRun(t *testing.T) {
	for _, row := range []struct {
		flags []string
		want  []leg
	}{
		{[]string{"-mode", "transaction", "-serial"}, []leg{{"regress", "transaction", "serial"}}},
		{[]string{"-suite", "isolation"}, []leg{{"isolation", "session", "serial"}}},
		{[]string{"-suite", "isolation", "-mode", "transaction"}, nil},
		{[]string{"-parallel"}, []leg{{"regress", "transaction", "parallel"}, {"regress", "session", "parallel"}}},
	} {
		o, err := parseFlags(row.flags, io.Discard)
		require.NoError(t, err)
		require.Equal(t, row.want, o.legs(), "%v", row.flags)
	}
	all, err := parseFlags(nil, io.Discard)
	require.NoError(t, err)
	require.Len(t, all.legs(), 5)
}

func TestCompare_onlyKnownDifferencesAreForgiven(t *testing.T) {
	c := course{out: io.Discard}
	l := leg{"regress", "transaction", "serial"}
	direct := results{passed: []string{"char", "stats", "guc"}, failed: []string{"collate"}}
	for _, row := range []struct {
		through results
		want    bool
	}{
		{results{passed: []string{"char", "guc"}, failed: []string{"stats", "collate"}, leaks: "0"}, false},
		{results{passed: []string{"stats", "guc"}, failed: []string{"char"}, leaks: "0"}, true},
		{results{passed: []string{"char", "stats"}, leaks: "0"}, false},
		{results{passed: []string{"char", "stats", "guc"}, leaks: "2"}, true},
	} {
		row.through.dir = t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(row.through.dir, "regression.diffs"), nil, 0o600))
		unknown, err := c.compare(l, direct, row.through)
		require.NoError(t, err)
		require.Equal(t, row.want, unknown, "%v", row.through)
	}
	_, ok := knownDifference(leg{"regress", "session", "serial"}, "stats")
	require.False(t, ok)
}
