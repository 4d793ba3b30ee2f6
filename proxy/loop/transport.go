package loop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Transport is a connected socket on its way from the slow path to a loop, or from one loop to another. Whoever holds it
// must give it to Attach or close it, once; a copy is the same socket. The zero value is no connection.
type Transport struct {
	socket *Socket // Nil without TLS.
	kept   []byte
	tail   *tail
	fd     int32
	peer   peer
}

// Take turns a connection into a Transport: a *net.TCPConn, a *net.UnixConn, a *Socket over one of these, or a *tls.Conn
// over a *Socket whose handshake is complete. The descriptor is duplicated and nc closed without a word to the peer, so
// that Go's own poller lets go of the socket; of a tls.Conn only the Socket under it is. After an error nc is as it was.
func Take(nc net.Conn) (Transport, error) {
	switch c := nc.(type) {
	case *tls.Conn:
		s, ok := c.NetConn().(*Socket)
		if !ok {
			return Transport{}, fmt.Errorf("take connection: TLS over %T, not over a loop.Socket", c.NetConn())
		}
		if !c.ConnectionState().HandshakeComplete {
			return Transport{}, errors.New("take connection: its TLS handshake is not complete")
		}
		return s.take(c)
	case *Socket:
		return Take(c.nc)
	case syscall.Conn:
		return takeDescriptor(nc, c)
	}
	return Transport{}, fmt.Errorf("take connection: it has no descriptor (%T)", nc)
}

// takeDescriptor takes a connection of package net.
func takeDescriptor(nc net.Conn, sc syscall.Conn) (Transport, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return Transport{}, fmt.Errorf("take connection: %w", err)
	}
	fd, derr := -1, error(nil)
	err = raw.Control(func(original uintptr) {
		fd, derr = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
		if derr == nil {
			derr = unix.SetNonblock(fd, true)
		}
	})
	if err = errors.Join(err, derr); err != nil {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
		return Transport{}, fmt.Errorf("take connection: %w", err)
	}
	t := Transport{fd: int32(fd), peer: peerOf(nc.RemoteAddr())}
	_ = nc.Close() // The duplicate keeps the socket open.
	return t, nil
}

// Close closes a transport that nobody has attached, and drops what it carries.
func (t Transport) Close() error {
	if t.peer.kind == nobody {
		return net.ErrClosed
	}
	if t.socket != nil && t.tail == nil { // Behind part of a record an alert would be noise.
		return t.socket.tls.Close()
	}
	if err := unix.Close(int(t.fd)); err != nil {
		return fmt.Errorf("close transport: %w", err)
	}
	return nil
}

// Remote returns the peer's address. It is not valid for a unix socket.
func (t Transport) Remote() netip.AddrPort { return t.peer.addrPort() }

// IsTLS reports whether the connection is encrypted.
func (t Transport) IsTLS() bool { return t.socket != nil }

// TLSState returns what the handshake agreed on; ok is false without TLS.
func (t Transport) TLSState() (state tls.ConnectionState, ok bool) {
	if t.socket == nil {
		return tls.ConnectionState{}, false
	}
	return t.socket.tls.ConnectionState(), true
}

// peer is a remote address in 20 bytes. The zone of a link-local address is not kept.
type peer struct {
	ip   [16]byte
	port uint16
	kind peerKind
}

type peerKind uint8

const (
	nobody peerKind = iota // Of a zero Transport, which has no descriptor either.
	local                  // A unix socket, which has no address worth keeping.
	v4
	v6
)

func peerOf(a net.Addr) peer {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return peer{kind: local}
	}
	ap := t.AddrPort()
	ip := ap.Addr().Unmap()
	p := peer{ip: ip.As16(), port: ap.Port(), kind: v6}
	if ip.Is4() {
		p.kind = v4
	}
	return p
}

func (p peer) addrPort() netip.AddrPort {
	switch p.kind {
	case v4:
		return netip.AddrPortFrom(netip.AddrFrom16(p.ip).Unmap(), p.port)
	case v6:
		return netip.AddrPortFrom(netip.AddrFrom16(p.ip), p.port)
	case nobody, local:
	}
	return netip.AddrPort{}
}
