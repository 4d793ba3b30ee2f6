package state

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestOutline_valuesCommentsAndLinesAreLeftOut(t *testing.T) {
	for sql, want := range map[string]string{
		"":         "",
		"select 1": "select ?",
		"create temp table t as\n\tselect 'secret' as x -- why\n;":    "create temp table t as select ? as x ;",
		"select f('a', -1, $1, 0xDEAD, 1e9, 1_000) /* x */":           "select f(?, -?, $1, ?, ...)",
		"select pg_advisory_lock(12, 34), 5, x, 6":                    "select pg_advisory_lock(?, ...), ?, x, ?",
		"DO $body$ begin raise 'secret'; end $body$ LANGUAGE plpgsql": "DO ? LANGUAGE plpgsql",
		`select E'it\'s secret', U&'\0041', B'01', x'1F', "Name"`:     `select ?, ..., "Name"`,
		"select * from t where a in (1,2,3,4) and b='x''y'":           "select * from t where a in (?, ...) and b=?",
		"select \"a\nb\x1b\", 1":                                      `select "a b ", ?`,
		"create temp table t (a int default 'unfinished":              "create temp table t (a int default ...",
		"select 1 /* unfinished":                                      "select ? ...",
		// What is a constant depends on standard_conforming_strings, and both ways make sense.
		`select '\', 'x', '' -- '`: "select ...",
		"select '\xff', \xff":      "select ?, ?",
	} {
		require.Equal(t, want, Outline([]byte(sql), 1000), sql)
	}
}

func TestOutline_long_isCutAtACharacter(t *testing.T) {
	for limit := range 12 {
		out := Outline([]byte(`select "ÄÖÜ" from t`), limit)
		require.True(t, utf8.ValidString(out), "%q", out)
		require.LessOrEqual(t, len(out), limit+len(ellipsis))
		require.True(t, strings.HasSuffix(out, ellipsis), out)
	}
}

func TestFingerprint_textsThatDifferInConstantsAndLooksShareIt(t *testing.T) {
	same := Fingerprint([]byte("create temp table t as select 'x'"))
	require.Equal(t, same, Fingerprint([]byte("CREATE  TEMP TABLE t AS\n select 'y' -- z")))
	require.NotEqual(t, same, Fingerprint([]byte("create temp table u as select 'x'")))
}
