package auth

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"github.com/xdg-go/scram"
)

// peer is a client in memory. It knows a user name and a password and answers whatever it is asked for; it notes
// what it was sent, with the parts that are random by nature left out.
type peer struct {
	user, password string
	binding        []byte // set: uses SCRAM-SHA-256-PLUS
	conv           *scram.ClientConversation
	log            []string
}

func (p *peer) Tell(m pgproto3.BackendMessage) error {
	if _, ok := m.(*pgproto3.AuthenticationSASLFinal); ok {
		p.log = append(p.log, "final")
		return nil
	}
	return fmt.Errorf("unexpected %T", m)
}

func (p *peer) Ask(m pgproto3.BackendMessage, limit int) ([]byte, error) {
	answer, err := p.answer(m)
	if err == nil && len(answer) > limit {
		err = fmt.Errorf("answer of %d bytes", len(answer))
	}
	return answer, err
}

func (p *peer) answer(m pgproto3.BackendMessage) ([]byte, error) {
	switch m := m.(type) {
	case *pgproto3.AuthenticationCleartextPassword:
		p.log = append(p.log, "cleartext")
		return []byte(p.password + "\x00"), nil
	case *pgproto3.AuthenticationMD5Password:
		p.log = append(p.log, "md5")
		return []byte("md5" + hexMD5(hexMD5(p.password, p.user), string(m.Salt[:])) + "\x00"), nil
	case *pgproto3.AuthenticationSASL:
		p.log = append(p.log, strings.Join(m.AuthMechanisms, " "))
		return p.begin(), nil
	case *pgproto3.AuthenticationSASLContinue:
		_, factors, _ := strings.Cut(string(m.Data), ",")
		p.log = append(p.log, factors)
		final, err := p.conv.Step(string(m.Data))
		return []byte(final), err
	}
	return nil, fmt.Errorf("unexpected %T", m)
}

func (p *peer) begin() []byte {
	c, err := scram.SHA256.NewClientUnprepped(p.user, prepare(p.password), "")
	if err != nil {
		panic(err)
	}
	c.WithMinIterations(1)
	name := mechanism
	p.conv = c.NewConversation()
	if p.binding != nil {
		name = mechanismPlus
		p.conv = c.NewConversationWithChannelBinding(
			scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: p.binding})
	}
	first, err := p.conv.Step("")
	if err != nil {
		panic(err)
	}
	return initial(name, first)
}

// initial is the body of a SASLInitialResponse.
func initial(name, first string) []byte {
	b := append([]byte(name), 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(first)))
	return append(b, first...)
}

func newPolicy(t *testing.T, cfg Config) *Policy {
	t.Helper()
	p, err := New(cfg)
	require.NoError(t, err)
	return p
}

func secretOf(t *testing.T, s string) Secret {
	t.Helper()
	secret, err := ParseSecret(s)
	require.NoError(t, err)
	return secret
}

// Secrets as PostgreSQL 15 stored them.
const (
	scramOfSecret = "SCRAM-SHA-256$4096:1NGkVu4B6iKlMlxIfVlAJw==$Kv7+wOGF0hSm+pn9UzsChHkUGrKKVMRvdptE+HN8QEg=:Ai139Jdi5+/dhcqu5FcfoiI/qmOSXS01bOCsmiL+XzQ="
	md5OfMM       = "md5eb4ff29f93e8cd72b962b5644d1d2c70" // user mm, password mmpw
)

func requireRefused(t *testing.T, err error, sqlstate string) FatalError {
	t.Helper()
	var e *FatalError
	require.ErrorAs(t, err, &e)
	require.Equal(t, sqlstate, e.SQLState, e.Message)
	return *e
}

func TestAuthenticate_everyMethodAndSecret_acceptsTheRightPasswordOnly(t *testing.T) {
	t.Parallel()
	users := []User{
		{"plain", PlainSecret("secret")},
		{"mm", secretOf(t, md5OfMM)},
		{"scram", secretOf(t, scramOfSecret)},
		{"none", Secret{}},
	}
	for _, tt := range []struct {
		method   Method
		user     string
		password string
		asked    string // the first request; "" means that no password is right
	}{
		{Password, "plain", "secret", "cleartext"},
		{Password, "mm", "mmpw", "cleartext"},
		{Password, "scram", "secret", "cleartext"},
		{Password, "none", "x", ""},
		{MD5, "plain", "secret", "md5"},
		{MD5, "mm", "mmpw", "md5"},
		{MD5, "scram", "secret", mechanism},
		{MD5, "none", "x", ""},
		{SCRAM, "plain", "secret", mechanism},
		{SCRAM, "scram", "secret", mechanism},
		{SCRAM, "mm", "mmpw", ""},
		{SCRAM, "none", "x", ""},
		{SCRAM, "upstream", "up", mechanism},
		{MD5, "upstream", "up", "md5"},
		{Password, "upstream", "up", "cleartext"},
	} {
		t.Run(fmt.Sprintf("%s/%s", tt.method, tt.user), func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, Config{Method: tt.method, Users: users, Upstream: Identity{User: "upstream", Password: "up"}})
			c := &peer{user: tt.user, password: tt.password}
			id, err := p.Authenticate(c, Attempt{User: tt.user})
			if tt.asked == "" {
				requireRefused(t, err, "28P01")
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.asked, c.log[0])
			require.Equal(t, tt.user, id.User)
			require.False(t, id.Unverified)

			_, err = p.Authenticate(&peer{user: tt.user, password: tt.password + "x"}, Attempt{User: tt.user})
			e := requireRefused(t, err, "28P01")
			require.Equal(t, `password authentication failed for user "`+tt.user+`"`, e.Message)
		})
	}
}

