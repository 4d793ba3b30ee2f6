package state

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"pgsidecar/internal/pgtest"
)

func TestDiff_text_isWhatIsNeeded(t *testing.T) {
	in := NewInterner()
	set := func(pairs ...string) *Settings {
		var list []Setting
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, Setting{pairs[i], pairs[i+1]})
		}
		return in.Intern(list)
	}
	for name, test := range map[string]struct {
		have, want *Settings
		sql        string
	}{
		"nothing":           {nil, nil, ""},
		"same":              {set("a", "1"), set("a", "1"), ""},
		"added and removed": {set("a", "1", "b", "2"), set("b", "2", "c", "3"), `RESET "a";SET "c" TO '3';`},
		"custom name":       {nil, set("app.user_id", "it's"), `SET "app"."user_id" TO 'it''s';`},
		"custom name reset": {set("app.user_id", "7"), nil, `RESET "app"."user_id";`},
		"backslash":         {nil, set("a", `\'`), `SET "a" TO E'\\''';`},
		"list":              {nil, set("search_path", `a, "B"`), `SELECT pg_catalog.set_config('search_path','a, "B"',false);`},
		"encoding first": {
			nil,
			set("app.a", "\xe9", "client_encoding", "LATIN1"),
			`SET "client_encoding" TO 'LATIN1';SELECT pg_catalog.set_config('app.a',pg_catalog.convert_from(` +
				`pg_catalog.decode('e9','hex'),pg_catalog.current_setting('client_encoding')),false);`,
		},
		"date style in part": {
			set("DateStyle", "German"), set("DateStyle", "ISO"),
			`RESET "datestyle";SET "datestyle" TO 'ISO';`,
		},
		"role last":     {nil, set("role", "r", "work_mem", "1MB"), `SET "work_mem" TO '1MB';SET "role" TO 'r';`},
		"role the same": {set("role", "r", "a", "1"), set("role", "r", "a", "1"), ""},
		"role in between": {
			set("role", "r", "session_authorization", "s"), set("role", "r", "session_authorization", "s", "a", "1"),
			`RESET "role";RESET "session_authorization";SET "a" TO '1';SET "session_authorization" TO 's';SET "role" TO 'r';`,
		},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.sql, string(Diff(test.have, test.want))) })
	}
	require.Nil(t, Diff(set("a", "1"), NewInterner().Intern([]Setting{{"a", "1"}})), "equal sets of two interners")
}

