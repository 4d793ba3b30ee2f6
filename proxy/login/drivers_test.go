package login_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"
	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
)

// driver connects and says how that went.
type driver struct {
	name    string
	connect func(ctx context.Context, dsn string) error
}

var drivers = []driver{
	{"pgconn", func(ctx context.Context, dsn string) error {
		conn, err := pgconn.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		_ = conn.Conn().Close() // nobody would answer an orderly end
		return nil
	}},
	{"pq", func(ctx context.Context, dsn string) error {
		c, err := pq.NewConnector(dsn)
		if err != nil {
			return err
		}
		conn, err := c.Connect(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}},
}

func TestAccept_drivers_logInByEveryMethod(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	offered := a.serverTLS(t, "server", "ecdsa")
	modes := map[string]string{"disable": "sslmode=disable", "verify-full": "sslmode=verify-full sslrootcert=" + a.path("ca.crt")}
	for _, d := range drivers {
		for mode, settings := range modes {
			for _, method := range []auth.Method{auth.Trust, auth.Password, auth.MD5, auth.SCRAM} {
				t.Run(fmt.Sprintf("%s/%s/%s", d.name, mode, method), func(t *testing.T) {
					t.Parallel()
					s := serve(t, login.Config{Auth: policy(t, method), TLS: fixed(offered)})
					dsn := fmt.Sprintf("host=127.0.0.1 port=%d dbname=shop connect_timeout=20 %s ", s.addr().Port, settings)
					require.NoError(t, d.connect(t.Context(), dsn+"user=app password=secret"))
					o := s.next(t)
					require.NoError(t, o.err)
					require.Equal(t, "shop", o.res.Client.Database)
					require.Equal(t, "app", o.res.Client.Identity.User)
					_, isTLS := o.res.Client.Conn.(*tls.Conn)
					require.Equal(t, mode != "disable", isTLS)
					if method == auth.Trust {
						return
					}
					for _, who := range []string{"user=app password=wrong", "user=stranger password=secret"} {
						err := d.connect(t.Context(), dsn+who)
						require.ErrorContains(t, err, "password authentication failed for user")
						require.ErrorContains(t, err, "28P01")
						require.Error(t, s.next(t).err)
					}
				})
			}
		}
	}
}

func TestAccept_pgconnWithTLSPreferred_takesASecondConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app sslmode=prefer", s.addr().Port)
	require.NoError(t, drivers[0].connect(t.Context(), dsn))
	require.ErrorIs(t, s.next(t).err, login.ErrProbe)
	require.NoError(t, s.next(t).err)
}

func TestAccept_channelBinding_isOfferedWhereTheCertificateAllows(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	for kind, required := range map[string]bool{"ecdsa": true, "rsa": true, "ed25519": false} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := serve(t, login.Config{Auth: policy(t, auth.SCRAM), TLS: fixed(a.serverTLS(t, kind, kind))})
			dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app password=secret sslmode=require channel_binding=", s.addr().Port)
			require.NoError(t, drivers[0].connect(t.Context(), dsn+"disable"))
			require.NoError(t, s.next(t).err)
			require.NoError(t, drivers[0].connect(t.Context(), dsn+"prefer"))
			require.NoError(t, s.next(t).err)
			err := drivers[0].connect(t.Context(), dsn+"require")
			require.Equal(t, required, err == nil, err)
		})
	}
}

// Which of several certificates a client has seen is not known, so none is bound to.
func TestAccept_severalCertificates_bindToNone(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.serverTLS(t, "one", "ecdsa")
	config.Certificates = append(config.Certificates, a.serverTLS(t, "two", "ecdsa").Certificates...)
	s := serve(t, login.Config{Auth: policy(t, auth.SCRAM), TLS: fixed(config)})
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app password=secret sslmode=require channel_binding=", s.addr().Port)
	require.ErrorContains(t, drivers[0].connect(t.Context(), dsn+"require"), "channel binding")
	require.Error(t, s.next(t).err)
	require.NoError(t, drivers[0].connect(t.Context(), dsn+"prefer"))
}

func TestAccept_direct_pgconnWithSSLNegotiationDirect(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, login.Config{Auth: policy(t, auth.SCRAM), TLS: fixed(a.serverTLS(t, "server", "ecdsa"))})
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app password=secret sslmode=require sslnegotiation=direct channel_binding=require", s.addr().Port)
	require.NoError(t, drivers[0].connect(t.Context(), dsn))
	require.NoError(t, s.next(t).err)
}

func TestAccept_reconfigured_appliesToLaterClients(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=app sslmode=disable", s.addr().Port)
	require.NoError(t, drivers[0].connect(t.Context(), dsn))
	require.NoError(t, s.next(t).err)
	s.reconfigure(login.Config{Auth: policy(t, auth.SCRAM)})
	require.Error(t, drivers[0].connect(t.Context(), dsn))
	require.Error(t, s.next(t).err)
}
