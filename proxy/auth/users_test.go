package auth

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseUsers_goodFile_isRead(t *testing.T) {
	t.Parallel()
	const file = `
; a comment
# another
"app" "pa""ss\word"
  "sp ace"	"md5EB4FF29F93E8CD72B962B5644D1D2C70"  ; behind it
"scram" "` + scramOfSecret + `"
"none" ""
"old" "pw" "" ""
`
	users, err := ParseUsers("users.txt", strings.NewReader(file))
	require.NoError(t, err)
	got := make([]string, 0, len(users))
	for _, u := range users {
		got = append(got, fmt.Sprintf("%s %d %s", u.Name, u.Secret.kind(), u.Secret.text()))
	}
	require.Equal(t, []string{
		`app 1 pa"ss\word`, "sp ace 2 eb4ff29f93e8cd72b962b5644d1d2c70", "scram 3 ", "none 0 ", "old 1 pw",
	}, got)
}

func TestParseUsers_faults_comeAllAtOnceWithTheirLines(t *testing.T) {
	t.Parallel()
	const file = `"ok" "fine"
app "hunter2"
"app"
"app" hunter2
"app" "hunter2
"" "hunter2"
"ok" "hunter2"
"q" "hunt"er2"
"s" "SCRAM-SHA-256$0:AAAA$AAAA:AAAA"
"t" "SCRAM-SHA-256$4096:AAAA$hunter2:AAAA"
"v" "SCRAM-SHA-256$4096"
"w" "SCRAM-SHA-256$4096:$AAAA:AAAA"
"z` + "\x00" + `" "hunter2"
`
	_, err := ParseUsers("users.txt", strings.NewReader(file))
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 12)
	for i, line := range lines {
		require.True(t, strings.HasPrefix(line, fmt.Sprintf("users.txt:%d: ", i+2)), line)
	}
	require.NotContains(t, err.Error(), "hunter2")
	require.Contains(t, lines[5], "line 1 already")
}

func TestReadUsers_worldReadableFile_isWarnedOf(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "users.txt")
	require.NoError(t, os.WriteFile(path, []byte(`"a" "b"`), 0o600))
	users, warnings, err := ReadUsers(path)
	require.NoError(t, err)
	require.Len(t, users, 1)
	require.Empty(t, warnings)

	require.NoError(t, os.Chmod(path, 0o644))
	_, warnings, err = ReadUsers(path)
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], path)

	_, _, err = ReadUsers(path + ".missing")
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestParseSecret_looksLikeMD5ButIsNot_isAPassword(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"md5", "md5xyz", "md5" + strings.Repeat("g", 32), "SCRAM-SHA-1$x"} {
		require.Equal(t, kindPlain, secretOf(t, s).kind(), s)
	}
}

func TestSecret_neverPrints(t *testing.T) {
	t.Parallel()
	type holder struct {
		Shown  Secret
		hidden Secret
	}
	const hush = "hunter2"
	s := PlainSecret(hush)
	id := Identity{User: "app", Password: hush}
	var out bytes.Buffer
	h := holder{s, s}
	require.Equal(t, hush, h.hidden.text())
	for _, v := range []any{s, &s, h, &h, id, &id, Config{Users: []User{{"app", s}}, Upstream: id}, User{"app", s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, l := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
			l.Info("x", slog.Any("v", v))
		}
	}
	require.NoError(t, json.NewEncoder(&out).Encode([]any{s, h, User{"app", s}}))
	require.NotContains(t, out.String(), hush)
	require.NotContains(t, out.String(), fmt.Sprintf("%x", hush))
}

func FuzzParseUsers(f *testing.F) {
	f.Add(`"a" "b"`)
	f.Add(`"a""b" "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA" x`)
	f.Fuzz(func(t *testing.T, file string) {
		users, err := ParseUsers("f", strings.NewReader(file))
		if err == nil {
			_, err = New(Config{Users: users})
			require.NoError(t, err, "what the parser accepts, a policy takes")
		}
	})
}