func TestAuthenticate_identity_hasThePasswordForTheServer(t *testing.T) {
	t.Parallel()
	upstream := Identity{User: "upstream", Password: "up"}
	users := []User{{"plain", PlainSecret("secret")}, {"scram", secretOf(t, scramOfSecret)}, {"none", Secret{}}}
	for _, tt := range []struct {
		method  Method
		unknown Unknown
		user    string
		want    Identity
		refused string
	}{
		{Trust, Reject, "upstream", upstream, ""},
		{Trust, Reject, "plain", Identity{User: "plain", Password: "secret"}, ""},
		{Trust, Reject, "none", Identity{User: "none"}, ""},
		{Trust, Reject, "stranger", Identity{}, "28000"},
		{Trust, AsIs, "stranger", Identity{User: "stranger"}, ""},
		{Trust, Upstream, "stranger", upstream, ""},
		{Trust, Upstream, "plain", upstream, ""},
		{Password, Reject, "scram", Identity{User: "scram", Password: "secret"}, ""},
		{Password, AsIs, "scram", Identity{User: "scram", Password: "secret"}, ""},
		{Password, AsIs, "stranger", Identity{User: "stranger", Password: "secret", Unverified: true}, ""},
		{Password, AsIs, "none", Identity{User: "none", Password: "secret", Unverified: true}, ""},
		{Password, Upstream, "scram", upstream, ""},
		{Password, Upstream, "stranger", Identity{}, "28P01"},
		{SCRAM, Reject, "scram", Identity{User: "scram"}, ""},
		{SCRAM, Reject, "plain", Identity{User: "plain", Password: "secret"}, ""},
		{SCRAM, AsIs, "stranger", Identity{}, "28P01"},
		{SCRAM, Upstream, "plain", upstream, ""},
		{SCRAM, Upstream, "stranger", Identity{}, "28P01"},
		{MD5, AsIs, "stranger", Identity{}, "28P01"},
	} {
		t.Run(fmt.Sprintf("%s/%s/%s", tt.method, tt.unknown, tt.user), func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, Config{Method: tt.method, Unknown: tt.unknown, Users: users, Upstream: upstream})
			id, err := p.Authenticate(&peer{user: tt.user, password: "secret"}, Attempt{User: tt.user, Local: true})
			if tt.refused != "" {
				requireRefused(t, err, tt.refused)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, id)
		})
	}
}

func TestAuthenticate_trustFromAnotherMachine_isRefusedUnlessForced(t *testing.T) {
	t.Parallel()
	cfg := Config{Upstream: Identity{User: "app"}}
	_, err := newPolicy(t, cfg).Authenticate(&peer{}, Attempt{User: "app"})
	requireRefused(t, err, "28000")

	cfg.ForceTrust = true
	_, err = newPolicy(t, cfg).Authenticate(&peer{}, Attempt{User: "app"})
	require.NoError(t, err)
}

func TestAuthenticate_zeroConfig_letsNobodyIn(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{Trust, Password, MD5, SCRAM} {
		p := newPolicy(t, Config{Method: method})
		for _, user := range []string{"postgres", "x"} {
			_, err := p.Authenticate(&peer{user: user, password: "x"}, Attempt{User: user, Local: true})
			require.Error(t, err, "%s as %q", method, user)
		}
	}
}

// A name that is not known meets the same requests, answer and work as a known one with a wrong password.
func TestAuthenticate_unknownUser_looksLikeAWrongPassword(t *testing.T) {
	t.Parallel()
	for _, secret := range []Secret{PlainSecret("secret"), secretOf(t, md5OfMM), secretOf(t, scramOfSecret)} {
		for _, method := range []Method{Password, MD5, SCRAM} {
			p := newPolicy(t, Config{Method: method, Users: []User{{"known", secret}}})
			derivations := 0
			p.derive = func(password string, f scram.KeyFactors) (keys, error) {
				derivations++
				return deriveKeys(password, f)
			}
			try := func(user string) (log []string, answer FatalError, work int) {
				derivations = 0
				c := &peer{user: user, password: "wrong"}
				_, err := p.Authenticate(c, Attempt{User: user})
				e := requireRefused(t, err, "28P01")
				e.Cause = nil // is for the log
				e.Message = strings.ReplaceAll(e.Message, user, "?")
				return c.log, e, derivations
			}
			knownLog, knownAnswer, knownWork := try("known")
			strangerLog, strangerAnswer, strangerWork := try("stranger")
			require.Equal(t, knownAnswer, strangerAnswer)
			require.Equal(t, knownWork, strangerWork)
			require.Len(t, strangerLog, len(knownLog))
			require.Equal(t, knownLog[0], strangerLog[0])
			if len(knownLog) > 1 { // salts differ from user to user, their form and the iteration count do not
				require.Len(t, strangerLog[1], len(knownLog[1]))
				require.Equal(t, lastField(knownLog[1]), lastField(strangerLog[1]))
			}
			again, _, _ := try("stranger")
			require.Equal(t, strangerLog, again, "a second try shows the same salt")
		}
	}
}

