package auth

import (
	"encoding/base64"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"github.com/xdg-go/scram"
)

func TestDeriveKeys_rfc7677Example_verifiesItsProof(t *testing.T) {
	t.Parallel()
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	require.NoError(t, err)
	k, err := deriveKeys("pencil", scram.KeyFactors{Salt: string(salt), Iters: 4096})
	require.NoError(t, err)
	s, err := scram.SHA256.NewServer(func(string) (keys, error) { return k, nil })
	require.NoError(t, err)
	conv := s.WithNonceGenerator(func() string { return "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" }).NewConversation()

	challenge, err := clientFirst(conv, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", false)
	require.NoError(t, err)
	require.Equal(t, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", challenge)
	final, err := conv.Step("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
	require.NoError(t, err)
	require.Equal(t, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", final)
}

// The secrets are PostgreSQL 15's own, of the same passwords in a UTF-8 database.
func TestVerify_passwordsThatSASLprepChanges_agreeWithPostgreSQL(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ what, password, secret string }{
		{"soft hyphen", "I\u00adX", "zNFjth7U6UJTzZ5FcB+gYg==$jVKph6Upgv5jmVk1OTQ3k9iBh89Gx0tsMWWDmkidOrQ=:OaWOLV/w1eb1fZLD/mJM2YwnS7bKGid0mCHEo8EuZq4="},
		{"compatibility", "\u00aa", "FkE8GKEkLVTMGuKqS018Eg==$6wg162/P1o7O3M6w5xBknub3PdWXVe/tUVh6HXoNFQ0=:pmw/pKwCUtkM4UtG4PDTvBZ9rbcJ2GQn9foh0JV1fqc="},
		{"zero width space", "a\u200bb", "rufK1YtyKcm/BT9ZTRnUyQ==$xvTRHKo/DuZNPrzLZPAsYSl7KV/gvXSVhkkGz6hcsh4=:ih4aDAa3cKT+BBfOokL0xnaO+Qsk0rEjPZpYFgHvg5U="},
		{"unassigned, normalised", "\U0001f132", "Vki02cvJvu4vL23eHtnk4g==$lik6g926uWTPyrtZZErF5UYCCBCZUfc+oJeJDfswfuA=:DMht2ahsNFYkZSMGEu/DjHMdyoS78W2GsOxwK1bEX+k="},
		{"roman numeral", "\u2168", "1uYcbMSJczxE0yolIDhVyQ==$3EWFLPCTZHH0v+uWJJ09eQH0dg146dRKhqKAVnbVelU=:2ueieMVjzFoV5lyS0ryS+pgrSsqz/3Bi7Z1kTtuNpJw="},
		{"control", "a\x07b", "BOzjn3iVWtLpkzbup19Ltg==$nacTIDjs6LqIoLApqRrPPI7K1YaXojBhiYdmY9sMK7c=:PnH4Lr9XMpIgx5Yr4VWOBB2VIirQV00W9oKUmP6nb/M="},
		{"prohibited", "é\x07", "s9a/QeiRGiAXj9WoD3VdWw==$tEC5quyzc0fg5nmSf8HWkSsCVY/2SAO0jqLzlbiesWg=:RTKEEAVYZ5KXG2QW4cg/y6BUAv42lMQGYcQ1VNienqg="},
		{"bidi refused", "\u06271", "r3HVHPDwMXpXORm2AKxIqw==$aZ2uuE7AHi/Ttg7dmXGexkwMSWgEKjBbZfxnaf/3/lI=:l28qG9Dg5i7i1Wr3FAJlVSYfnT9fxxMnR8KsJ64KeOs="},
		{"bidi mixed", "\u0627b\u0628", "tu6r+6ewlH/V3M9UUQqQAg==$vVN+4Y6+NLOPvp8Wzsp0M6wdN6lTgi5eHT67Hi6sYKQ=:H5879rJFVC/tAiLc77Vi1kGlnwhwZNL0hCvYN7oTKAU="},
		{"nothing left", "\u00ad", "QUJFtn/hgnzgtzlKMh3wdw==$cl4QtVUdR5cPlxP4qP4vHxmLDaOdKFmH781uwRWnnZM=:oiU2jHi9FI4D3XC43YFb4idT85qARWbjQetTDUmQYSw="},
		{"no-break space", "a\u00a0b", "qBL43YyDRzSdb8pW+XpIMQ==$2WEGkwsdUg2VaecpkXWQ19yo8rEkVwIWUtxii2DbNKs=:CKXXhP2/stvfxK8drZliwMNiclidfQDiIQg15BUidZA="},
		{"unassigned", "\u0221", "PjtmjjPNQzAvTLsaVSck0A==$1XqqwSmdSbLVVbqjU1HmMxU0A7BLhegOTlZUx1ue9SY=:TasOrrjIpV0bCVVtM/NOdQPT6IJf6Icy3hxEQaDkvwA="},
		{"bidi once normalised", "\u2135a", "eEm88YKdc4wTD6Kzmj7AbA==$mqeDl9TYfpiZEJkQs1tYAvRoNGag1I+vmB+Me/DvHdo=:tZ91HdHAqn6O2p6t7yo+t07L4Xse72bxSeexBttJR44="},
		{"ends in zero width space", "pass\u200b", "PqDIN6cgbdTigIohTs1aew==$s01efc/RI36UX2dMu3vbi5NS2Vig4XC7Kj//nkKQW3o=:p6YyUflZUY0pmjykyepHWe6N0jS5y9IjkYiHWoFLsdM="},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, Config{Method: Password})
			ok, err := p.verifyKeys(tt.password, secretOf(t, "SCRAM-SHA-256$4096:"+tt.secret).keys())
			require.NoError(t, err)
			require.True(t, ok)
		})
	}
}

