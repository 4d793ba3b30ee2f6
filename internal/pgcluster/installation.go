package pgcluster

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Installation is a directory with PostgreSQL's programs, initdb and postgres at least.
type Installation struct {
	Major   int    // 15, 17, 18 ...
	Version string // as `postgres --version` prints it: "15.18 (Debian 15.18-0+deb12u1)"
	Bin     string // absolute path of the directory
}

// Program is the path of one of the installation's programs. The error says which installation lacks it.
func (i Installation) Program(name string) (string, error) {
	path := filepath.Join(i.Bin, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find %s of PostgreSQL %d: %w", name, i.Major, err)
	}
	return path, nil
}

// Installations finds the installed PostgreSQL servers, one a major version, in ascending order. Where one version is found
// more than once, the first of these wins: the directory that PGSIDECAR_TEST_PG<major> names, Debian's layout, that of
// Red Hat's packages, the PATH, and <root>/.local/pg/<major>/bin, which `make deps` fills. An empty root means that
// there is no such directory.
func Installations(root string) []Installation {
	var found []Installation
	for _, dir := range candidates(root) {
		inst, err := inspect(dir)
		if err != nil {
			continue // Not an installation: the candidates are guesses.
		}
		if !slices.ContainsFunc(found, func(f Installation) bool { return f.Major == inst.Major }) {
			found = append(found, inst)
		}
	}
	slices.SortFunc(found, func(a, b Installation) int { return cmp.Compare(a.Major, b.Major) })
	return found
}

// Newest is the installation of the highest major version.
func Newest(installations []Installation) (Installation, bool) {
	if len(installations) == 0 {
		return Installation{}, false
	}
	return slices.MaxFunc(installations, func(a, b Installation) int { return cmp.Compare(a.Major, b.Major) }), true
}

// candidates lists the directories that may hold an installation, in order of preference.
func candidates(root string) []string {
	var dirs []string
	for major := 13; major <= 30; major++ {
		if dir := os.Getenv(fmt.Sprintf("PGSIDECAR_TEST_PG%d", major)); dir != "" {
			dirs = append(dirs, dir)
		}
	}
	patterns := []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"}
	if root != "" {
		patterns = append(patterns, filepath.Join(root, ".local/pg/*/bin"))
	}
	for i, pattern := range patterns {
		if i == 2 {
			dirs = append(dirs, onPath()...)
		}
		matches, err := filepath.Glob(pattern)
		if err == nil {
			dirs = append(dirs, matches...)
		}
	}
	return dirs
}

// onPath is the directory of the postgres that a shell would run, if any. A link on the PATH is followed, because the
// programs beside the link need not all be there.
func onPath() []string {
	path, err := exec.LookPath("postgres")
	if err != nil {
		return nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	return []string{filepath.Dir(target)}
}

// inspect asks the postgres in dir for its version.
func inspect(dir string) (Installation, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Installation{}, fmt.Errorf("resolve directory: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return Installation{}, fmt.Errorf("find initdb: %w", err)
	}
	//nolint:noctx // It prints a line and ends.
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Installation{}, fmt.Errorf("ask version of PostgreSQL: %w", err)
	}
	match := regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+).*)`).FindSubmatch(out)
	if match == nil {
		return Installation{}, fmt.Errorf("parse version of PostgreSQL: %q", out)
	}
	major, err := strconv.Atoi(string(match[2]))
	if err != nil {
		return Installation{}, fmt.Errorf("parse version of PostgreSQL: %w", err)
	}
	return Installation{Major: major, Version: string(match[1]), Bin: dir}, nil
}