func lastField(s string) string { return s[strings.LastIndex(s, ",")+1:] }

func TestAuthenticate_plainSecretUnderSCRAM_derivesNothingAtLogin(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{Method: SCRAM, Users: []User{{"known", PlainSecret("secret")}}})
	p.derive = func(string, scram.KeyFactors) (keys, error) {
		t.Error("derived at login")
		return keys{}, nil
	}
	_, err := p.Authenticate(&peer{user: "known", password: "secret"}, Attempt{User: "known"})
	require.NoError(t, err)
}

func TestReload_keepsSaltsOfAllNamesAndKeysOfUnchangedSecrets(t *testing.T) {
	t.Parallel()
	cfg := Config{Method: SCRAM, Users: []User{{"a", PlainSecret("secret")}, {"b", PlainSecret("old")}}}
	p := newPolicy(t, cfg)
	derived := 0
	p.derive = func(password string, f scram.KeyFactors) (keys, error) {
		derived++
		return deriveKeys(password, f)
	}
	cfg.Users = []User{{"a", PlainSecret("secret")}, {"b", PlainSecret("new")}}
	next, err := p.Reload(cfg)
	require.NoError(t, err)
	require.Equal(t, 1, derived, "b's alone")
	for _, user := range []string{"a", "b", "stranger"} {
		before, after := &peer{user: user, password: "wrong"}, &peer{user: user, password: "wrong"}
		_, _ = p.Authenticate(before, Attempt{User: user})
		_, _ = next.Authenticate(after, Attempt{User: user})
		require.Equal(t, before.log, after.log)
	}
	_, err = next.Authenticate(&peer{user: "b", password: "new"}, Attempt{User: "b"})
	require.NoError(t, err)
	_, err = next.Authenticate(&peer{user: "b", password: "old"}, Attempt{User: "b"})
	require.Error(t, err)

	// From a method that needs no keys to one that does.
	trusting := newPolicy(t, Config{Users: cfg.Users})
	next, err = trusting.Reload(cfg)
	require.NoError(t, err)
	_, err = next.Authenticate(&peer{user: "a", password: "secret"}, Attempt{User: "a"})
	require.NoError(t, err)
}

func TestNew_badConfig_isRefused(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{Method: "ldap"},
		{Unknown: "maybe"},
		{Users: []User{{"a", Secret{}}, {"a", Secret{}}}},
		{Users: []User{{"", Secret{}}}},
	} {
		_, err := New(cfg)
		require.Error(t, err)
	}
}

// PgBouncer's #1215 and #1310.
func TestAuthenticate_passwordOf64KiB_isAccepted(t *testing.T) {
	t.Parallel()
	token := strings.Repeat("t", maxPassword)
	p := newPolicy(t, Config{Method: Password, Users: []User{{"iam", PlainSecret(token)}}})
	_, err := p.Authenticate(&peer{user: "iam", password: token}, Attempt{User: "iam"})
	require.NoError(t, err)
	_, err = p.Authenticate(&peer{user: "iam", password: token + "x"}, Attempt{User: "iam"})
	require.ErrorContains(t, err, "answer of", "the limit is the connection's to keep")
}

func TestPasswordBody_malformed_isAProtocolViolation(t *testing.T) {
	t.Parallel()
	for body, sqlstate := range map[string]string{"": "08P01", "abc": "08P01", "a\x00b\x00": "08P01", "a\x00\x00": "08P01", "\x00": "28P01"} {
		_, err := passwordBody([]byte(body), nil)
		requireRefused(t, err, sqlstate)
	}
	got, err := passwordBody([]byte("pw\x00"), nil)
	require.NoError(t, err)
	require.Equal(t, "pw", got)
}

func TestAuthenticate_connectionError_isPassedOn(t *testing.T) {
	t.Parallel()
	for _, method := range []Method{Password, MD5, SCRAM} {
		p := newPolicy(t, Config{Method: method})
		_, err := p.Authenticate(brokenPeer{}, Attempt{User: "x"})
		require.ErrorIs(t, err, bytes.ErrTooLarge)
	}
}

type brokenPeer struct{}

func (brokenPeer) Tell(pgproto3.BackendMessage) error               { return bytes.ErrTooLarge }
func (brokenPeer) Ask(pgproto3.BackendMessage, int) ([]byte, error) { return nil, bytes.ErrTooLarge }
