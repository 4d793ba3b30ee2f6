package login_test

import (
	"crypto/tls"
	"io"
	"os"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
	"pgsidecar/proxy/loop"
)

// trusting is a client's TLS that knows the authority.
func (a *authority) trusting(protocols ...string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: "127.0.0.1", NextProtos: protocols, MinVersion: tls.VersionTLS12}
}

func TestAccept_tlsAskedFor_isUsed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa")), RequireTLS: true})
	for _, protocols := range [][]string{nil, {"postgresql"}} {
		s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(a.trusting(protocols...)).
			send(startup(v30, "user", "app")).expect(okMessage)
		require.IsType(t, &tls.Conn{}, s.next(t).res.Client.Conn)
	}
	// Within TLS there is nothing more to ask for.
	for _, code := range []uint32{sslReq, gssReq} {
		c := s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(a.trusting()).send(packet(code, ""))
		require.Equal(t, "0A000", c.fatal().Code)
		require.Error(t, s.next(t).err)
	}
	s.dial(t).send(packet(gssReq, "")).expect("N").send(packet(sslReq, "")).expect("S").startTLS(a.trusting()).
		send(packet(cancelReq, "\x00\x00\x00\x07abcd"))
	require.Equal(t, uint32(7), s.next(t).res.Cancel.PID)
}

func TestAccept_tlsConnection_canMoveToALoop(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa"))})
	s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(a.trusting()).send(startup(v30, "user", "app")).expect(okMessage)
	transport, err := loop.Take(s.next(t).res.Client.Conn)
	require.NoError(t, err)
	require.True(t, transport.IsTLS())
	require.NoError(t, transport.Close())
}

func TestAccept_bytesBehindTheLoginWithinTLS_areLeft(t *testing.T) {
	t.Parallel()
	const behind = "Q\x00\x00\x00\x06;\x00"
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa"))})
	s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(a.trusting()).send(append(startup(v30, "user", "app"), behind...))
	got := make([]byte, len(behind))
	_, err := io.ReadFull(s.next(t).res.Client.Conn, got)
	require.NoError(t, err)
	require.Equal(t, behind, string(got))
}

func TestAccept_directTLS_needsALPN(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa"))})
	s.dial(t).startTLS(a.trusting("postgresql")).send(startup(v30, "user", "app")).expect(okMessage)
	require.NotNil(t, s.next(t).res.Client)

	require.Equal(t, "08P01", s.dial(t).startTLS(a.trusting()).fatal().Code)
	require.Error(t, s.next(t).err)

	err := tls.Client(s.dial(t), a.trusting("h2")).Handshake()
	require.ErrorContains(t, err, "no application protocol")
	require.Error(t, s.next(t).err)

	c := s.dial(t).startTLS(a.trusting("postgresql")).send(packet(sslReq, ""))
	require.Equal(t, "0A000", c.fatal().Code)
}

func TestAccept_directTLSWhereNoneIsOffered_isClosed(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	require.Error(t, tls.Client(s.dial(t), a.trusting("postgresql")).Handshake())
	require.ErrorContains(t, s.next(t).err, "not offered")
}

// CVE-2021-3935: what is sent behind a request for encryption must not count as encrypted.
func TestAccept_bytesStuffedBehindSSLRequest_areRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for _, config := range []func() *tls.Config{nil, fixed(a.serverTLS(t, "server", "ecdsa"))} {
		s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: config})
		for _, code := range []uint32{sslReq, gssReq} {
			c := s.dial(t).send(append(packet(code, ""), startup(v30, "user", "app")...))
			require.Equal(t, "08P01", c.fatal().Code)
			require.ErrorContains(t, s.next(t).err, "received unencrypted data")
		}
	}
}

func TestAccept_handshakeFails_clientIsSentNoPlainText(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa"))})
	b, _ := io.ReadAll(s.dial(t).send(packet(sslReq, "")).expect("S").send(startup(v30, "user", "app")))
	require.NotContains(t, string(b), "FATAL")
	require.ErrorContains(t, s.next(t).err, "TLS handshake")
}

func TestAccept_tlsRequired_plainClientIsRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(a.serverTLS(t, "server", "ecdsa")), RequireTLS: true})
	require.Equal(t, "28000", s.dial(t).send(startup(v30, "user", "app")).fatal().Code)
	require.Error(t, s.next(t).err)
	s.dial(t).send(packet(cancelReq, "\x00\x00\x00\x07abcd"))
	require.NotNil(t, s.next(t).res.Cancel, "libpq before 17 cancels in the clear")
}

