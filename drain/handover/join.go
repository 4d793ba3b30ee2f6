package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNobody means that there is no process to take over from.
var ErrNobody = errors.New("nobody to take over from")

// Joiner is a process that wants to succeed another.
type Joiner struct {
	Version string
	Sockets *Sockets // Gets those of the predecessor.
	// Descriptors is how many descriptors the process needs besides those of the clients that it takes over.
	Descriptors int
}

// Predecessor is the process that is being taken over from. It serves on as if nothing were, until Serving.
type Predecessor struct {
	State

	Version string
	conn    *net.UnixConn
}

// Join connects to the process behind the socket, checks that the two fit together, and takes over its sockets. After an
// error, nothing has changed for either.
func (j *Joiner) Join(ctx context.Context, path string) (*Predecessor, error) {
	switch err := checkFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNobody
	case err != nil:
		return nil, fmt.Errorf("take over by %s: %w", path, err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, ErrNobody
	case err != nil:
		return nil, fmt.Errorf("take over: %w", err)
	}
	p, err := j.join(conn.(*net.UnixConn))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("take over by %s: %w", path, err)
	}
	return p, nil
}

func (j *Joiner) join(conn *net.UnixConn) (*Predecessor, error) {
	if err := checkPeer(conn); err != nil {
		return nil, err
	}
	if err := say(conn, kindHello, hello{Protocol: Protocol, Version: j.Version}); err != nil {
		return nil, err
	}
	var w welcome
	descriptors, err := hear(conn, patience, kindWelcome, &w)
	if err != nil {
		return nil, err
	}
	if err := j.check(&w, len(descriptors)); err != nil {
		closeAll(descriptors)
		return nil, err
	}
	if err := j.Sockets.inherit(w.Sockets, descriptors); err != nil {
		j.Sockets.CloseUnclaimed()
		return nil, err
	}
	return &Predecessor{State: State{Clients: w.Clients, Connections: w.Connections}, Version: w.Version, conn: conn}, nil
}

func (j *Joiner) check(w *welcome, descriptors int) error {
	switch {
	case w.Protocol != Protocol:
		return errProtocol(Protocol, w.Protocol, w.Version)
	case w.Refusal != "":
		return fmt.Errorf("the other process refuses: %s", w.Refusal)
	case len(w.Sockets) != descriptors || w.Clients < 0 || w.Connections < 0:
		return errGarbage
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("ask for the limit of open files: %w", err)
	}
	// Each client is open in both processes for a moment, and each socket twice while it is taken over.
	if needs := uint64(w.Clients + 2*descriptors + j.Descriptors); needs > limit.Cur {
		return fmt.Errorf("%d clients are to be taken over, which needs up to %d open files, and this process may have %d: raise its limit (RLIMIT_NOFILE)",
			w.Clients, needs, limit.Cur)
	}
	return nil
}

// Serving tells that this process accepts clients, on the sockets of the other, which stops doing so. The Link is to be run.
func (p *Predecessor) Serving() (*Link, error) {
	if err := say(p.conn, kindServing, struct{}{}); err != nil {
		_ = p.conn.Close()
		return nil, fmt.Errorf("take over: %w", err)
	}
	return newLink(p.conn), nil
}

// Close leaves the predecessor alone. It is for a successor that fails before Serving.
func (p *Predecessor) Close() { _ = p.conn.Close() }
