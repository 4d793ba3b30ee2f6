package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/internal/config"
)

func TestConnString_everyPrint_isMasked(t *testing.T) {
	for _, text := range []string{
		"postgres://app:s3cret@db/app",
		"postgresql://app:s3cret@db1:1,db2:2/app?sslmode=require",
		"postgres://app@db/app?password=s3cret",
		"postgres://db/app?user=app&sslpassword=s3cret&pass%77ord=s3cret",
		"postgres://app:s3/cret@db/app?application_name=a",
		"postgres://app:a?s3cret@db/app",
		"postgres://app:x@s3cret@db/app",
		"host=db user=app password=s3cret dbname=app",
		"host=db password = 's3cret with \\' and \\\\ s3cret' user=app",
		"host=db password=a\\ s3cret user=app",
		"password=s3cret",
		"password='s3cret",
	} {
		c := config.Default()
		c.Upstream.URL = config.ConnString(text)
		encoded, err := json.Marshal(c)
		require.NoError(t, err)
		var logged bytes.Buffer
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", slog.Any("config", c), slog.Any("url", c.Upstream.URL))
		for way, shown := range map[string]string{
			"String": c.Upstream.URL.String(), "%v": fmt.Sprintf("%v", c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c),
			"%q": fmt.Sprintf("%q", c.Upstream.URL), "JSON": string(encoded), "slog": logged.String(), "Print": string(config.Print(c, nil)),
		} {
			require.NotContains(t, shown, "s3cret", "%s of %s", way, text)
		}
		require.Equal(t, text, c.Upstream.URL.Reveal())
	}
}

func TestConnString_withoutSecret_isShownAsItIs(t *testing.T) {
	for _, text := range []string{"", "postgres://app@db:5432/app?application_name=a", "host=db user=app"} {
		require.Equal(t, text, config.ConnString(text).String())
	}
	require.Equal(t, "user=app password=xxxxx host=db", config.ConnString(`user=app password='s3\' cret' host=db`).String())
	require.Equal(t, "postgres://app:xxxxx@db:5432/app", config.ConnString("postgres://app:s3cret@db:5432/app").String())
}

func TestLoad_faultyURL_namesTheCureAndNoSecret(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://app:s3cret/x@db/app":                      "is not a connection string",
		"postgres://app:s3cret%zz@db/app":                     "is not a connection string",
		"postgres://app:x?s3cret@db/app":                      "",
		"postgres://app:s3@cret@db/app":                       "is not a connection string",
		"postgres://app:s3:cret@db:x/app":                     "is not a connection string",
		"postgres://app:s3cret@db1:1,db2:s3cret/app":          "is not a connection string",
		"host=db password='s3cret":                            "is not a connection string",
		"s3cret":                                              "is not a connection string",
		"postgres://app:s3cret@db/app?sslmode=sometimes":      "does not work: failed to configure TLS",
		"postgres://app:s3cret@db/app?sslrootcert=/nowhere":   "does not work: failed to configure TLS",
		"postgres://app:s3cret@db/app?connect_timeout=a":      "does not work: invalid connect_timeout",
		"postgres://app:s3cret@db/app?target_session_attrs=x": "does not work: unknown target_session_attrs value",
		"postgres://app:s3cret@db/app?schema=a":               "parameter schema is not one of PostgreSQL's",
		"postgres://app:s3cret@db/app?pgbouncer=true":         "parameter pgbouncer is not one of PostgreSQL's",
		"postgres://app:s3cret@db/app?keepalives=1":           "set upstream.keepalive",
		"postgres://app:s3cret@db/app?application_name=a":     "",
		"postgresql+asyncpg://app:s3cret@db/app":              "begin it with postgres://",
		"jdbc:postgresql://db/app?password=s3cret":            "begin it with postgres://",
	} {
		_, _, err := config.Load("", []string{"DATABASE_URL=" + text})
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, "DATABASE_URL: ", text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "s3", text)
	}
}
