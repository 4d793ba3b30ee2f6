package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// Link is to be run after Serving. What is asked before then is answered then.
	Link *Link
}

// Join connects to the process behind the socket, checks that the two fit together, and takes over its sockets. After an
// error, nothing has changed for either. ErrNobody: there is none, or it has died before it passed its sockets on.
func (j *Joiner) Join(ctx context.Context, path string) (*Predecessor, error) {
	conn, err := dial(ctx, path)
	if err != nil {
		return nil, err
	}
	p, err := j.join(conn)
	if err == nil {
		return p, nil
	}
	_ = conn.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		again, gone := dial(ctx, path)
		if errors.Is(gone, ErrNobody) {
			return nil, ErrNobody
		}
		if gone == nil {
			_ = again.Close()
		}
	}
	return nil, fmt.Errorf("take over by %s: %w", path, err)
}

// dial connects to the process behind the socket, if there is one and the socket is this user's.
func dial(ctx context.Context, path string) (*net.UnixConn, error) {
	err := checkFile(path)
	var conn net.Conn
	if err == nil {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, ErrNobody
	case err != nil:
		return nil, fmt.Errorf("take over by %s: %w", path, err)
	}
	return conn.(*net.UnixConn), nil
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
	return &Predecessor{State: State{Clients: w.Clients, Connections: w.Connections}, Version: w.Version, Link: newLink(conn)}, nil
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

// Serving tells that this process accepts clients, on the sockets of the other, which stops doing so. The Link is to be run,
// after an error too, which means that the other has died since: the Link then ends at once.
func (p *Predecessor) Serving() error {
	if err := say(p.Link.conn, kindServing, struct{}{}); err != nil {
		p.Close()
		return fmt.Errorf("take over: %w", err)
	}
	return nil
}

// Close leaves the predecessor alone. It is for a successor that fails before Serving.
func (p *Predecessor) Close() { _ = p.Link.conn.Close() }