// script answers each request with the next of its bodies.
type script struct{ bodies [][]byte }

func (s *script) Tell(pgproto3.BackendMessage) error { return nil }

func (s *script) Ask(pgproto3.BackendMessage, int) ([]byte, error) {
	if len(s.bodies) == 0 {
		return nil, errors.New("nothing more to say")
	}
	b := s.bodies[0]
	s.bodies = s.bodies[1:]
	return b, nil
}

// See CVE-2026-6664 of PgBouncer.
func TestSCRAM_malformedMessages_areRefusedAsPostgreSQLDoes(t *testing.T) {
	t.Parallel()
	binding := []byte("hash")
	for _, tt := range []struct {
		what     string
		binding  []byte
		bodies   [][]byte
		sqlstate string
	}{
		{"empty", nil, [][]byte{{}}, "08P01"},
		{"no terminator", nil, [][]byte{[]byte("SCRAM-SHA-256")}, "08P01"},
		{"no length", nil, [][]byte{[]byte("SCRAM-SHA-256\x00\x00")}, "08P01"},
		{"unknown mechanism", nil, [][]byte{initial("FOO", "n,,n=,r=abc")}, "08P01"},
		{"plus not offered", nil, [][]byte{initial(mechanismPlus, "p=tls-server-end-point,,n=,r=abc")}, "08P01"},
		{"length beyond the message", nil, [][]byte{[]byte("SCRAM-SHA-256\x00\x00\x00\x00\x0dn,,n=,r=abc")}, "08P01"},
		{"length short of the message", nil, [][]byte{[]byte("SCRAM-SHA-256\x00\x00\x00\x00\x0an,,n=,r=abc")}, "08P01"},
		{"negative length", nil, [][]byte{[]byte("SCRAM-SHA-256\x00\xff\xff\xff\xfen,,n=,r=abc")}, "08P01"},
		{"no length but data", nil, [][]byte{[]byte("SCRAM-SHA-256\x00\xff\xff\xff\xffn,,")}, "08P01"},
		{"garbage", nil, [][]byte{initial(mechanism, "garbage")}, "08P01"},
		{"empty first message", nil, [][]byte{initial(mechanism, "")}, "08P01"},
		{"zero byte", nil, [][]byte{initial(mechanism, "n,,n=,r=a\x00b")}, "08P01"},
		{"not UTF-8", nil, [][]byte{initial(mechanism, "n,,n=,r=a\xffb")}, "08P01"},
		{"authorization identity", nil, [][]byte{initial(mechanism, "n,a=x,n=,r=abc")}, "0A000"},
		{"binding without plus", nil, [][]byte{initial(mechanism, "p=tls-server-end-point,,n=,r=abc")}, "08P01"},
		{"binding without plus over TLS", binding, [][]byte{initial(mechanism, "p=tls-server-end-point,,n=,r=abc")}, "08P01"},
		{"plus without binding", binding, [][]byte{initial(mechanismPlus, "n,,n=,r=abc")}, "08P01"},
		{"plus with the wrong type", binding, [][]byte{initial(mechanismPlus, "p=tls-unique,,n=,r=abc")}, "08P01"},
		{"downgrade", binding, [][]byte{initial(mechanism, "y,,n=,r=abc")}, "28000"},
		{"binding of another certificate", binding, [][]byte{
			initial(mechanismPlus, "p=tls-server-end-point,,n=,r=abc"),
			[]byte("c=" + base64.StdEncoding.EncodeToString([]byte("p=tls-server-end-point,,other")) + ",r=abc,p=AAAA"),
		}, "28000"},
		{"garbage at the end", nil, [][]byte{initial(mechanism, "n,,n=,r=abc"), []byte("garbage")}, "08P01"},
		{"another nonce", nil, [][]byte{initial(mechanism, "n,,n=,r=abc"), []byte("c=biws,r=abc,p=AAAA")}, "08P01"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			p := newPolicy(t, Config{Method: SCRAM, Users: []User{{"u", PlainSecret("pw")}}})
			_, err := p.Authenticate(&script{tt.bodies}, Attempt{User: "u", Binding: tt.binding})
			requireRefused(t, err, tt.sqlstate)
		})
	}
}

