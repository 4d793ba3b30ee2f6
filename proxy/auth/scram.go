package auth

import (
	"bytes"
	"crypto/hmac"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
	"github.com/xdg-go/stringprep"
)

const (
	mechanism     = "SCRAM-SHA-256"
	mechanismPlus = "SCRAM-SHA-256-PLUS"

	// maxSASL is the longest SASL message accepted, in bytes; PG_MAX_SASL_MESSAGE_LENGTH in PostgreSQL's source.
	maxSASL = 1024
)

// keys are what SCRAM verifies a proof by (RFC 5802 section 3): salt, iteration count, StoredKey and ServerKey.
type keys = scram.StoredCredentials

// deriver computes the keys of a password: PBKDF2, all of the cost of SCRAM. Tests count its calls.
type deriver func(password string, f scram.KeyFactors) (keys, error)

// deriveKeys is the deriver.
func deriveKeys(password string, f scram.KeyFactors) (keys, error) {
	c, err := scram.SHA256.NewClientUnprepped("", prepare(password), "")
	if err != nil {
		return keys{}, err
	}
	return c.GetStoredCredentialsWithError(f)
}

// prepare is SASLprep (RFC 4013) as PostgreSQL does it: what is prohibited is looked for before the normalisation, not
// after it, and a password that is refused, such as one that is not UTF-8 or of which nothing remains, is taken as it is.
func prepare(password string) string {
	// U+200B is in both of the RFC's mapping tables. PostgreSQL makes it a space, the library removes it.
	spaced := strings.ReplaceAll(password, "\u200b", " ")
	check, normalise := stringprep.SASLprep, stringprep.Profile{Mappings: stringprep.SASLprep.Mappings, Normalize: true}
	check.Normalize = false
	if _, err := check.Prepare(spaced); err != nil {
		return password
	}
	if p, err := normalise.Prepare(spaced); err == nil && p != "" {
		return p
	}
	return password
}

// EndpointBinding returns the tls-server-end-point channel binding data (RFC 5929) of a server's certificate, nil when
// its signature algorithm names no hash (Ed25519), so that there is none.
func EndpointBinding(server *x509.Certificate) []byte {
	// The library takes the client's view of a connection, where the server is the peer.
	b, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{server}})
	if err != nil {
		return nil
	}
	return b.Data
}

// scramExchange runs a SCRAM-SHA-256 exchange (RFC 5802, RFC 7677) by k and says whether the client's proof is
// right. A mock (genuine is false) runs through to its end and fails.
func scramExchange(c Client, k keys, genuine bool, binding []byte) (bool, error) {
	offer := []string{mechanism}
	if binding != nil {
		offer = []string{mechanismPlus, mechanism}
	}
	body, err := c.Ask(&pgproto3.AuthenticationSASL{AuthMechanisms: offer}, maxSASL)
	if err != nil {
		return false, err
	}
	plus, first, err := parseInitial(body, binding != nil)
	if err != nil {
		return false, err
	}
	if first == nil { // the client waits to be asked, as SASL lets it
		if first, err = c.Ask(&pgproto3.AuthenticationSASLContinue{}, maxSASL); err != nil {
			return false, err
		}
	}
	conv, err := newConversation(k, plus, binding)
	if err != nil {
		return false, err
	}
	challenge, err := clientFirst(conv, string(first), plus)
	if err != nil {
		return false, err
	}
	final, err := c.Ask(&pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}, maxSASL)
	if err != nil {
		return false, err
	}
	verifier, err := conv.Step(string(final))
	switch {
	case err == nil && genuine:
		return true, c.Tell(&pgproto3.AuthenticationSASLFinal{Data: []byte(verifier)})
	case err == nil, verifier == scram.ErrInvalidProof:
		return false, nil
	case verifier == scram.ErrChannelBindingsDontMatch:
		return false, &FatalError{SQLState: "28000", Message: "SCRAM channel binding check failed", Cause: err}
	default:
		return false, violation("malformed SCRAM message", "", err)
	}
}

// parseInitial reads a SASLInitialResponse: the mechanism chosen, and the client's first message, nil when it sent none.
func parseInitial(body []byte, offerPlus bool) (plus bool, first []byte, err error) {
	name, rest, ok := bytes.Cut(body, []byte{0})
	if !ok || len(rest) < 4 {
		return false, nil, violation("invalid SASL initial response", "", nil)
	}
	plus = string(name) == mechanismPlus
	if plus && !offerPlus || !plus && string(name) != mechanism {
		return false, nil, violation("client selected an invalid SASL authentication mechanism", "", nil)
	}
	length, first := binary.BigEndian.Uint32(rest), rest[4:]
	switch {
	case length == 0xFFFFFFFF && len(first) == 0:
		return plus, nil, nil
	case uint64(length) != uint64(len(first)):
		return false, nil, violation("invalid SASL initial response", "", nil)
	}
	return plus, first, nil
}

// newConversation prepares the server's side. The user name within SCRAM is ignored, as in PostgreSQL: the startup
// packet's counts, and k is already that user's.
func newConversation(k keys, plus bool, binding []byte) (*scram.ServerConversation, error) {
	s, err := scram.SHA256.NewServer(func(string) (keys, error) { return k, nil })
	if err != nil {
		return nil, err
	}
	cb := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: binding}
	switch {
	case plus:
		return s.NewConversationWithChannelBindingRequired(cb), nil
	case binding != nil: // a client that says that PLUS was not offered has been lied to
		return s.NewConversationWithChannelBinding(cb), nil
	default:
		return s.NewConversation(), nil
	}
}

// clientFirst takes the client's first message and returns the server's.
func clientFirst(conv *scram.ServerConversation, first string, plus bool) (string, error) {
	if strings.ContainsFunc(first, func(r rune) bool { return r < ' ' || r == 0x7F || r == '\uFFFD' }) {
		return "", violation("malformed SCRAM message", "Unprintable characters.", nil)
	}
	if !plus && strings.HasPrefix(first, "p") {
		return "", violation("malformed SCRAM message",
			"The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data.", nil)
	}
	challenge, err := conv.Step(first)
	switch {
	case err == nil && conv.AuthzID() != "":
		return "", &FatalError{SQLState: "0A000", Message: "client uses authorization identity, but it is not supported"}
	case err == nil:
		return challenge, nil
	case challenge == scram.ErrServerDoesSupportChannelBinding && !plus:
		return "", &FatalError{
			SQLState: "28000",
			Message:  "SCRAM channel binding negotiation error",
			Detail:   "The client supports SCRAM channel binding but thinks the server does not. However, this server does support channel binding.",
			Cause:    err,
		}
	default:
		return "", violation("malformed SCRAM message", "", err)
	}
}

// verifyKeys says whether the password has the keys k, for a client that gave it in clear text.
func (p *Policy) verifyKeys(password string, k keys) (bool, error) {
	got, err := p.derive(password, k.KeyFactors)
	return err == nil && hmac.Equal(got.StoredKey, k.StoredKey), err
}