// choices are settings and values that are easily got wrong, by the encoding in which they can be spoken.
func choices(encoding string) map[string][]string {
	list := map[string][]string{
		"search_path":                   {"", "a, b", `"a, b", public`, `"$user", public`, `"Ünï""q", pg_temp`, "'x'"},
		"datestyle":                     {"ISO", "German", "SQL, DMY", "DMY", "iso, ymd", "Postgres"},
		"timezone":                      {"UTC", "Europe/Berlin", "<+05:30>-05:30", "-3"},
		"intervalstyle":                 {"iso_8601", "sql_standard"},
		"application_name":              {"", `a\b'c"d`, "tab\tnew\nline", "$$", "-- /* ;"},
		"standard_conforming_strings":   {"on", "off"},
		"escape_string_warning":         {"on", "off"},
		"backslash_quote":               {"on", "off", "safe_encoding"},
		"extra_float_digits":            {"3", "-15"},
		"statement_timeout":             {"90s", "60000", "0"},
		"work_mem":                      {"1MB", "64", "2GB"},
		"bytea_output":                  {"escape", "hex"},
		"default_transaction_isolation": {"repeatable read", "serializable"},
		"temp_tablespaces":              {"", "pg_default"},
		"app.user_id":                   {"", "7", `\`, `'`, `\'`, `''\\''`, strings.Repeat(`x\'`, 20_000), " lead and trail "},
		"a.b.c":                         {"x", "DEFAULT"},
		"default.select":                {"on", "null"},
		"role":                          {"none", "Röle \"x\"", "plain_role"},
		"session_authorization":         {"plain_role", "other super"},
	}
	beyond := map[string]string{
		"UTF8": "é漢字\U0001F600", "LATIN1": "\xe9\xff", "SJIS": "\x83\x5c'\x83\x5c", "GBK": "\x95\x5c\\", "WIN1251": "\xcf\xf0",
	}
	list["app.text"] = []string{beyond[encoding], beyond[encoding] + `'\`}
	list["client_encoding"] = []string{encoding}
	if encoding != "UTF8" {
		list["search_path"] = list["search_path"][:4]
		list["role"] = []string{"none", "plain_role"}
	}
	return list
}

// The reference is a session that is given the same settings by parameters of the extended protocol.
func TestDiff_anySettings_leaveTheServerAsIfSetOneByOne(t *testing.T) {
	pgtest.ForEach(t, func(t *testing.T, c *pgtest.Cluster) {
		database := c.Database(t)
		c.Exec(t, `DROP ROLE IF EXISTS plain_role; DROP ROLE IF EXISTS "Röle ""x"""; DROP ROLE IF EXISTS "other super";
			CREATE ROLE plain_role; CREATE ROLE "Röle ""x"""; CREATE ROLE "other super" SUPERUSER; GRANT "Röle ""x""" TO plain_role`)
		c.Exec(t, `ALTER DATABASE `+database+` SET datestyle = 'SQL, DMY'`)
		ours, reference := dial(t, c, database, pgtest.Superuser), dial(t, c, database, pgtest.Superuser)
		in := NewInterner()
		var have *Settings
		rapid.Check(t, func(r *rapid.T) {
			want := in.Intern(drawSettings(r))
			if sql := Diff(have, want); sql != nil {
				ours.run(string(sql))
			}
			have = want
			reference.run("DISCARD ALL")
			for _, one := range want.List() {
				require.NoError(r, reference.setConfig(one.Name, one.Value), "%q", one)
			}
			requireSameSettings(r, want, ours, reference)
		})
		ours.run(string(Diff(have, nil)) + "RESET ALL")
		require.Equal(t, "none", ours.value("SHOW role"))
		require.Equal(t, pgtest.Superuser, ours.value("SELECT session_user"))
	})
}

func drawSettings(r *rapid.T) []Setting {
	encoding := rapid.SampledFrom([]string{"", "UTF8", "LATIN1", "SJIS", "GBK", "WIN1251"}).Draw(r, "encoding")
	var list []Setting
	if encoding != "" {
		list = append(list, Setting{clientEncoding, encoding})
	} else {
		encoding = "UTF8"
	}
	from := choices(encoding)
	delete(from, clientEncoding)
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(sortedKeys(from)), 0, 6, rapid.ID).Draw(r, "names")
	for _, name := range names {
		list = append(list, Setting{name, rapid.SampledFrom(from[name]).Draw(r, name)})
	}
	return list
}

func requireSameSettings(r *rapid.T, want *Settings, ours, reference session) {
	for _, one := range want.List() {
		show := "SELECT pg_catalog.current_setting('" + one.Name + "')"
		require.Equal(r, reference.value(show), ours.value(show), "%q", one)
	}
	const user = "SELECT session_user, current_user, pg_catalog.current_setting('role')"
	require.Equal(r, reference.run(user), ours.run(user))
	const rest = `SELECT name, setting, source FROM pg_catalog.pg_settings
		WHERE source NOT IN ('default', 'configuration file', 'command line') ORDER BY 1`
	theirs, mine := reference.run(rest), ours.run(rest)
	require.Equal(r, withoutEmptyCustom(theirs), withoutEmptyCustom(mine))
}

// withoutEmptyCustom leaves out custom settings without a value: they go on existing after a RESET.
func withoutEmptyCustom(rows [][]string) [][]string {
	var out [][]string
	for _, row := range rows {
		if !strings.Contains(row[0], ".") || row[1] != "" {
			out = append(out, row)
		}
	}
	return out
}
