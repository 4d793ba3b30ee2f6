package login

import (
	"errors"
	"net"
	"syscall"
)

// peek returns the next byte that nc has received, without taking it: what is taken cannot be given back to a TLS
// handshake. It waits for one (until the read deadline) if wait is true. ok is false when there is none, for whatever
// reason: the read that follows meets it too. A connection that is no socket has none.
func peek(nc net.Conn, wait bool) (b byte, ok bool) {
	sc, isSocket := nc.(syscall.Conn)
	if !isSocket {
		return 0, false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var (
		buf [1]byte
		n   int
	)
	err = rc.Read(func(fd uintptr) bool {
		var rerr error
		for {
			n, _, rerr = syscall.Recvfrom(int(fd), buf[:], syscall.MSG_PEEK)
			if !errors.Is(rerr, syscall.EINTR) {
				break
			}
		}
		return !wait || !errors.Is(rerr, syscall.EAGAIN)
	})
	return buf[0], err == nil && n == 1
}
