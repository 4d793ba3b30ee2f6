package login_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/auth"
	"pgsidecar/proxy/login"
)

func TestAccept_startupPacket_isReadWhole(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	const options = `-c work_mem=1MB --search-path=a\ b -c datestyle=SQL`
	s.dial(t).send(startup(v30,
		"user", "nobody", "DateStyle", "ISO", "user", "app", "database", "shop", "options", options,
		"application_name", "x", "replication", "off",
	)).expect(okMessage)
	c := s.next(t).res.Client
	require.NotNil(t, c)
	require.Equal(t, []any{"app", "shop", "", uint32(v30)}, []any{c.User, c.Database, c.Replication, c.Protocol})
	require.Equal(t, []login.Param{{Name: "DateStyle", Value: "ISO"}, {Name: "application_name", Value: "x"}}, c.Parameters)
	require.Equal(t, options, c.Options)
	require.Equal(t, []login.Param{
		{Name: "work_mem", Value: "1MB"}, {Name: "search_path", Value: "a b"}, {Name: "datestyle", Value: "SQL"},
	}, c.OptionSettings)
	require.Equal(t, []login.Param{
		{Name: "work_mem", Value: "1MB"},
		{Name: "search_path", Value: "a b"},
		{Name: "DateStyle", Value: "ISO"},
		{Name: "application_name", Value: "x"},
	}, c.Settings())
	require.Equal(t, auth.Identity{User: "app", Password: "secret"}, c.Identity)
	require.IsType(t, &net.TCPConn{}, c.Conn)
}

func TestAccept_longestStartupPacket_isAccepted(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	longest := startup(v30, "user", "app", "x", strings.Repeat("x", 10_004-8-9-3-1))
	require.Len(t, longest, 10_004)
	s.dial(t).send(longest).expect(okMessage)
}

func TestAccept_databaseNotNamed_isTheUser(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	s.dial(t).send(startup(v30, "user", "app", "database", "", "replication", "database")).expect(okMessage)
	c := s.next(t).res.Client
	require.Equal(t, "app", c.Database)
	require.Equal(t, "database", c.Replication)
}

func TestAccept_malformedStart_isRefusedInWords(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	for _, tt := range []struct {
		what     string
		sent     []byte
		sqlstate string
	}{
		{"length 0", []byte{0, 0, 0, 0}, "08P01"},
		{"length 7", []byte{0, 0, 0, 7, 0, 3, 0}, "08P01"},
		{"length 10,005", startup(v30, "user", "app", "x", strings.Repeat("x", 10_005-8-9-3-1)), "08P01"},
		{"negative length", []byte{0xff, 0xff, 0xff, 0xff}, "08P01"},
		{"HTTP", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "08P01"},
		{"20 kB of garbage", []byte(strings.Repeat("garbage ", 2500)), "08P01"},
		{"length 10,004 of garbage", packet(v30, strings.Repeat("x", 9996)), "08P01"},
		{"no body", packet(v30, ""), "08P01"},
		{"no terminator", packet(v30, "user\x00app\x00"), "08P01"},
		{"name without value", packet(v30, "user\x00app\x00foo\x00"), "08P01"},
		{"value without end", packet(v30, "user\x00app"), "08P01"},
		{"bytes behind the terminator", packet(v30, "user\x00app\x00\x00x\x00"), "08P01"},
		{"two terminators", packet(v30, "user\x00app\x00\x00\x00"), "08P01"},
		{"no user", startup(v30, "database", "d"), "28000"},
		{"empty user", startup(v30, "user", ""), "28000"},
		{"replication", startup(v30, "user", "app", "replication", "maybe"), "22023"},
		{"protocol 4.0", startup(4<<16, "user", "app"), "0A000"},
		{"option without value", startup(v30, "user", "app", "options", "-c work_mem"), "42601"},
		{"switch", startup(v30, "user", "app", "options", "-e"), "0A000"},
		{"-c alone", startup(v30, "user", "app", "options", "-c"), "0A000"},
		{"cancel without secret", packet(cancelReq, "\x00\x00\x00\x07"), "08P01"},
		{"cancel without key", packet(cancelReq, ""), "08P01"},
		{"cancel with 3 bytes", packet(cancelReq, "\x00\x00\x00\x07abc"), "08P01"},
		{"cancel with 257 bytes", packet(cancelReq, "\x00\x00\x00\x07"+strings.Repeat("s", 257)), "08P01"},
	} {
		e := s.dial(t).send(tt.sent).fatal()
		require.Equal(t, tt.sqlstate, e.Code, tt.what)
		require.NotEmpty(t, e.Message, tt.what)
		var refusal *auth.FatalError
		require.ErrorAs(t, s.next(t).err, &refusal, tt.what)
		require.Equal(t, tt.sqlstate, refusal.SQLState, tt.what)
	}
}

