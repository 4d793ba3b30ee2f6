package login_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests; it is only spent when one fails.
const patience = 20 * time.Second

// outcome is what one call of Accept returned.
type outcome struct {
	res login.Result
	err error
}

// server accepts clients by a configuration that a test may swap, greets those who get in, and keeps what Accept returned.
type server struct {
	listener net.Listener
	configs  chan login.Config // holds the one in force
	outcomes chan outcome
	done     chan struct{}
}

// serve starts a server on loopback; it ends with the test.
func serve(t *testing.T, cfg login.Config) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return serveOn(t, l, cfg)
}

func serveOn(t *testing.T, l net.Listener, cfg login.Config) *server {
	t.Helper()
	s := &server{listener: l, configs: make(chan login.Config, 1), outcomes: make(chan outcome, 100), done: make(chan struct{})}
	s.configs <- cfg
	go s.run(t.Context())
	t.Cleanup(func() {
		_ = l.Close()
		<-s.done
	})
	return s
}

func (s *server) run(ctx context.Context) {
	defer close(s.done)
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		cfg := <-s.configs
		s.configs <- cfg
		res, err := login.Accept(ctx, conn, cfg)
		if res.Client != nil {
			greet(res.Client.Conn)
		}
		if res.Cancel != nil {
			res.Cancel.Conn.Close()
		}
		s.outcomes <- outcome{res, err}
	}
}

// reconfigure applies to the connections that are accepted from now on.
func (s *server) reconfigure(cfg login.Config) {
	<-s.configs
	s.configs <- cfg
}

func (s *server) addr() *net.TCPAddr { return s.listener.Addr().(*net.TCPAddr) }

// next returns the next outcome. A client's connection is closed with the test.
func (s *server) next(t *testing.T) outcome {
	t.Helper()
	select {
	case o := <-s.outcomes:
		if o.res.Client != nil {
			t.Cleanup(func() { o.res.Client.Conn.Close() })
		}
		return o
	case <-time.After(patience):
		require.Fail(t, "no login has ended")
		return outcome{}
	}
}

// greet sends what a session sends first, so that a driver takes the connection for established.
func greet(conn net.Conn) {
	var b []byte
	for _, m := range []pgproto3.BackendMessage{
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"},
		&pgproto3.ParameterStatus{Name: "server_version", Value: "18.0"},
		&pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte("abcd")},
		&pgproto3.ReadyForQuery{TxStatus: 'I'},
	} {
		b, _ = m.Encode(b)
	}
	_, _ = conn.Write(b)
}

// policy makes a policy for user "app" with password "secret".
func policy(t testing.TB, method auth.Method) *auth.Policy {
	t.Helper()
	p, err := auth.New(auth.Config{Method: method, Upstream: auth.Identity{User: "app", Password: "secret"}})
	require.NoError(t, err)
	return p
}

// raw is a client that sends bytes.
type raw struct {
	t *testing.T
	net.Conn
}

func (s *server) dial(t *testing.T) *raw {
	t.Helper()
	conn, err := net.Dial(s.listener.Addr().Network(), s.listener.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	return &raw{t, conn}
}

func (r *raw) send(b []byte) *raw {
	r.t.Helper()
	_, err := r.Write(b)
	require.NoError(r.t, err)
	return r
}

// expect reads exactly want.
func (r *raw) expect(want string) *raw {
	r.t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	require.NoError(r.t, err)
	require.Equal(r.t, want, string(got))
	return r
}

// rest reads up to the end of the connection, which has to be an orderly one, and closes it.
func (r *raw) rest() []byte {
	r.t.Helper()
	b, err := io.ReadAll(r)
	require.NoError(r.t, err)
	r.Close()
	return b
}

// startTLS changes to TLS without asking.
func (r *raw) startTLS(config *tls.Config) *raw {
	r.t.Helper()
	conn := tls.Client(r.Conn, config)
	require.NoError(r.t, conn.Handshake())
	return &raw{r.t, conn}
}

// message reads one message.
func (r *raw) message() (kind byte, body []byte) {
	r.t.Helper()
	var head [5]byte
	_, err := io.ReadFull(r, head[:])
	require.NoError(r.t, err)
	body = make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	_, err = io.ReadFull(r, body)
	require.NoError(r.t, err)
	return head[0], body
}

// fatal reads one ErrorResponse and then the end of the connection.
func (r *raw) fatal() *pgproto3.ErrorResponse {
	r.t.Helper()
	kind, body := r.message()
	require.Equal(r.t, "E", string(kind))
	var e pgproto3.ErrorResponse
	require.NoError(r.t, e.Decode(body))
	require.Equal(r.t, "FATAL", e.Severity)
	require.Empty(r.t, r.rest())
	return &e
}

const (
	v30       = 3 << 16
	v32       = 3<<16 | 2
	cancelReq = 1234<<16 | 5678
	sslReq    = 1234<<16 | 5679
	gssReq    = 1234<<16 | 5680
	okMessage = "R\x00\x00\x00\x08\x00\x00\x00\x00"
)

// packet is a packet of the startup phase.
func packet(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

// startup is a StartupMessage of names and values.
func startup(version uint32, names ...string) []byte {
	var body []byte
	for _, s := range names {
		body = append(append(body, s...), 0)
	}
	return packet(version, string(append(body, 0)))
}

// password is a PasswordMessage.
func password(s string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{'p'}, uint32(5+len(s)))
	return append(append(b, s...), 0)
}

// authority is a CA that lives for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir(), pool: x509.NewCertPool()}
	a.key = newKey(t, "ecdsa")
	a.cert = a.sign(t, "ca", a.key)
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t *testing.T, kind string) (key crypto.Signer) {
	t.Helper()
	var err error
	switch kind {
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	require.NoError(t, err)
	return key
}

// sign writes name.crt and name.key into a's directory. A key that is not ECDSA signs itself, so that the signature is of
// its kind.
func (a *authority) sign(t *testing.T, name string, key crypto.Signer) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: name == "ca", BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if _, isECDSA := key.(*ecdsa.PrivateKey); !isECDSA || parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	require.NoError(t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	a.write(t, name+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func (a *authority) write(t *testing.T, name string, b []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(a.path(name), b, 0o600))
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// files are the files of a certificate made by sign.
func (a *authority) files(name string) login.CertFiles {
	return login.CertFiles{Cert: a.path(name + ".crt"), Key: a.path(name + ".key")}
}

// serverTLS makes a certificate of the kind and the configuration that offers it.
func (a *authority) serverTLS(t *testing.T, name, kind string) *tls.Config {
	t.Helper()
	a.sign(t, name, newKey(t, kind))
	config, err := a.files(name).Load()
	require.NoError(t, err)
	return config
}

func fixed(config *tls.Config) func() *tls.Config { return func() *tls.Config { return config } }

// memory is a connection whose client has sent everything in advance and then gone.
type memory struct {
	in     *bytes.Reader
	out    bytes.Buffer
	closed bool
}

func (m *memory) Read(p []byte) (int, error) {
	if m.closed {
		return 0, net.ErrClosed
	}
	return m.in.Read(p)
}

func (m *memory) Write(p []byte) (int, error) {
	if m.closed {
		return 0, errors.New("write after close")
	}
	return m.out.Write(p)
}

func (m *memory) Close() error        { m.closed = true; return nil }
func (m *memory) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (m *memory) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (m *memory) SetDeadline(time.Time) error      { return nil }
func (m *memory) SetReadDeadline(time.Time) error  { return nil }
func (m *memory) SetWriteDeadline(time.Time) error { return nil }
