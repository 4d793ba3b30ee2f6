package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // The MD5 method is defined by it; it is offered only where it is asked for.
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/jackc/pgx/v5/pgproto3"
)

// maxPassword is the longest password in bytes: tokens that cloud services give out as passwords have been seen with
// tens of kilobytes. PostgreSQL itself takes PG_MAX_AUTH_TOKEN_LENGTH, one byte less.
const maxPassword = 64 << 10

// askPassword asks for the password in clear text.
func askPassword(c Client) (string, error) {
	return passwordBody(c.Ask(&pgproto3.AuthenticationCleartextPassword{}, maxPassword+1))
}

// passwordBody reads a PasswordMessage's body: one string and the zero byte that ends it.
func passwordBody(body []byte, err error) (string, error) {
	switch {
	case err != nil:
		return "", err
	case len(body) == 0 || bytes.IndexByte(body, 0) != len(body)-1:
		return "", violation("invalid password packet size", "", nil)
	case len(body) == 1:
		return "", &FatalError{SQLState: "28P01", Message: "empty password returned by client"}
	}
	return string(body[:len(body)-1]), nil
}

// verify checks a password given in clear text by the account's secret, whatever its kind.
func (p *Policy) verify(user, password string, a account) (bool, error) {
	switch a.secret.kind() {
	case kindPlain:
		return equal(password, a.secret.text()), nil
	case kindMD5:
		return equal(hexMD5(password, user), a.secret.text()), nil
	case kindSCRAM:
		return p.verifyKeys(password, a.keys)
	case kindNone:
	}
	return false, nil
}

// md5Exchange asks for the digest of the secret's digest and a random salt.
func md5Exchange(c Client, user string, s Secret) (bool, error) {
	var salt [4]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return false, fmt.Errorf("make salt: %w", err)
	}
	const digest = len("md5") + 2*md5.Size
	answer, err := passwordBody(c.Ask(&pgproto3.AuthenticationMD5Password{Salt: salt}, digest+1))
	if err != nil {
		return false, err
	}
	inner := s.text()
	if s.kind() == kindPlain {
		inner = hexMD5(inner, user)
	}
	return equal(answer, "md5"+hexMD5(inner, string(salt[:]))), nil
}

// hexMD5 is the digest of text and salt in hexadecimal digits.
func hexMD5(text, salt string) string {
	sum := md5.Sum([]byte(text + salt)) //nolint:gosec // See the import.
	return hex.EncodeToString(sum[:])
}

// equal compares in a time that tells neither where two strings differ nor how long the secret one is.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return hmac.Equal(x[:], y[:])
}
