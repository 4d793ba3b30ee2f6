package state

import "strings"

// deciding are the settings that decide what a text means when it is prepared: where its names are looked up, and how its
// constants are read. PostgreSQL reads a constant once, when it analyses the statement, so what '2020-01-01' means in a
// prepared statement depends on the TimeZone and DateStyle at that time.
//
//nolint:gochecknoglobals // a constant table
var deciding = map[string]bool{
	"datestyle": true, "intervalstyle": true, "timezone": true, "timezone_abbreviations": true,
	"array_nulls": true, "backslash_quote": true, "client_encoding": true, "lc_monetary": true,
	"standard_conforming_strings": true, "transform_null_equals": true, "xmloption": true,
	"role": true, "search_path": true, "session_authorization": true,
}

// Reading is the part of the settings that decides what texts mean, as a key: equal texts that are prepared under different
// readings are different statements. It is "" when they set none of these.
func (s *Settings) Reading() string {
	if s == nil {
		return ""
	}
	return s.reading
}

func readingOf(list []Setting) string {
	var b strings.Builder
	for _, one := range list {
		if deciding[one.Name] {
			b.WriteString(joined([]Setting{one}))
		}
	}
	return b.String()
}

// SettingEffects are those of texts that change settings, for the session or for the transaction.
const SettingEffects = Set | SetLocal | Reset | ResetUser | ResetAll

// ChangesReading tells whether a text may change what texts that are prepared behind it mean.
func ChangesReading(sql []byte) bool {
	for _, action := range Parse(sql) {
		switch {
		case action.Effect.Has(ResetUser | ResetAll):
			return true
		case action.Effect.Has(Set|SetLocal|Reset) && (action.Name == "" || deciding[action.Name]):
			return true
		}
	}
	return false
}
