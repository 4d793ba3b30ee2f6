package loop

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Package crypto/tls answers a KeyUpdate but never sends one, so the peer of this test makes its records by hand
// (RFC 8446, sections 4.6.3, 5 and 7).

// trafficKey is one direction's key of TLS 1.3 with AES-128-GCM.
type trafficKey struct {
	t      *testing.T
	secret []byte
	seq    uint64
}

func (k *trafficKey) expand(label string, length int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(append(append(info, byte(len(label))), label...), 0)
	b, err := hkdf.Expand(sha256.New, k.secret, string(info), length)
	require.NoError(k.t, err)
	return b
}

// next returns the cipher and the nonce of the next record.
func (k *trafficKey) next() (aead cipher.AEAD, nonce []byte) {
	block, err := aes.NewCipher(k.expand("key", 16))
	require.NoError(k.t, err)
	aead, err = cipher.NewGCM(block)
	require.NoError(k.t, err)
	nonce = k.expand("iv", aead.NonceSize())
	for i, b := range binary.BigEndian.AppendUint64(nil, k.seq) {
		nonce[4+i] ^= b
	}
	k.seq++
	return aead, nonce
}

// update moves on to the next generation of keys.
func (k *trafficKey) update() { k.secret, k.seq = k.expand("traffic upd", 32), 0 }

func (k *trafficKey) seal(kind byte, text string) []byte {
	aead, nonce := k.next()
	plain := append([]byte(text), kind)
	header := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(plain)+aead.Overhead()))
	return aead.Seal(header, nonce, plain, header)
}

func (k *trafficKey) open(r io.Reader) (kind byte, text string) {
	header := make([]byte, 5)
	_, err := io.ReadFull(r, header)
	require.NoError(k.t, err)
	sealed := make([]byte, binary.BigEndian.Uint16(header[3:]))
	_, err = io.ReadFull(r, sealed)
	require.NoError(k.t, err)
	aead, nonce := k.next()
	plain, err := aead.Open(nil, nonce, sealed, header)
	require.NoError(k.t, err)
	return plain[len(plain)-1], string(plain[:len(plain)-1])
}

// loggedKey finds a secret in what tls.Config.KeyLogWriter got.
func loggedKey(t *testing.T, log, label string) *trafficKey {
	t.Helper()
	for line := range strings.Lines(log) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == label {
			secret, err := hex.DecodeString(f[2])
			require.NoError(t, err)
			return &trafficKey{t: t, secret: secret}
		}
	}
	require.FailNow(t, "no key logged", label)
	return nil
}

func TestTLS_keyUpdateSplitOverRecords_isAnswered(t *testing.T) {
	const handshakeRecord, dataRecord = 22, 23
	server, client := testTLS(t, tls.VersionTLS13)
	server.SessionTicketsDisabled = true // The first record of each side is the test's.
	var log bytes.Buffer
	client.KeyLogWriter = &log
	l := start(t, Config{})
	rawOurs, far := tcpPair(t)
	ours, theirs := handshake(t, asServer(server), asClient(client), rawOurs, far)
	if theirs.ConnectionState().CipherSuite != tls.TLS_AES_128_GCM_SHA256 {
		t.Skip("this machine prefers a cipher that the test does not speak")
	}
	in, out := loggedKey(t, log.String(), "CLIENT_TRAFFIC_SECRET_0"), loggedKey(t, log.String(), "SERVER_TRAFFIC_SECRET_0")

	p := &probe{}
	var got []string
	var failure error
	told := make(chan struct{}, 10)
	p.readable = func(bool) {
		b, err := p.conn.Read()
		if err == nil {
			got = append(got, string(b))
			failure = p.conn.Write([]byte("pong"))
		} else if err != ErrWouldBlock { //nolint:errorlint // It is returned as it is.
			failure = err
		}
		told <- struct{}{}
	}
	p.attach(t, l, ours)
	receive(t, told)

	_, err := far.Write(in.seal(handshakeRecord, "\x18\x00\x00"))
	require.NoError(t, err)
	receive(t, told)
	_, err = far.Write(in.seal(handshakeRecord, "\x01\x01")) // Update requested.
	require.NoError(t, err)
	receive(t, told)
	kind, text := out.open(far)
	require.EqualValues(t, handshakeRecord, kind)
	require.Equal(t, "\x18\x00\x00\x01\x00", text)

	in.update()
	out.update()
	_, err = far.Write(in.seal(dataRecord, "ping"))
	require.NoError(t, err)
	receive(t, told)
	kind, text = out.open(far)
	require.EqualValues(t, dataRecord, kind)
	require.Equal(t, "pong", text)
	var heard []string
	on(t, l, func() { heard, err = got, failure })
	require.NoError(t, err)
	require.Equal(t, []string{"ping"}, heard)
}