func TestAccept_protocolsBefore30_areRefusedInTheirOwnForm(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	for version, name := range map[uint32]string{1 << 16: "1.0", 2 << 16: "2.0", 0: "0.0"} {
		got := s.dial(t).send(startup(version, "user", "app")).rest()
		require.Equal(t, "EFATAL:  unsupported frontend protocol "+name+": server supports 3.0 to 3.2\n\x00", string(got))
	}
}

// PgBouncer's #1460.
func TestAccept_protocolVersion_isNegotiated(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	for _, tt := range []struct {
		asked   uint32
		options []string
		agreed  uint32
		told    bool
	}{
		{v30, nil, v30, false},
		{v32, nil, v32, false},
		{v30 | 1, nil, v30, true},
		{v30 | 3, nil, v32, true},
		{v30 | 9999, []string{"_pq_.test_protocol_negotiation"}, v32, true},
		{v30, []string{"_pq_.x"}, v30, true},
		{v32, []string{"_pq_.x", "_pq_.y"}, v32, true},
	} {
		params := append(make([]string, 0, 6), "user", "app")
		for _, o := range tt.options {
			params = append(params, o, "1")
		}
		c := s.dial(t).send(startup(tt.asked, params...))
		if tt.told {
			kind, body := c.message()
			require.Equal(t, "v", string(kind))
			var v pgproto3.NegotiateProtocolVersion
			require.NoError(t, v.Decode(body))
			require.Equal(t, tt.agreed, v.NewestMinorProtocol)
			require.ElementsMatch(t, tt.options, v.UnrecognizedOptions)
		}
		c.expect(okMessage)
		require.Equal(t, tt.agreed, s.next(t).res.Client.Protocol)
	}
}

func TestAccept_negotiationBeforeRefusal_comesFirst(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	c := s.dial(t).send(startup(v30|9, "database", "x"))
	kind, _ := c.message()
	require.Equal(t, "v", string(kind))
	require.Equal(t, "28000", c.fatal().Code)
}

func TestAccept_encryptionDeclined_clientGoesOn(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust)})
	s.dial(t).send(packet(gssReq, "")).expect("N").send(packet(sslReq, "")).expect("N").
		send(startup(v30, "user", "app")).expect(okMessage)
	s.dial(t).send(packet(sslReq, "")).expect("N").send(packet(gssReq, "")).expect("N").
		send(startup(v30, "user", "app")).expect(okMessage)
	for _, code := range []uint32{gssReq, sslReq} {
		c := s.dial(t).send(packet(code, "")).expect("N").send(packet(code, ""))
		require.Equal(t, "0A000", c.fatal().Code, "asked twice")
		require.Equal(t, "08P01", s.dial(t).send(packet(code, "x")).fatal().Code, "with a body")
	}
}

func TestAccept_cancelRequest_isReturned(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.SCRAM)})
	for _, n := range []int{4, 32, 256} {
		secret := strings.Repeat("s", n)
		c := s.dial(t).send(packet(cancelReq, "\x80\x00\x00\x07"+secret))
		o := s.next(t)
		require.NoError(t, o.err)
		require.Nil(t, o.res.Client)
		require.Equal(t, uint32(0x80000007), o.res.Cancel.PID)
		require.Equal(t, secret, string(o.res.Cancel.Secret))
		require.Empty(t, c.rest())
	}
}

