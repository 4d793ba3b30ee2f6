package compat_test

import "testing"

// debianPython is the interpreter that Debian's packages belong to. Another one may come first on the PATH.
const debianPython = "/usr/bin/python3"

func pythonDrivers() []driver {
	return []driver{
		pythonDriver("psycopg 3", "psycopg", "with_psycopg.py"),
		pythonDriver("psycopg2", "psycopg2", "with_psycopg2.py"),
		asyncpg(),
	}
}

func asyncpg() driver {
	d := pythonDriver("asyncpg", "asyncpg", "with_asyncpg.py")
	d.differs = oldColumns
	return d
}

func pythonDriver(name, module, program string) driver {
	return driver{
		name:       name,
		situations: situations,
		missing: func(t *testing.T) string {
			if succeeds(t, debianPython, "-c", "import "+module) {
				return ""
			}
			return debianPython + " has no module " + module + ": run `make deps`, or install Debian's python3-" + module
		},
		run: func(t *testing.T, at target) []step {
			return runProgram(t, at, situations, []string{"PYTHONDONTWRITEBYTECODE=1"}, debianPython, "python/"+program)
		},
	}
}
