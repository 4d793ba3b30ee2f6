package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"pgsidecar/internal/config"
)

// client asks the proxy of this machine over HTTP.
type client struct {
	address string // host:port or the path of a unix socket.
	http    http.Client
}

// clientTimeout is how long the proxy may take to answer. Probes of Kubernetes wait one second by default.
const clientTimeout = 5 * time.Second

// clientFlags declares --http and --config and returns what makes the client once the flags are set.
func clientFlags(flags *flag.FlagSet) func(invocation) (*client, error) {
	address := flags.String("http", "", "the `ADDRESS` in http.listen of the proxy; else the one in the configuration")
	file := configFlag(flags)
	return func(in invocation) (*client, error) {
		if *address != "" {
			return newClient(*address), nil
		}
		// Faults in other keys do not matter here: this may run in a container with less of an environment.
		c, _, _ := config.Load(file(in), in.environ)
		listen, err := reachable(c.HTTP.Listen)
		if err != nil {
			return nil, err
		}
		return newClient(listen), nil
	}
}

// reachable returns the address through which this machine reaches a proxy that listens on all of these, preferably one
// on which it may do everything.
func reachable(listen []string) (string, error) {
	best := ""
	for _, address := range listen {
		if network, _ := config.Socket(address); network == "tcp" {
			host, port, _ := net.SplitHostPort(address)
			switch {
			case port == "0":
				continue
			case host == "" || host == "0.0.0.0":
				address = net.JoinHostPort("127.0.0.1", port)
			case host == "::":
				address = net.JoinHostPort("::1", port)
			}
		}
		if best == "" || !config.Local(best) && config.Local(address) {
			best = address
		}
	}
	if best == "" {
		return "", &usageError{"http.listen has no address to ask the proxy on: name one with --http"}
	}
	return best, nil
}

func newClient(address string) *client {
	network, target := config.Socket(address)
	return &client{address: address, http: http.Client{
		Timeout: clientTimeout,
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, target)
			},
		},
	}}
}

// ask sends one request and returns the status code and the body.
func (c *client) ask(ctx context.Context, method, path string) (int, []byte, error) {
	response, err := c.do(ctx, method, path, nil)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("read answer of the proxy on %s: %w", c.address, err)
	}
	return response.StatusCode, body, nil
}

// do sends one request; the path is escaped as in a URL. The caller reads the response and closes it.
func (c *client) do(ctx context.Context, method, path string, parameters url.Values) (*http.Response, error) {
	host := c.address
	if strings.HasPrefix(host, "/") {
		host = "localhost" // Of a unix socket the name does not matter.
	}
	target := "http://" + host + path
	if len(parameters) > 0 {
		target += "?" + parameters.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, &usageError{fmt.Sprintf("%q is not an address: write host:port or the path of a unix socket", c.address)}
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the proxy on %s: %w; is it running, and is this its http.listen?", c.address, reason(err))
	}
	return response, nil
}

// reason returns the part of a client's error that says something new.
func reason(err error) error {
	if urlErr, ok := errors.AsType[*url.Error](err); ok {
		err = urlErr.Err
	}
	if sysErr, ok := errors.AsType[*os.SyscallError](err); ok {
		return sysErr.Err
	}
	return err
}

// refused returns the error for an answer that is not what was asked for.
func refused(code int, body []byte) error {
	text := strings.TrimSpace(string(body))
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) == nil && answer.Error != "" {
		text = answer.Error
	}
	return fmt.Errorf("the proxy answers %d: %s", code, text)
}