func TestAccept_clientThatLeavesAtOnce_isAProbe(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Password)})
	s.dial(t).Close()
	require.ErrorIs(t, s.next(t).err, login.ErrProbe)

	c := s.dial(t)
	require.NoError(t, c.Conn.(*net.TCPConn).SetLinger(0)) // as balancers do: a reset
	c.Close()
	require.ErrorIs(t, s.next(t).err, login.ErrProbe)

	s.dial(t).send(packet(sslReq, "")).expect("N").Close()
	require.ErrorIs(t, s.next(t).err, login.ErrProbe)

	s.dial(t).send([]byte{0, 0, 0}).Close()
	err := s.next(t).err
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.NotErrorIs(t, err, login.ErrProbe)

	c = s.dial(t).send(startup(v30, "user", "app"))
	c.message()
	c.Close()
	err = s.next(t).err
	require.ErrorIs(t, err, io.EOF)
	var refusal *auth.FatalError
	require.NotErrorAs(t, err, &refusal, "nobody is there to be refused")
}

func TestAccept_bytesBehindTheLogin_areLeftUnread(t *testing.T) {
	t.Parallel()
	const behind = "Q\x00\x00\x00\x06;\x00"
	for _, method := range []auth.Method{auth.Trust, auth.Password} {
		s := serve(t, login.Config{Auth: policy(t, method)})
		sent := startup(v30, "user", "app")
		if method == auth.Password {
			sent = append(sent, password("secret")...)
		}
		s.dial(t).send(append(sent, behind...))
		c := s.next(t).res.Client
		require.NotNil(t, c)
		got := make([]byte, len(behind))
		_, err := io.ReadFull(c.Conn, got)
		require.NoError(t, err)
		require.Equal(t, behind, string(got))
	}
}

func TestAccept_passwordMessage_malformed(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Password)})
	for _, tt := range []struct {
		what     string
		sent     []byte
		sqlstate string
	}{
		{"another message", []byte("Q\x00\x00\x00\x05\x00"), "08P01"},
		{"length 3", []byte("p\x00\x00\x00\x03"), "08P01"},
		{"length 0", []byte("p\x00\x00\x00\x00"), "08P01"},
		{"negative length", []byte("p\xff\xff\xff\xff"), "08P01"},
		{"2 GB", []byte("p\x7f\xff\xff\xff"), "08P01"},
		{"no body", []byte("p\x00\x00\x00\x04"), "08P01"},
		{"no end", []byte("p\x00\x00\x00\x05x"), "08P01"},
		{"zero within", password("a\x00b"), "08P01"},
		{"64 KiB and one", password(strings.Repeat("x", 64<<10+1)), "08P01"},
		{"64 KiB", password(strings.Repeat("x", 64<<10)), "28P01"},
		{"empty", password(""), "28P01"},
		{"wrong", password("wrong"), "28P01"},
	} {
		c := s.dial(t).send(startup(v30, "user", "app"))
		kind, _ := c.message()
		require.Equal(t, "R", string(kind))
		require.Equal(t, tt.sqlstate, c.send(tt.sent).fatal().Code, tt.what)
		require.Error(t, s.next(t).err)
	}
}

func TestAccept_unknownUserAndWrongPassword_sameBytes(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Password)})
	answers := make([]string, 0, 2)
	for _, user := range []string{"app", "ppa"} {
		b := s.dial(t).send(append(startup(v30, "user", user), password("wrong")...)).rest()
		answers = append(answers, strings.ReplaceAll(string(b), user, "???"))
		require.Error(t, s.next(t).err)
	}
	require.Equal(t, answers[0], answers[1])
	require.Contains(t, answers[0], "28P01")
}

func TestAccept_unixSocket_isLocalAndHasNoTLS(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	offered := newAuthority(t).serverTLS(t, "server", "ecdsa")
	s := serveOn(t, l, login.Config{Auth: policy(t, auth.Trust), TLS: fixed(offered), RequireTLS: true, ClientCert: login.CertVerifyFull})
	s.dial(t).send(packet(sslReq, "")).expect("N").send(startup(v30, "user", "app")).expect(okMessage)
	require.NoError(t, s.next(t).err)
}

