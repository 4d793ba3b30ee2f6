package main

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// notifier tells whoever supervises the process about its state.
type notifier func(ctx context.Context, state string) error

// What systemd is told of a service with Type=notify (sd_notify(3)).
const (
	systemdReady    = "READY=1"
	systemdStopping = "STOPPING=1"
)

// systemd returns the notifier for the socket that systemd names in the environment; without one it does nothing. A name
// that begins with @ is in the abstract namespace, as package net spells it, too.
func systemd(socket string) notifier {
	return func(ctx context.Context, state string) error {
		if !strings.HasPrefix(socket, "/") && !strings.HasPrefix(socket, "@") {
			return nil
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "unixgram", socket)
		if err != nil {
			return fmt.Errorf("notify systemd: %w", err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(state)); err != nil {
			return fmt.Errorf("notify systemd: %w", err)
		}
		return nil
	}
}
