package admin

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFromThisMachine_bothEndsAndTheNameCount(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 6433} }
	for name, test := range map[string]struct {
		own        net.Addr
		peer, host string
		want       bool
	}{
		"loopback":                      {tcp("127.0.0.1"), "127.0.0.1:5000", "127.0.0.1:6433", true},
		"loopback by name":              {tcp("127.0.0.1"), "127.0.0.1:5000", "localhost:6433", true},
		"loopback without port":         {tcp("127.0.0.1"), "127.0.0.1:5000", "127.0.0.1", true},
		"IPv6 loopback":                 {tcp("::1"), "[::1]:5000", "[::1]:6433", true},
		"IPv6 loopback without port":    {tcp("::1"), "[::1]:5000", "[::1]", true},
		"unix socket":                   {&net.UnixAddr{Name: "/run/x"}, "@", "whatever", true},
		"another machine":               {tcp("10.0.0.1"), "10.0.0.2:5000", "10.0.0.1:6433", false},
		"another machine, false host":   {tcp("10.0.0.1"), "10.0.0.2:5000", "127.0.0.1:6433", false},
		"a mesh's proxy in the pod":     {tcp("10.0.0.1"), "127.0.0.6:5000", "127.0.0.1:6433", false},
		"a browser led here by a name":  {tcp("127.0.0.1"), "127.0.0.1:5000", "attacker.example:6433", false},
		"a name that begins like an IP": {tcp("127.0.0.1"), "127.0.0.1:5000", "127.0.0.1.attacker.example", false},
		"no host":                       {tcp("127.0.0.1"), "127.0.0.1:5000", "", false},
		"no own address":                {nil, "127.0.0.1:5000", "127.0.0.1:6433", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "/drain", nil)
			r.RemoteAddr, r.Host = test.peer, test.host
			if test.own != nil {
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, test.own))
			}
			require.Equal(t, test.want, fromThisMachine(r))
		})
	}
}