// pipe runs Accept over a net.Pipe within a synctest bubble, where only the test's clock runs.
func pipe(ctx context.Context, cfg login.Config) (client net.Conn, result chan outcome) {
	client, conn := net.Pipe()
	result = make(chan outcome, 1)
	go func() {
		res, err := login.Accept(ctx, conn, cfg)
		result <- outcome{res, err}
	}()
	return client, result
}

func TestAccept_loginTakesTooLong_isToldSo(t *testing.T) {
	t.Parallel()
	for _, sent := range [][]byte{nil, {0, 0, 0}, startup(v30, "user", "app")} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			client, result := pipe(t.Context(), login.Config{Auth: policy(t, auth.Password)})
			defer client.Close()
			_, err := client.Write(sent)
			require.NoError(t, err)
			told, err := io.ReadAll(client)
			require.NoError(t, err)
			require.Contains(t, string(told), "57014")
			require.Equal(t, login.DefaultTimeout, time.Since(began))
			var e *auth.FatalError
			require.ErrorAs(t, (<-result).err, &e)
		})
	}
}

func TestAccept_silentSocket_isToldWhyItIsClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, login.Config{Auth: policy(t, auth.Trust), Timeout: 10 * time.Millisecond})
	require.Equal(t, "57014", s.dial(t).fatal().Code)
	require.Error(t, s.next(t).err)
}

func TestAccept_clientThatDoesNotRead_isLeftAfterASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		client, result := pipe(t.Context(), login.Config{Auth: policy(t, auth.Password), Timeout: time.Minute})
		defer client.Close()
		require.Error(t, (<-result).err)
		require.Equal(t, 61*time.Second, time.Since(began))
	})
}

func TestAccept_contextCancelled_endsTheLogin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client, result := pipe(ctx, login.Config{Auth: policy(t, auth.Password)})
		defer client.Close()
		_, err := client.Write(startup(v30, "user", "app"))
		require.NoError(t, err)
		synctest.Wait()
		began := time.Now()
		cancel()
		told, err := io.ReadAll(client)
		require.NoError(t, err)
		require.Contains(t, string(told), "57P03")
		require.Zero(t, time.Since(began))
		require.ErrorContains(t, (<-result).err, "context canceled")
	})
}

func TestAccept_success_leavesNoDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		trusting, err := auth.New(auth.Config{Upstream: auth.Identity{User: "app"}, ForceTrust: true})
		require.NoError(t, err)
		client, result := pipe(ctx, login.Config{Auth: trusting})
		defer client.Close()
		_, err = client.Write(startup(v30, "user", "app"))
		require.NoError(t, err)
		got := make([]byte, len(okMessage))
		_, err = io.ReadFull(client, got)
		require.NoError(t, err)
		c := (<-result).res.Client
		require.NotNil(t, c)
		cancel() // is nothing to the connection any more
		time.AfterFunc(2*login.DefaultTimeout, func() { _, _ = client.Write([]byte("x")) })
		_, err = c.Conn.Read(got)
		require.NoError(t, err)
	})
}

func TestWriteFatal_writesOneErrorResponse(t *testing.T) {
	t.Parallel()
	client, conn := net.Pipe()
	defer client.Close()
	errs := make(chan error, 1)
	go func() {
		errs <- login.WriteFatal(conn, "53300", "too many clients", "Raise max_clients.")
		conn.Close()
	}()
	b, err := io.ReadAll(client)
	require.NoError(t, err)
	require.NoError(t, <-errs)
	require.Equal(t, uint32(len(b)-1), binary.BigEndian.Uint32(b[1:]))
	var e pgproto3.ErrorResponse
	require.NoError(t, e.Decode(b[5:]))
	require.Equal(t, pgproto3.ErrorResponse{
		Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "53300", Message: "too many clients", Hint: "Raise max_clients.",
	}, e)
	require.Error(t, login.WriteFatal(conn, "53300", "too many clients", ""))
}
