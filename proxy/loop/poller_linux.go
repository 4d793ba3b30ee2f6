package loop

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxEvents is how many events one wait may return.
const maxEvents = 256

// event is what the poller says of a connection, and what it is told of one.
type event struct {
	fd  int32
	gen uint32
	// What has happened; writable is also what to watch for. Readable and hangup are always watched for.
	readable, writable, hangup bool
}

// poller is epoll, edge-triggered, with an eventfd for wake-ups. Only wake may be called from other goroutines.
type poller struct {
	epoll  int
	alarm  alarm
	events [maxEvents]unix.EpollEvent
	spans  [2]unix.Iovec // For writev; here so that it is not allocated each time.
}

// alarm is the eventfd that wakes the poller. Any goroutine may ring it, also one that comes late, after the loop has
// ended; the lock keeps that one from writing to a descriptor that means something else by then. An eventfd never blocks
// under it.
type alarm struct {
	mu sync.RWMutex
	fd int // Closed when negative.
}

func (p *poller) open() (err error) {
	p.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create epoll: %w", err)
	}
	p.alarm.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(p.epoll)
		return fmt.Errorf("create eventfd: %w", err)
	}
	// Edge-triggered too, so it is never read; generation 0 is no connection's.
	if err = p.add(event{fd: int32(p.alarm.fd)}); err != nil {
		p.close()
		return fmt.Errorf("watch eventfd: %w", err)
	}
	return nil
}

func (p *poller) close() {
	p.alarm.close()
	_ = unix.Close(p.epoll)
}

// add begins to watch a descriptor. What can be read already is reported.
func (p *poller) add(e event) error { return p.control(unix.EPOLL_CTL_ADD, e) }

// modify changes whether writability is watched for. What is so already is reported.
func (p *poller) modify(e event) error { return p.control(unix.EPOLL_CTL_MOD, e) }

// remove ends watching. Closing a descriptor does the same.
func (p *poller) remove(fd int32) { _ = p.control(unix.EPOLL_CTL_DEL, event{fd: fd}) }

func (p *poller) control(op int, e event) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: e.fd, Pad: int32(e.gen)}
	if e.writable {
		ev.Events |= unix.EPOLLOUT
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL,
		uintptr(p.epoll), uintptr(op), uintptr(e.fd), uintptr(unsafe.Pointer(&ev)), 0, 0) //nolint:gosec // The kernel reads one event.
	if errno != 0 {
		return errno
	}
	return nil
}

// poll returns how many events there are now. It does not tell the scheduler, as it cannot block.
func (p *poller) poll() (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT,
		uintptr(p.epoll), uintptr(unsafe.Pointer(&p.events[0])), maxEvents, 0, 0, 0) //nolint:gosec // The kernel writes at most maxEvents.
	if errno == unix.EINTR {
		n, errno = 0, 0
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// yield lets other threads that are ready to run go first. It returns at once when there are none.
func (p *poller) yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// wait blocks until there are events, the milliseconds have passed (never, if negative) or a signal has come. It tells the
// scheduler: a raw blocking wait would hold a processor that other goroutines need.
func (p *poller) wait(milliseconds int) (int, error) {
	n, err := unix.EpollWait(p.epoll, p.events[:], milliseconds)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return n, err
}

// event returns event i of the last poll or wait.
func (p *poller) event(i int) event {
	ev := &p.events[i]
	const hangup = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	return event{
		fd: ev.Fd, gen: uint32(ev.Pad),
		readable: ev.Events&(unix.EPOLLIN|hangup) != 0,
		writable: ev.Events&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0,
		hangup:   ev.Events&hangup != 0,
	}
}

// wake makes a wait return, the one under way or the next.
func (p *poller) wake() { p.alarm.ring() }

func (a *alarm) ring() {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.fd >= 0 {
		one := uint64(1)                                                                           // It fails only when so many are pending that one more means nothing.
		_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(a.fd), uintptr(unsafe.Pointer(&one)), 8) //nolint:gosec // The kernel reads 8 bytes.
	}
}

func (a *alarm) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = unix.Close(a.fd)
	a.fd = -1
}
