package loop

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Transport without TLS can move to another process: its descriptor, with what is pending in both directions. The
// connection is then open in both, and the one that does not keep it closes its own.

// Passing returns what a Transport is made of: the descriptor, which stays the Transport's, the bytes that have been read
// and kept, and those that have not been written. ok is false with TLS, whose state cannot be passed on.
func (t Transport) Passing() (descriptor int, kept, unsent []byte, ok bool) {
	if t.peer.kind == nobody || t.socket != nil {
		return -1, nil, nil, false
	}
	if t.tail != nil {
		unsent = t.tail.rest()
	}
	return int(t.fd), t.kept, unsent, true
}

// Passed makes a Transport of what Passing has returned in another process. The descriptor, a connected stream socket, and
// the bytes are the Transport's from now on; after an error they are the caller's.
func Passed(descriptor int, kept, unsent []byte) (Transport, error) {
	kind, err := unix.GetsockoptInt(descriptor, unix.SOL_SOCKET, unix.SO_TYPE)
	if err == nil && kind != unix.SOCK_STREAM {
		err = errors.New("it is not a stream")
	}
	var address unix.Sockaddr
	if err == nil {
		address, err = unix.Getpeername(descriptor)
	}
	if errors.Is(err, unix.ENOTCONN) { // The peer has gone meanwhile; reading finds that.
		address, err = nil, nil
	}
	if err == nil {
		err = unix.SetNonblock(descriptor, true)
	}
	if err != nil {
		return Transport{}, fmt.Errorf("take passed connection: %w", err)
	}
	t := Transport{fd: int32(descriptor), kept: kept, peer: peerAt(address)}
	if len(unsent) > 0 {
		t.tail = &tail{buf: unsent}
	}
	return t, nil
}

func peerAt(address unix.Sockaddr) peer {
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return peer{ip: netip.AddrFrom4(a.Addr).As16(), port: uint16(a.Port), kind: v4}
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		p := peer{ip: ip.As16(), port: uint16(a.Port), kind: v6}
		if ip.Is4() {
			p.kind = v4
		}
		return p
	}
	return peer{kind: local}
}
