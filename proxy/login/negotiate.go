package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/loop"
)

// The codes that stand in the place of a protocol version, and the name of the protocol in TLS (ALPN).
const (
	cancelRequest = 1234<<16 | 5678
	sslRequest    = 1234<<16 | 5679
	gssRequest    = 1234<<16 | 5680

	alpn = "postgresql"
)

// maxStartup is the longest startup packet in bytes, without its length word: MAX_STARTUP_PACKET_LENGTH in PostgreSQL's source.
const maxStartup = 10_000

// recordHandshake is the first byte of a TLS handshake. As the first byte of a length it would mean a packet of 369 MB.
const recordHandshake = 0x16

// negotiate answers requests for encryption until the client asks for something else: a session or a cancellation.
// Each may be asked for once, as in PostgreSQL.
func (l *login) negotiate(ctx context.Context) (code uint32, body []byte, err error) {
	var sslAsked, gssAsked bool
	if first, ok := peek(l.raw, true); ok && first == recordHandshake {
		sslAsked, gssAsked = true, true
		if err := l.directTLS(ctx); err != nil {
			return 0, nil, err
		}
	}
	for {
		code, body, err = l.readPacket()
		ssl, gss := code == sslRequest && !sslAsked, code == gssRequest && !gssAsked
		switch {
		case err != nil, !ssl && !gss:
			return code, body, err
		case len(body) > 0:
			err = violation("invalid length of startup packet")
		case ssl:
			sslAsked = true
			err = l.answerSSL(ctx)
			gssAsked = gssAsked || l.tls != nil
		case gss:
			gssAsked = true
			err = l.decline("GSSAPI")
		}
		if err != nil {
			return 0, nil, err
		}
	}
}

// readPacket reads one packet of the startup phase: a length and a code, with no type byte before them.
func (l *login) readPacket() (code uint32, body []byte, err error) {
	var head [4]byte
	if n, err := l.read(head[:]); err != nil {
		if n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
			err = ErrProbe
		}
		return 0, nil, fmt.Errorf("read startup packet: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < 8 || n-4 > maxStartup {
		return 0, nil, violation("invalid length of startup packet")
	}
	packet := make([]byte, n-4)
	if _, err := l.read(packet); err != nil {
		return 0, nil, fmt.Errorf("read startup packet: %w", err)
	}
	return binary.BigEndian.Uint32(packet), packet[4:], nil
}

// tlsConfig returns what to offer TLS with on this connection, nil for none.
func (l *login) tlsConfig() *tls.Config {
	if l.cfg.TLS == nil || l.unix() {
		return nil
	}
	return l.cfg.TLS()
}

func (l *login) unix() bool {
	_, unix := l.raw.RemoteAddr().(*net.UnixAddr)
	return unix
}

// answerSSL begins TLS, or declines it.
func (l *login) answerSSL(ctx context.Context) error {
	config := l.tlsConfig()
	if config == nil {
		return l.decline("SSL")
	}
	if err := l.checkEmpty("SSL"); err != nil {
		return err
	}
	l.out = append(l.out, 'S')
	if err := l.flush(); err != nil {
		return err
	}
	return l.beginTLS(ctx, config)
}

// decline says that the encryption asked for is not to be had; the client may go on without, or ask for the other kind.
func (l *login) decline(kind string) error {
	if err := l.checkEmpty(kind); err != nil {
		return err
	}
	l.out = append(l.out, 'N')
	return l.flush()
}

// checkEmpty refuses a client that has sent bytes behind its request without waiting for the answer. Nothing of
// ours would take them for encrypted ones (CVE-2021-3935), but a client that does so is faulty, or is not alone on the line.
func (l *login) checkEmpty(kind string) error {
	if _, waiting := peek(l.raw, false); waiting {
		return violation("received unencrypted data after " + kind + " request")
	}
	return nil
}

// directTLS begins TLS with a client that did not ask whether it may. There ALPN is mandatory, so that no other
// protocol's client can be made to speak to us.
func (l *login) directTLS(ctx context.Context) error {
	config := l.tlsConfig()
	if config == nil {
		l.mute = true
		return errors.New("client began TLS, which is not offered here")
	}
	if err := l.beginTLS(ctx, config); err != nil {
		return err
	}
	if l.tls.ConnectionState().NegotiatedProtocol != alpn {
		return violation(`direct TLS needs the application protocol "` + alpn + `" (ALPN)`)
	}
	return nil
}

// beginTLS does the handshake. The tls.Conn is built on a loop.Socket, so that it can move into a loop later on.
func (l *login) beginTLS(ctx context.Context, config *tls.Config) error {
	l.mute = true
	conn := tls.Server(loop.NewSocket(l.raw), config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	l.mute = false
	l.tls, l.conn = conn, conn
	l.binding = binding(config)
	return nil
}

// binding returns the channel binding data of config's certificate. With several to choose from it is not known
// which one the client has seen, and there is none.
func binding(config *tls.Config) []byte {
	if len(config.Certificates) != 1 || config.GetCertificate != nil || config.GetConfigForClient != nil {
		return nil
	}
	leaf := config.Certificates[0].Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(config.Certificates[0].Certificate[0]); err != nil {
			return nil
		}
	}
	return auth.EndpointBinding(leaf)
}

// checkTLS refuses a client that has less of TLS than it must have. Unix sockets need none.
func (l *login) checkTLS(user string) error {
	if l.unix() {
		return nil
	}
	want := l.cfg.ClientCert
	if l.tls == nil {
		if !l.cfg.RequireTLS && want == CertNone {
			return nil
		}
		return &auth.FatalError{SQLState: "28000", Message: "connection requires TLS", Hint: "Connect with sslmode=require or stricter."}
	}
	if want == CertNone {
		return nil
	}
	chains := l.tls.ConnectionState().VerifiedChains
	if len(chains) == 0 {
		return &auth.FatalError{
			SQLState: "28000", Message: "connection requires a valid client certificate",
			Hint: "Connect with sslcert and sslkey.",
		}
	}
	if name := chains[0][0].Subject.CommonName; want == CertVerifyFull && name != user {
		return &auth.FatalError{
			SQLState: "28000", Message: fmt.Sprintf(`certificate authentication failed for user "%s"`, user),
			Cause: fmt.Errorf("the certificate's common name is %q", name),
		}
	}
	return nil
}
