package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/pgtest"
)

// A setting that a client may set, and that is replayable by our table, must be settable by Diff on a server in use.
func TestReplayable_settingsOfEveryServer_areSettable(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		s := dial(t, c, "postgres", pgtest.Superuser)
		in := NewInterner()
		for _, row := range s.run(`SELECT name, setting, context FROM pg_catalog.pg_settings ORDER BY 1`) {
			name, value, context := row[0], row[1], row[2]
			switch context {
			case "backend", "superuser-backend":
				require.False(t, Replayable(name), name)
			case "user", "superuser":
				if Replayable(name) {
					s.run(string(Diff(nil, in.Intern([]Setting{{name, value}}))))
				}
			}
		}
	})
}

func TestReplayable_namesThatSQLCannotSpellSafely_areNot(t *testing.T) {
	for name, want := range map[string]bool{
		"app.user_id": true, "App.User": true, "DateStyle": true, "role": true, "a.b.c": true,
		"app." + strings.Repeat("x", 63): true, "app." + strings.Repeat("x", 64): false,
		"app.é": false, "": false, "app.": false, ".x": false,
		"Is_Superuser": false, "transaction_isolation": false, "seed": false,
	} {
		require.Equal(t, want, Replayable(name), name)
	}
}

// A setting whose elements SET would quote, and that our table does not know, would get another value from Diff.
func TestQuotesList_settingsOfEveryServer_areKnown(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		s := dial(t, c, "postgres", pgtest.Superuser)
		seen := 0
		for _, row := range s.run(`SELECT name FROM pg_catalog.pg_settings WHERE vartype = 'string' AND context IN ('user', 'superuser')`) {
			name := row[0]
			if _, err := s.try(fmt.Sprintf(`SET "%s" TO 'a, b'`, name)); err != nil {
				continue
			}
			quoted := s.value(fmt.Sprintf("SELECT pg_catalog.current_setting('%s')", name)) == `"a, b"`
			require.Equal(t, quotesList(name), quoted, name)
			if quoted {
				seen++
			}
		}
		require.Positive(t, seen)
	})
}
