package auth

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
)

// Bounds of a SCRAM secret: a higher count or a longer salt is a slip of the pen, and would cost every login dearly.
const (
	maxIterations = 10_000_000
	maxSalt       = 1024 // bytes
)

// kind says what a secret is.
type kind uint8

const (
	kindNone  kind = iota // no secret: its user cannot log in by password
	kindPlain             // the password itself
	kindMD5               // PostgreSQL's md5 of password and user name
	kindSCRAM             // a SCRAM-SHA-256 secret, as in pg_authid.rolpassword
)

// Secret is what a user's proof is checked by. The zero value is no secret, by which nobody can log in. A Secret never
// prints: neither by fmt, whatever the verb, nor by slog, nor as JSON.
type Secret struct {
	// value is a function because fmt looks into everything else when it meets a Secret in another type's unexported
	// field, where it may not call String. Nil is no secret.
	value func() secretValue
}

type secretValue struct {
	kind kind
	text string // plain: the password; md5: 32 hexadecimal digits
	keys keys   // of a SCRAM secret
}

func newSecret(v secretValue) Secret { return Secret{func() secretValue { return v }} }

// PlainSecret is a password in clear text; "" is no secret.
func PlainSecret(password string) Secret {
	if password == "" {
		return Secret{}
	}
	return newSecret(secretValue{kind: kindPlain, text: password})
}

// ParseSecret reads a secret as PostgreSQL stores it (pg_authid.rolpassword): md5 and 32 hexadecimal digits, or
// SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey. Anything else is a password in clear text. Its errors do not
// repeat the secret.
func ParseSecret(s string) (Secret, error) {
	if digits, ok := strings.CutPrefix(s, "md5"); ok && len(digits) == 32 {
		if _, err := hex.DecodeString(digits); err == nil {
			return newSecret(secretValue{kind: kindMD5, text: strings.ToLower(digits)}), nil
		}
	}
	if rest, ok := strings.CutPrefix(s, "SCRAM-SHA-256$"); ok {
		k, err := parseKeys(rest)
		if err != nil {
			return Secret{}, fmt.Errorf("parse SCRAM secret: %w", err)
		}
		return newSecret(secretValue{kind: kindSCRAM, keys: k}), nil
	}
	return PlainSecret(s), nil
}

// parseKeys reads iterations:salt$StoredKey:ServerKey.
func parseKeys(s string) (keys, error) {
	factors, verifiers, ok1 := strings.Cut(s, "$")
	iterations, salt, ok2 := strings.Cut(factors, ":")
	stored, server, ok3 := strings.Cut(verifiers, ":")
	if !ok1 || !ok2 || !ok3 {
		return keys{}, errors.New("want SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey")
	}
	var k keys
	n, err := strconv.Atoi(iterations)
	if err != nil || n < 1 || n > maxIterations {
		return keys{}, fmt.Errorf("want 1 to %d iterations", maxIterations)
	}
	k.Iters = n
	rawSalt, err := base64.StdEncoding.DecodeString(salt)
	if err != nil || len(rawSalt) == 0 || len(rawSalt) > maxSalt {
		return keys{}, fmt.Errorf("want a salt of 1 to %d bytes in base64", maxSalt)
	}
	k.Salt = string(rawSalt)
	for _, f := range []struct {
		to   *[]byte
		text string
	}{{&k.StoredKey, stored}, {&k.ServerKey, server}} {
		if *f.to, err = base64.StdEncoding.DecodeString(f.text); err != nil || len(*f.to) != 32 {
			return keys{}, errors.New("want StoredKey and ServerKey of 32 bytes each in base64")
		}
	}
	return k, nil
}

// reveal returns what the secret is.
func (s Secret) reveal() secretValue {
	if s.value == nil {
		return secretValue{}
	}
	return s.value()
}

func (s Secret) kind() kind { return s.reveal().kind }

// text returns the password of a plain secret or the digits of an md5 one, else "".
func (s Secret) text() string { return s.reveal().text }

// keys returns what a SCRAM secret holds, else the zero value.
func (s Secret) keys() keys { return s.reveal().keys }

// masked is what a secret prints and logs as.
const masked = "****"

// String returns a mask, never the secret.
func (s Secret) String() string { return masked }

// GoString returns a mask, for %#v.
func (s Secret) GoString() string { return masked }

// LogValue returns a mask, for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText returns a mask, for JSON and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }
