package loop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below are for non-blocking sockets. They cannot block, so they do not tell the scheduler of themselves as the
// ordinary ones do; that is worth more than a tenth of the processor time of a transaction. The calls of sockets take a
// shorter way through the kernel than those of all files.

func read(fd int32, p []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM,
			uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0) //nolint:gosec // The kernel writes at most len(p).
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

func write(fd int32, p []byte) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO,
			uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0) //nolint:gosec // The kernel reads len(p).
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// writev writes a and b, neither empty, using spans for the call.
func writev(fd int32, spans *[2]unix.Iovec, a, b []byte) (int, unix.Errno) {
	spans[0].Base, spans[1].Base = &a[0], &b[0]
	spans[0].SetLen(len(a))
	spans[1].SetLen(len(b))
	defer func() { *spans = [2]unix.Iovec{} }() // They would keep a and b alive.
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_WRITEV,
			uintptr(fd), uintptr(unsafe.Pointer(&spans[0])), 2) //nolint:gosec // The kernel reads two spans.
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}
