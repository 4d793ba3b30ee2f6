package proxy

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync/atomic"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/pool"
	"pgsidecar/proxy/server"
)

// tlsFiles is the encryption offered to clients, as it was last read from its files.
type tlsFiles struct{ loaded atomic.Pointer[tls.Config] }

func (t *tlsFiles) current() *tls.Config { return t.loaded.Load() }

// prepare makes a Config ready. previous is what it follows, or nil.
func prepare(config Config, previous *setting) (*setting, error) {
	next := &setting{config: config, dialer: server.NewDialer(config.Server)}
	var err error
	if previous == nil {
		next.policy, err = auth.New(config.Auth)
	} else {
		next.policy, err = previous.policy.Reload(config.Auth)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare authentication: %w", err)
	}
	if config.TLS != nil {
		loaded, err := config.TLS.Load()
		if err != nil {
			return nil, fmt.Errorf("prepare TLS for clients: %w", err)
		}
		next.tls = new(tlsFiles)
		next.tls.loaded.Store(loaded)
	}
	return next, nil
}

// Reload applies a new Config, as far as that can be done while the proxy works; Listen and Loops cannot. Certificates and
// users are read again. Server connections are replaced only if the way to the server has changed. After an error
// everything is as it was.
func (p *Proxy) Reload(config Config) error {
	previous := p.setting.Load()
	config.Loops = previous.config.Loops
	if config.Server.Upstream == nil {
		return errors.New("no upstream: there is no server to connect to")
	}
	next, err := prepare(config, previous)
	if err != nil {
		return err
	}
	p.setting.Store(next)
	p.configurePool()
	for _, w := range p.workers {
		w.Configure(config.Session)
	}
	if !sameServer(previous.config.Server, config.Server) {
		const why = "the way to the server has changed"
		p.target.Recycle(why)
		p.standbys.each(func(t *pool.Target) { t.Recycle(why) })
	}
	return nil
}

// sameServer tells whether connections made by the one configuration are as good as those made by the other.
func sameServer(a, b server.Config) bool {
	a.Upstream, b.Upstream = nil, nil // made from Source
	return a == b
}
