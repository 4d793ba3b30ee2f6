package login

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/auth"
)

func TestParseOptions_asPostgreSQLReadsThem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		options  string
		want     []Param
		sqlstate string
	}{
		{"", nil, ""},
		{" \t\n\v\f\r ", nil, ""},
		{"-c a=b", []Param{{"a", "b"}}, ""},
		{"-ca=b", []Param{{"a", "b"}}, ""},
		{"--a-b-c=d-e", []Param{{"a_b_c", "d-e"}}, ""},
		{"-c work-mem=1MB", []Param{{"work_mem", "1MB"}}, ""},
		{"-c a= -c b=x=y", []Param{{"a", ""}, {"b", "x=y"}}, ""},
		{`-c a=b\ c\\d\"`, []Param{{"a", `b c\d"`}}, ""},
		{`-c a=\`, []Param{{"a", ""}}, ""},
		{`-c search_path="a b"`, nil, "0A000"}, // quotes mean nothing here, so b" is an argument
		{"-c --a=b", []Param{{"__a", "b"}}, ""},
		{"-c a", nil, "42601"},
		{"--a", nil, "42601"},
		{"-c", nil, "0A000"},
		{"--", nil, "0A000"},
		{"-", nil, "0A000"},
		{"-e", nil, "0A000"},
		{"-B 64", nil, "0A000"},
		{"x", nil, "0A000"},
	} {
		got, err := parseOptions(tt.options, false)
		if e, refused := errors.AsType[*auth.FatalError](err); refused {
			require.Equal(t, tt.sqlstate, e.SQLState, tt.options)
		} else {
			require.NoError(t, err)
			require.Empty(t, tt.sqlstate, tt.options)
		}
		require.Equal(t, tt.want, got, tt.options)
	}
}

func TestParseOptions_replication_passesOverOtherSwitches(t *testing.T) {
	t.Parallel()
	got, err := parseOptions("-e -c a=b -B 64", true)
	require.NoError(t, err)
	require.Equal(t, []Param{{"a", "b"}}, got)
}

func TestParseBool_asPostgreSQLReadsIt(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{
		"1": true, "t": true, "TRUE": true, "tr": true, "y": true, "yes": true, "on": true, "On": true,
		"0": false, "f": false, "false": false, "n": false, "no": false, "of": false, "off": false,
	} {
		value, ok := parseBool(s)
		require.True(t, ok, s)
		require.Equal(t, want, value, s)
	}
	for _, s := range []string{"", "o", "trues", "2", "10", "maybe", " on"} {
		_, ok := parseBool(s)
		require.False(t, ok, s)
	}
}

func TestSettings_lastValueCounts(t *testing.T) {
	t.Parallel()
	c := &Client{
		OptionSettings: []Param{{"work_mem", "1MB"}, {"TimeZone", "UTC"}, {"work_mem", "2MB"}},
		Parameters:     []Param{{"timezone", "CET"}, {"client_encoding", "UTF8"}, {"TIMEZONE", "EET"}, {"na\xffme", "1"}, {"na\xfeme", "2"}},
	}
	before := len(c.OptionSettings)
	require.Equal(t, []Param{{"work_mem", "2MB"}, {"client_encoding", "UTF8"}, {"TIMEZONE", "EET"}, {"na\xffme", "1"}, {"na\xfeme", "2"}}, c.Settings())
	require.Len(t, c.OptionSettings, before)
}
