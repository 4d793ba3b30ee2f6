package login

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// CertFiles are the files that TLS is offered to clients with, in PEM.
type CertFiles struct {
	Cert string // the certificate, followed by those between it and the root
	Key  string // its private key
	// CA are the roots that a client's certificate is verified by; "" asks clients for none.
	CA string
	// MinVersion is the lowest version of TLS, as crypto/tls numbers them; 0 means TLS 1.2.
	MinVersion uint16
}

// Load reads the files and makes the configuration for Config.TLS. It can be called at any time, so that a reload
// swaps the configuration only when the new files are good.
//
// A client certificate is asked for but not insisted on here: Accept does that, in words. There are no session tickets,
// as in PostgreSQL: a resumed session would not be checked by the CA of today.
func (f CertFiles) Load() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s and key %s: %w", f.Cert, f.Key, err)
	}
	config := &tls.Config{
		Certificates:           []tls.Certificate{pair},
		MinVersion:             cmp.Or(f.MinVersion, tls.VersionTLS12),
		NextProtos:             []string{alpn},
		SessionTicketsDisabled: true,
	}
	if f.CA == "" {
		return config, nil
	}
	pem, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, fmt.Errorf("load client CA: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("load client CA %s: it holds no certificate in PEM", f.CA)
	}
	config.ClientAuth = tls.VerifyClientCertIfGiven
	return config, nil
}