func TestSCRAM_clientWithoutInitialResponse_isAskedForIt(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{Method: SCRAM, Users: []User{{"u", PlainSecret("pw")}}})
	c := &waitingPeer{peer{user: "u", password: "pw"}, false}
	_, err := p.Authenticate(c, Attempt{User: "u"})
	require.NoError(t, err)
	require.True(t, c.asked)
}

// waitingPeer names its mechanism and waits for an empty challenge before it begins.
type waitingPeer struct {
	peer
	asked bool
}

func (w *waitingPeer) Ask(m pgproto3.BackendMessage, limit int) ([]byte, error) {
	switch m := m.(type) {
	case *pgproto3.AuthenticationSASL:
		w.begin()
		return []byte(mechanism + "\x00\xff\xff\xff\xff"), nil
	case *pgproto3.AuthenticationSASLContinue:
		if len(m.Data) == 0 {
			w.asked = true
			return w.begin()[len(mechanism)+5:], nil
		}
	}
	return w.peer.Ask(m, limit)
}

func TestSCRAM_channelBinding_isVerified(t *testing.T) {
	t.Parallel()
	p := newPolicy(t, Config{Method: SCRAM, Users: []User{{"u", PlainSecret("pw")}}})
	c := &peer{user: "u", password: "pw", binding: []byte("hash")}
	_, err := p.Authenticate(c, Attempt{User: "u", Binding: []byte("hash")})
	require.NoError(t, err)
	require.Equal(t, mechanismPlus+" "+mechanism, c.log[0])

	c = &peer{user: "u", password: "pw", binding: []byte("man in the middle")}
	_, err = p.Authenticate(c, Attempt{User: "u", Binding: []byte("hash")})
	requireRefused(t, err, "28000")
}
