package compat_test

import (
	"slices"
	"testing"
)

// librarySituations are for clients on libpq, which are alike in what they send; what their languages make of it differs.
var librarySituations = []string{
	"driver", "connect", "tls", "wrong password", "types", "nulls", "unicode", "big values", "prepared", "equal names", "transaction",
	"errors", "notices", "copy in", "copy out", "failed copy", "cancel", "notify", "settings", "reset", "terminated",
}

// mapperSituations are for object-relational mappers, in an order in which each finds what the ones before have made.
var mapperSituations = []string{
	"driver", "connect", "tls", "migration", "create", "read", "transaction", "errors", "many rows", "settings", "pool",
}

// packaged is a driver that comes as Debian's packages, together with the interpreter that its program needs.
type packaged struct {
	name       string
	situations []string
	packages   string
	load       []string // a command that succeeds where the driver is installed
	program    []string
}

// otherDrivers are clients on libpq in further languages, and object-relational mappers.
func otherDrivers() []driver {
	all := []packaged{
		{
			"ruby-pg", slices.Concat(librarySituations, []string{"pipeline", "deferred constraint", "several results", "many rows"}),
			"ruby-pg",
			[]string{"ruby", "-e", `require "pg"`},
			[]string{"ruby", "ruby/with_pg.rb"},
		},
		{
			"DBD::Pg", librarySituations,
			"libdbd-pg-perl",
			[]string{"perl", "-MDBD::Pg", "-e1"},
			[]string{"perl", "perl/with_dbdpg.pl"},
		},
		{
			"PHP", slices.Concat(librarySituations, []string{"cursor"}),
			"php-cli and php-pgsql",
			[]string{"php", "-r", `exit(extension_loaded("pgsql") && extension_loaded("pdo_pgsql") ? 0 : 1);`},
			[]string{"php", "php/with_pdo.php"},
		},
		{
			"ActiveRecord", slices.Concat(mapperSituations, []string{"prepared", "reset", "schema change"}),
			"ruby-activerecord and ruby-pg",
			[]string{"ruby", "-e", `require "active_record"; require "pg"`},
			[]string{"ruby", "ruby/with_activerecord.rb"},
		},
		{
			"SQLAlchemy", slices.Concat(mapperSituations, []string{"read only"}),
			"python3-sqlalchemy and python3-psycopg2",
			[]string{debianPython, "-c", "import sqlalchemy, psycopg2"},
			[]string{debianPython, "-B", "-W", "ignore", "python/with_sqlalchemy.py"},
		},
		{
			"Django", slices.Concat(mapperSituations, []string{"reset"}),
			"python3-django and python3-psycopg2",
			[]string{debianPython, "-c", "import django, psycopg2"},
			[]string{debianPython, "-B", "python/with_django.py"},
		},
	}
	drivers := make([]driver, 0, len(all))
	for _, p := range all {
		drivers = append(drivers, p.driver())
	}
	return drivers
}

func (p packaged) driver() driver {
	return driver{
		name:       p.name,
		situations: p.situations,
		missing: func(t *testing.T) string {
			if succeeds(t, p.load[0], p.load[1:]...) {
				return ""
			}
			return p.name + " is missing: run `make deps`, or install Debian's " + p.packages
		},
		run: func(t *testing.T, at target) []step {
			return runProgram(t, at, p.situations, nil, p.program[0], p.program[1:]...)
		},
	}
}
