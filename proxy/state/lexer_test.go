package state

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"pgsidecar/internal/pgtest"
)

// tokens cuts a text and writes each token between bars.
func tokens(sql string, escapes bool) string {
	l := lexer{src: []byte(sql), escapes: escapes}
	var b strings.Builder
	for {
		switch l.next() {
		case end:
			return b.String()
		case broken:
			return b.String() + "!"
		}
		b.WriteString(string(l.bytes()) + "|")
	}
}

func TestLexer_tokens_areThoseOfPostgreSQL(t *testing.T) {
	for sql, want := range map[string]string{
		"a.b(c)":                    "a|.|b|(|c|)|",
		"a$1$b":                     "a$1$b|",
		"été_1 x":                   "été_1|x|",
		"x--c\ny-1":                 "x|y|-|1|",
		"x--c\ry":                   "x|y|",
		"x/*a/*b*/'*/y":             "x|y|",
		"x/*/y*/z":                  "x|z|",
		"x/**/y":                    "x|y|",
		"x/* y":                     "x|!",
		"a<--b":                     "a|<|",
		"a*/b":                      "a|*|/|b|",
		"1.5e-3":                    "1.5|e|-|3|",
		"a::int":                    "a|::|int|",
		"a[1:2]":                    "a|[|1|:|2|]|",
		"'a''b'c":                   "'a''b'|c|",
		`'a\'b`:                     `'a\'|b|`,
		`E'a\'b'c`:                  `E'a\'b'|c|`,
		`e'\\'c`:                    `e'\\'|c|`,
		`fe'\'c`:                    `fe|'\'|c|`,
		"E'a'\n'\\'b'c":             "E'a'\n'\\'b'|c|",
		"E'a' -- x\n --y\n '\\'b'c": "E'a' -- x\n --y\n '\\'b'|c|",
		`E'a' '\'b`:                 `E'a'|'\'|b|`,
		"E'a' /*\n*/ '\\'b":         "E'a'|'\\'|b|",
		`B'\'c`:                     `B'\'|c|`,
		`x'\'c`:                     `x'\'|c|`,
		`N'\'c`:                     `N|'\'|c|`,
		`U&'\'c`:                    `U&'\'|c|`,
		`u&"a""b"c`:                 `u&"a""b"|c|`,
		"u&x":                       "u|&|x|",
		`"a""b".c`:                  `"a""b"|.|c|`,
		`"a`:                        "!",
		"'a":                        "!",
		"E'a\\":                     "!",
		"E'a\\'":                    "!",
		"$$a'$b$$c":                 "$$a'$b$$|c|",
		"$a$ $b$ $$ $A$ $a $a$c":    "$a$ $b$ $$ $A$ $a $a$|c|",
		"$a$ $$a$c":                 "$a$ $$a$|c|",
		"$é$'$é$c":                  "$é$'$é$|c|",
		"$1$$a$$":                   "$1|$$a$$|",
		"$1a$b":                     "$1|a$b|",
		"$a$b":                      "!",
		"$":                         "$|",
		"$a b":                      "$|a|b|",
		"a$$b":                      "a$$b|",
		"1$$'$$b":                   "1|$$'$$|b|",
		"a\x00b":                    "a|\x00|b|",
		" \t\r\n\f\v":               "",
	} {
		require.Equal(t, want, tokens(sql, false), "%q", sql)
	}
	require.Equal(t, `'a\'b'|c|`, tokens(`'a\'b'c`, true))
	require.Equal(t, "'a'\n'\\'b'|c|", tokens("'a'\n'\\'b'c", true))
	require.Equal(t, `B'\'|c|`, tokens(`B'\'c`, true))
}

