package handover

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets are the listening sockets of a process, by the names under which they are passed on. The zero value has none. Its
// methods may be called from any goroutine.
//
// While they rest, nobody accepts on them here, as the successor does; they stay open, so that this process can go on at
// any time.
type Sockets struct {
	mu struct { // Held for calls that do not wait.
		sync.Mutex
		all       []*listener
		inherited []inherited
	}
}

type inherited struct {
	name string
	net.Listener
}

// Listen returns the listener of that name: an inherited one, or the one that bind makes.
func (s *Sockets) Listen(name string, bind func() (net.Listener, error)) (net.Listener, error) {
	l := s.claim(name)
	if l == nil {
		var err error
		if l, err = bind(); err != nil {
			return nil, err
		}
	}
	one := &listener{Listener: l, name: name, closed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.all = append(s.mu.all, one)
	return one, nil
}

// claim takes an inherited listener out.
func (s *Sockets) claim(name string) net.Listener {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.mu.inherited, func(one inherited) bool { return one.name == name })
	if i < 0 {
		return nil
	}
	l := s.mu.inherited[i].Listener
	s.mu.inherited = slices.Delete(s.mu.inherited, i, i+1)
	return l
}

// inherit takes over the sockets that a predecessor has passed on, whose descriptors it owns from now on.
func (s *Sockets) inherit(names []string, descriptors []int) error {
	defer closeAll(descriptors) // A net.Listener has its own duplicate.
	for i, fd := range descriptors {
		duplicate, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("take over socket %s: %w", names[i], err)
		}
		file := os.NewFile(uintptr(duplicate), names[i])
		l, err := net.FileListener(file)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("take over socket %s: %w", names[i], err)
		}
		s.mu.Lock()
		s.mu.inherited = append(s.mu.inherited, inherited{names[i], l})
		s.mu.Unlock()
	}
	return nil
}

// Settle ends the inheritance: this process serves. The files of unix sockets are its own from now on, and sockets that nobody
// has asked for are closed, as the configuration has other addresses.
func (s *Sockets) Settle() {
	s.each(func(one *listener) { unlinkOnClose(one.Listener, true) })
	s.CloseUnclaimed()
}

// CloseUnclaimed closes the inherited sockets that nobody has asked for.
func (s *Sockets) CloseUnclaimed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.mu.inherited {
		_ = one.Close()
	}
	s.mu.inherited = nil
}

// Rest stops accepting. The files of unix sockets are the successor's from now on: they stay when this process ends.
func (s *Sockets) Rest() { s.each((*listener).rest) }

// Resume accepts again.
func (s *Sockets) Resume() { s.each((*listener).resume) }

func (s *Sockets) each(f func(*listener)) {
	s.mu.Lock()
	all := slices.Clone(s.mu.all)
	s.mu.Unlock()
	for _, one := range all {
		f(one)
	}
}

// duplicates returns names and descriptors of the open sockets, which the caller closes.
func (s *Sockets) duplicates() (names []string, descriptors []int, err error) {
	s.each(func(one *listener) {
		if one.isClosed() || err != nil {
			return
		}
		fd, dupErr := duplicate(one.Listener)
		if dupErr != nil {
			err = fmt.Errorf("pass on socket %s: %w", one.name, dupErr)
			return
		}
		names, descriptors = append(names, one.name), append(descriptors, fd)
	})
	if err != nil {
		closeAll(descriptors)
		return nil, nil, err
	}
	return names, descriptors, nil
}

func duplicate(l net.Listener) (int, error) {
	sc, ok := l.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("%T has no descriptor", l)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var failed error
	err = raw.Control(func(original uintptr) { fd, failed = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

func unlinkOnClose(l net.Listener, unlink bool) {
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(unlink)
	}
}

// listener is a socket that can rest.
type listener struct {
	net.Listener

	name   string
	closed chan struct{} // Closed by Close.
	once   sync.Once

	mu struct { // Held for calls that do not wait.
		sync.Mutex
		resting chan struct{} // Closed by resume; nil: it does not rest.
	}
}

// Accept implements net.Listener. While the socket rests it waits.
func (l *listener) Accept() (net.Conn, error) {
	for {
		if resting := l.resting(); resting != nil {
			select {
			case <-resting:
			case <-l.closed:
				return nil, net.ErrClosed
			}
			continue
		}
		conn, err := l.Listener.Accept()
		if errors.Is(err, os.ErrDeadlineExceeded) { // It has been told to rest.
			continue
		}
		return conn, err
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (l *listener) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *listener) resting() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.resting
}

func (l *listener) rest() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.resting == nil {
		l.mu.resting = make(chan struct{})
		l.deadline(time.Unix(1, 0))
		unlinkOnClose(l.Listener, false)
	}
}

func (l *listener) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.resting != nil {
		l.deadline(time.Time{})
		unlinkOnClose(l.Listener, true)
		close(l.mu.resting)
		l.mu.resting = nil
	}
}

// deadline ends an Accept that is under way, or lets the next ones wait for ever. A socket that has been closed meanwhile
// does not care.
func (l *listener) deadline(at time.Time) {
	if d, ok := l.Listener.(interface{ SetDeadline(t time.Time) error }); ok {
		_ = d.SetDeadline(at)
	}
}
