package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Bind makes the socket at which successors ask. What is there that does not belong to this user is left alone.
func Bind(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil { // Whoever came before this is refused by checkPeer.
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket of this user's that a process has left behind.
func removeStale(ctx context.Context, path string) error {
	switch err := checkFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close()
		return errors.New("another process serves it: run with --takeover to succeed that")
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// checkFile refuses what is not a socket of this user's.
func checkFile(path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is not a socket", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return sameUser(stat.Uid, uint32(os.Geteuid()))
	}
	return nil
}

// Offerer is a process that may be succeeded.
type Offerer struct {
	Version string
	Sockets *Sockets
	// State returns what the successor has to know, or why there can be no handover now, a sentence for people.
	State func() (State, error)
}

// Offer lets a successor in that has connected, and waits until it serves. From then on the sockets rest here, and the Link
// is to be run. After an error nothing has changed. It owns conn.
func (o *Offerer) Offer(conn net.Conn) (*Link, error) {
	peer, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("%T is not a unix socket", conn)
	}
	if err := o.offer(peer); err != nil {
		_ = conn.Close()
		return nil, err
	}
	o.Sockets.Rest()
	return newLink(peer), nil
}

func (o *Offerer) offer(conn *net.UnixConn) error {
	if err := checkPeer(conn); err != nil {
		return err
	}
	var h hello
	descriptors, err := hear(conn, patience, kindHello, &h)
	if err != nil {
		return err
	}
	closeAll(descriptors)
	w := welcome{Protocol: Protocol, Version: o.Version}
	if h.Protocol != Protocol {
		_ = say(conn, kindWelcome, w) // It finds the same out, and says so.
		return errProtocol(Protocol, h.Protocol, h.Version)
	}
	if err := o.invite(conn, &w); err != nil {
		return err
	}
	_, err = hear(conn, startup, kindServing, nil)
	if err != nil {
		return fmt.Errorf("the successor has given up before it served: %w", err)
	}
	return nil
}

// invite answers with the sockets, or with why it cannot be.
func (o *Offerer) invite(conn *net.UnixConn, w *welcome) error {
	state, refusal := o.State()
	if refusal != nil {
		w.Refusal = refusal.Error()
		_ = say(conn, kindWelcome, w)
		return refusal
	}
	names, descriptors, err := o.Sockets.duplicates()
	if err != nil {
		return err
	}
	defer closeAll(descriptors)
	w.Clients, w.Connections, w.Sockets = state.Clients, state.Connections, names
	return say(conn, kindWelcome, w, descriptors...)
}
