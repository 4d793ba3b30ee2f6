package login_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
)

// accept runs a login over bytes that are there already, and says how many of them it took.
func accept(t *testing.T, p *auth.Policy, sent []byte) (o outcome, conn *memory, taken int) {
	t.Helper()
	conn = &memory{in: bytes.NewReader(sent)}
	res, err := login.Accept(t.Context(), conn, login.Config{Auth: p})
	return outcome{res, err}, conn, len(sent) - conn.in.Len()
}

// Whatever is sent: a login that succeeds has read its own bytes and no other, one that fails is closed, and what the
// client was told, if it was told anything, ends in an ErrorResponse with a SQLSTATE.
func FuzzLogin(f *testing.F) {
	methods := []auth.Method{auth.Trust, auth.Password, auth.MD5, auth.SCRAM}
	policies := make([]*auth.Policy, 0, len(methods))
	for _, m := range methods {
		policies = append(policies, policy(f, m))
	}
	f.Add(byte(0), startup(v30, "user", "app"))
	f.Add(byte(0), append(startup(v32, "user", "app", "options", `-c a=b\ c --x-y=z`), "Q\x00\x00\x00\x05\x00"...))
	f.Add(byte(0), startup(v30|99, "user", "app", "_pq_.x", "1"))
	f.Add(byte(1), append(startup(v30, "user", "app"), password("secret")...))
	f.Add(byte(1), append(append(packet(sslReq, ""), packet(gssReq, "")...), startup(2<<16, "user")...))
	f.Add(byte(2), append(startup(v30, "user", "app"), password("md5"+strings.Repeat("0", 32))...))
	f.Add(byte(3), append(startup(v30, "user", "app"), "p\x00\x00\x00\x21SCRAM-SHA-256\x00\x00\x00\x00\x0bn,,n=,r=abc"...))
	f.Add(byte(3), packet(cancelReq, "\x00\x00\x00\x07abcd"))
	f.Fuzz(func(t *testing.T, method byte, sent []byte) {
		p := policies[int(method)%len(policies)]
		o, conn, taken := accept(t, p, sent)
		if o.err != nil {
			require.Zero(t, o.res)
			require.True(t, conn.closed)
			requireToldWhy(t, conn.out.Bytes(), o.err)
			return
		}
		require.False(t, conn.closed)
		require.NotEqual(t, o.res.Client == nil, o.res.Cancel == nil, "exactly one is set")
		if o.res.Cancel != nil {
			require.GreaterOrEqual(t, len(o.res.Cancel.Secret), 4)
			require.LessOrEqual(t, len(o.res.Cancel.Secret), 256)
		}
		again, _, _ := accept(t, p, sent[:taken])
		require.NoError(t, again.err, "what was taken is enough")
		short, _, _ := accept(t, p, sent[:taken-1])
		require.Error(t, short.err, "and none of it too much")
	})
}

// requireToldWhy checks what a client read that was refused with err.
func requireToldWhy(t *testing.T, told []byte, err error) {
	t.Helper()
	told = bytes.TrimLeft(told, "NS") // answers to requests for encryption
	if bytes.HasPrefix(told, []byte("EFATAL:  ")) {
		require.Equal(t, byte(0), told[len(told)-1])
		return
	}
	var last pgproto3.ErrorResponse
	for len(told) > 0 {
		kind, n := told[0], 1+int(binary.BigEndian.Uint32(told[1:]))
		if kind == 'E' {
			require.NoError(t, last.Decode(told[5:n]))
			require.Len(t, told, n, "the error is the last message")
		}
		told = told[n:]
	}
	var e *auth.FatalError
	if requireAs := require.New(t); last.Code != "" {
		requireAs.ErrorAs(err, &e)
		requireAs.Equal(e.SQLState, last.Code)
		requireAs.Len(last.Code, 5)
		requireAs.NotEmpty(last.Message)
	} else {
		requireAs.NotErrorAs(err, &e, "refused without a word")
	}
}

// Names and values come out as they were put in, in order, whatever they are.
func FuzzStartup(f *testing.F) {
	f.Add("user", "app", "database", "d", "-c a=b")
	f.Add("application_name", "x\\ y", "_pq_.a", "", `\`)
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, options string) {
		for _, s := range []string{n1, v1, n2, v2, options} {
			if strings.Contains(s, "\x00") || n1 == "" || n2 == "" {
				t.Skip()
			}
		}
		sent := startup(v30, n1, v1, n2, v2, "options", options, "user", "app")
		if len(sent) > 10_004 {
			t.Skip()
		}
		o, _, _ := accept(t, policy(t, auth.Trust), sent)
		if o.err != nil {
			var e *auth.FatalError
			require.ErrorAs(t, o.err, &e)
			require.Contains(t, []string{"0A000", "42601", "22023"}, e.SQLState, "options or replication")
			return
		}
		c := o.res.Client
		require.Equal(t, "app", c.User)
		require.Equal(t, options, c.Options)
		var want []login.Param
		for _, p := range []login.Param{{Name: n1, Value: v1}, {Name: n2, Value: v2}} {
			switch {
			case p.Name == "user", p.Name == "database", p.Name == "replication", p.Name == "options":
			case strings.HasPrefix(p.Name, "_pq_."):
			default:
				want = append(want, p)
			}
		}
		require.Equal(t, want, c.Parameters)
		require.LessOrEqual(t, len(c.Settings()), len(c.OptionSettings)+len(c.Parameters))
	})
}