func TestAccept_clientCertificate_isVerifiedAsConfigured(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	a.serverTLS(t, "server", "ecdsa")
	files := a.files("server")
	files.CA = a.path("ca.crt")
	config, err := files.Load()
	require.NoError(t, err)
	for _, name := range []string{"app", "other"} {
		a.sign(t, name, newKey(t, "ecdsa"))
	}
	stranger.sign(t, "app", newKey(t, "ecdsa"))
	pair := func(a *authority, name string) []tls.Certificate {
		p, err := tls.LoadX509KeyPair(a.path(name+".crt"), a.path(name+".key"))
		require.NoError(t, err)
		return []tls.Certificate{p}
	}
	for _, tt := range []struct {
		mode  login.ClientCert
		certs []tls.Certificate
		want  string // SQLSTATE
	}{
		{login.CertNone, nil, ""},
		{login.CertNone, pair(a, "other"), ""},
		{login.CertVerifyCA, nil, "28000"},
		{login.CertVerifyCA, pair(a, "other"), ""},
		{login.CertVerifyFull, nil, "28000"},
		{login.CertVerifyFull, pair(a, "other"), "28000"},
		{login.CertVerifyFull, pair(a, "app"), ""},
	} {
		s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(config), ClientCert: tt.mode})
		clientTLS := a.trusting()
		clientTLS.Certificates = tt.certs
		c := s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(clientTLS).send(startup(v30, "user", "app"))
		if tt.want == "" {
			c.expect(okMessage)
		} else {
			require.Equal(t, tt.want, c.fatal().Code)
		}
		if tt.mode != login.CertNone {
			require.Equal(t, "28000", s.dial(t).send(startup(v30, "user", "app")).fatal().Code, "without TLS")
		}
	}
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(config)})
	clientTLS := a.trusting()
	// GetClientCertificate, since a Go client holds back a certificate that the server's CA has not signed.
	clientTLS.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &pair(stranger, "app")[0], nil
	}
	_, _ = io.ReadAll(tls.Client(s.dial(t).send(packet(sslReq, "")).expect("S"), clientTLS))
	require.ErrorContains(t, s.next(t).err, "TLS handshake", "a certificate of nobody we know")
}

func TestAccept_certificateReplaced_newClientsSeeItAndOldOnesStay(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	var current atomic.Pointer[tls.Config]
	current.Store(a.serverTLS(t, "first", "ecdsa"))
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), TLS: current.Load})
	connect := func() *raw {
		c := s.dial(t).send(packet(sslReq, "")).expect("S").startTLS(a.trusting()).send(startup(v30, "user", "app")).expect(okMessage)
		require.NotNil(t, s.next(t).res.Client)
		return c
	}
	name := func(c *raw) string {
		return c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	old := connect()
	require.Equal(t, "first", name(old))
	current.Store(a.serverTLS(t, "second", "ecdsa"))
	require.Equal(t, "second", name(connect()))
	kind, _ := old.message()
	require.Equal(t, "S", string(kind), "the old connection goes on")

	current.Store(nil)
	s.dial(t).send(packet(sslReq, "")).expect("N")
}

func TestCertFiles_badFiles_areReported(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.serverTLS(t, "server", "ecdsa")
	a.write(t, "garbage.pem", []byte("garbage"))
	good := a.files("server")
	for what, f := range map[string]login.CertFiles{
		"missing":  {Cert: a.path("missing"), Key: good.Key},
		"garbage":  {Cert: a.path("garbage.pem"), Key: good.Key},
		"mismatch": {Cert: good.Cert, Key: a.path("ca.key")},
		"CA":       {Cert: good.Cert, Key: good.Key, CA: a.path("garbage.pem")},
		"no CA":    {Cert: good.Cert, Key: good.Key, CA: a.path("missing")},
	} {
		_, err := f.Load()
		require.Error(t, err, what)
		require.Contains(t, err.Error(), a.dir, "%s: the fault names a file", what)
	}
	config, err := good.Load()
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS12), config.MinVersion)
	good.MinVersion = tls.VersionTLS13
	config, err = good.Load()
	require.NoError(t, err)
	require.Equal(t, uint16(tls.VersionTLS13), config.MinVersion)
	require.NoError(t, os.Remove(good.Key))
	_, err = good.Load()
	require.ErrorIs(t, err, os.ErrNotExist)
}