func TestEffects_constantsThatMayEndInTwoWays_areReadInBoth(t *testing.T) {
	checkEffects(t, []classified{
		{`SELECT 'it\'s'; SET a = 1`, Set},                 // only with backslashes as escapes is this a text at all
		{`SELECT 'C:\'; SET a = 1`, Set},                   // only without
		{`SELECT '\'; SET a = 1; --'`, Set},                // either: one of them sets
		{`SELECT '\', set_config('a','b',false) --'`, Set}, // either
		{`SELECT a LIKE '%\_%' ESCAPE '\' FROM t`, 0},      // only without
		{`SELECT '\\', 1`, 0},                              // the same in both
		{`SELECT '\'`, 0},                                  // only without
		{`SELECT '\', '\', '\'; LISTEN x`, Listen},         // only without
		{`SELECT '\`, Unknown},                             // neither
		{`SELECT E'\'; SET a = 1; --'`, 0},                 // a constant that says how it is meant
		{"SELECT E'\x83\\'; SET a = 1; --'", Unknown},      // ends, in SJIS, where it does not in UTF8
		{"SELECT $\x83\x7c$ ' $\x83\x7c$; SET a = 1 --'", Unknown},
		{"SELECT '\\', $\x83\x7c$$\x83\x7c$; SET a = 1 --'", Unknown}, // well-formed without escapes, but in SJIS only
	})
}

// Whatever the server executes has to be in the effects, however it is wrapped.
func TestEffects_anyText_hasWhatTheServerDoes(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		for _, setup := range []string{
			"SET standard_conforming_strings TO on",
			"SET standard_conforming_strings TO off; SET backslash_quote TO on; SET escape_string_warning TO off",
			"SET client_encoding TO SJIS; SET backslash_quote TO on",
			"SET client_encoding TO SJIS; SET standard_conforming_strings TO off; SET escape_string_warning TO off",
		} {
			s := dial(t, c, database, pgtest.Superuser)
			s.run("SET lc_messages TO 'C';" + setup)
			const probe = "SELECT pg_catalog.current_setting('work_mem')"
			before, executed := s.value(probe), 0
			rapid.Check(t, func(r *rapid.T) {
				sql := drawText(r)
				_, _ = s.try(sql) // Most of it is no SQL.
				if s.value(probe) == before {
					return
				}
				executed++
				s.run("RESET work_mem")
				require.True(r, Effects([]byte(sql)).Has(Set|Unknown), "%q does more than %s", sql, names(Effects([]byte(sql))))
			})
			require.Greater(t, executed, 5, setup)
		}
	})
}

// drawText makes texts that are often SQL, and that set work_mem if they are, unless a quote or a comment hides it.
func drawText(r *rapid.T) string {
	piece := rapid.SampledFrom([]string{
		"'", "''", `\`, `\'`, `\\`, `"`, "$$", "$a$", "$", "/*", "*/", "--", "\n", " ", ";", "x", "1", "\x83\\", "\x83|", "SELECT ",
		"SET work_mem TO 1024;",
	})
	inside := rapid.Custom(func(r *rapid.T) string {
		return strings.Join(rapid.SliceOfN(piece, 0, 4).Draw(r, "inside"), "")
	})
	value := rapid.Custom(func(r *rapid.T) string {
		open := rapid.SampledFrom([]string{"'", "E'", "e'", "U&'", "N'", "'", "\"", "$$", "$a$", "$\x83\x5c$", "$x\x83|$", "1/*", "1--", ""}).Draw(r, "open")
		closing := map[string]string{"1/*": "*/", "1--": "\n", "": "1", "$$": "$$", "$a$": "$a$", "\"": "\""}[open]
		switch {
		case open[max(0, len(open)-1):] == "'":
			closing = "'"
		case strings.HasPrefix(open, "$"):
			closing = open
		}
		return open + inside.Draw(r, "inside") + closing
	})
	list := func(name string) string {
		separator := rapid.SampledFrom([]string{", ", "||", "\n", " -- ;'\n", "/* ' */,", " "}).Draw(r, "separator")
		return strings.Join(rapid.SliceOfN(value, 1, 3).Draw(r, name), separator)
	}
	return "SELECT " + list("before") + rapid.SampledFrom([]string{";", "\n;", " -- '\n;", ""}).Draw(r, "end") +
		"SET work_mem TO 1024;" + rapid.SampledFrom([]string{"", "SELECT " + list("behind"), "--'"}).Draw(r, "rest")
}
