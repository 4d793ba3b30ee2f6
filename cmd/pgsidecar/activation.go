package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"

	"pgsidecar/internal/config"
)

// activated are the listening sockets that systemd has opened for this process (sd_listen_fds(3)). They are ours from the start:
// each is used for the address in listen or http.listen that it is bound to, or closed.
type activated struct{ listeners []net.Listener }

// lasting is a unix socket whose file is systemd's: it stays when the listener is closed, whoever else would like to unlink it.
type lasting struct{ *net.UnixListener }

// firstPassed is the descriptor of the first socket that systemd passes.
const firstPassed = 3

// activation takes the sockets that systemd passes to this process, and none if they are meant for another.
func activation(in invocation) (*activated, error) {
	a := new(activated)
	if in.getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return a, nil
	}
	n, err := strconv.Atoi(in.getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("take sockets of systemd: LISTEN_FDS is %q", in.getenv("LISTEN_FDS"))
	}
	for fd := firstPassed; fd < firstPassed+n; fd++ {
		file := os.NewFile(uintptr(fd), "systemd")
		l, err := net.FileListener(file) // Has a descriptor of its own.
		_ = file.Close()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("take socket %d of systemd: %w; it has to be a ListenStream", fd, err), a.close())
		}
		if u, ok := l.(*net.UnixListener); ok {
			l = lasting{u}
		}
		a.listeners = append(a.listeners, l)
	}
	return a, nil
}

// or returns what binds an address, unless systemd has done so already.
func (a *activated) or(address string, bind func() (net.Listener, error)) func() (net.Listener, error) {
	return func() (net.Listener, error) {
		for i, l := range a.listeners {
			if boundTo(l.Addr(), address) {
				a.listeners = append(a.listeners[:i:i], a.listeners[i+1:]...)
				return l, nil
			}
		}
		return bind()
	}
}

// boundTo reports whether a socket's address is the one in the configuration.
func boundTo(have net.Addr, want string) bool {
	network, address := config.Socket(want)
	if network == "unix" {
		_, inDirectory := config.Listen{Address: want}.Socket()
		return have.String() == address || have.String() == inDirectory
	}
	tcp, ok := have.(*net.TCPAddr)
	if !ok {
		return false
	}
	target, err := net.ResolveTCPAddr("tcp", address)
	if err != nil || target.Port != tcp.Port {
		return false
	}
	everywhere := target.IP == nil || target.IP.IsUnspecified()
	return everywhere && tcp.IP.IsUnspecified() || target.IP.Equal(tcp.IP)
}

// settle closes what nobody wants: clients that connect there would wait for ever.
func (a *activated) settle(ctx context.Context, log *slog.Logger) {
	for _, l := range a.listeners {
		log.WarnContext(ctx, "socket of systemd not used: neither listen nor http.listen has its address", slog.String("address", l.Addr().String()))
	}
	if err := a.close(); err != nil {
		log.DebugContext(ctx, "socket of systemd not closed", slog.Any("error", err))
	}
}

func (a *activated) close() error {
	errs := make([]error, 0, len(a.listeners))
	for _, l := range a.listeners {
		errs = append(errs, l.Close())
	}
	a.listeners = nil
	return errors.Join(errs...)
}
