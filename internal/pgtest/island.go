package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Island is a relay in a network namespace of its own, reached over a virtual cable. When it is cut off, packets are lost in both directions without
// a word, as when a machine loses its network or its power: no reset and no end comes, neither to connections that exist nor to
// new ones. It ends with the test that started it.
type Island struct {
	*Relay

	work         chan func() // runs in the namespace
	address      string      // of this side of the cable
	inhabitants  sync.WaitGroup
	cable, other string // the names of its ends
}

// islandPort is the port of all islands. In a network namespace of its own every port is free.
const islandPort = "5432"

// StartIsland is StartRelay in a network namespace; the test is skipped where the system does not permit one, or has no ip command.
func StartIsland(t testing.TB, target string) *Island {
	t.Helper()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("the command ip of iproute2, which makes network namespaces usable, was not found")
	}
	number := rand.IntN(1 << 14)
	// Of 198.18.0.0/15, which is for tests of networks, four addresses.
	network := fmt.Sprintf("198.18.%d.%d", number>>6, number&63<<2)
	i := &Island{work: make(chan func()), cable: fmt.Sprintf("pgs%da", number), other: fmt.Sprintf("pgs%db", number)}
	i.address = nextAddress(network, 1)
	permitted := make(chan error)
	i.inhabitants.Go(func() { i.inhabit(permitted) })
	if err := <-permitted; err != nil {
		t.Skipf("a network namespace is not permitted: %v", err)
	}
	t.Cleanup(i.sink)
	listener, err := i.connect(nextAddress(network, 2))
	if err != nil {
		t.Skipf("a virtual cable is not permitted: %v", err)
	}
	i.Relay = startRelay(t, listener, target)
	return i
}

// nextAddress adds to the last number of an address.
func nextAddress(network string, n int) string {
	ip := net.ParseIP(network).To4()
	ip[3] += byte(n)
	return ip.String()
}

// inhabit makes the namespace and works there until there is no more work. Its thread is never given back: Go ends it with
// the goroutine. It must not be the process's first thread, whose namespace is taken for the process's.
func (i *Island) inhabit(permitted chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		var elsewhere sync.WaitGroup
		elsewhere.Go(func() { i.inhabit(permitted) })
		elsewhere.Wait()
		runtime.UnlockOSThread()
		return
	}
	err := unix.Unshare(unix.CLONE_NEWNET)
	permitted <- err
	if err != nil {
		return
	}
	for work := range i.work {
		work()
	}
}

// inside runs a function in the namespace.
func (i *Island) inside(do func() error) (err error) {
	done := make(chan struct{})
	i.work <- func() {
		err = do()
		close(done)
	}
	<-done
	return err
}

// connect lays the cable and listens at its other end. The neighbour is written down, so that a lost connection cannot be
// noticed by asking for it.
func (i *Island) connect(address string) (listener net.Listener, err error) {
	const hardware = "02:00:00:00:00:02"
	err = i.inside(func() error {
		return ip(
			fmt.Sprintf("link add %s address %s type veth peer name %s netns %d", i.other, hardware, i.cable, os.Getpid()),
			"address add "+address+"/30 dev "+i.other,
			"link set lo up", "link set "+i.other+" up",
		)
	})
	if err != nil {
		return nil, err
	}
	err = ip(
		"address add "+i.address+"/30 dev "+i.cable, "link set "+i.cable+" up",
		"neighbour replace "+address+" lladdr "+hardware+" dev "+i.cable+" nud permanent",
	)
	if err != nil {
		return nil, err
	}
	err = i.inside(func() error {
		var lc net.ListenConfig
		listener, err = lc.Listen(context.Background(), "tcp", net.JoinHostPort(address, islandPort))
		return err
	})
	return listener, err
}

// sink ends the namespace, and with it both ends of the cable.
func (i *Island) sink() {
	_ = ip("link del " + i.cable) // It may never have been laid, and would go with the namespace.
	close(i.work)
	i.inhabitants.Wait()
}

// CutOff loses all packets from now on.
func (i *Island) CutOff(t testing.TB) {
	t.Helper()
	check(t, i.inside(func() error { return ip("route add blackhole " + i.address + "/32") }))
}

// Reconnect ends a CutOff. What is still being sent again arrives.
func (i *Island) Reconnect(t testing.TB) {
	t.Helper()
	check(t, i.inside(func() error { return ip("route del blackhole " + i.address + "/32") }))
}

// ip runs commands of iproute2, in the namespace of the thread.
func ip(commands ...string) error {
	for _, command := range commands {
		out, err := exec.CommandContext(context.Background(), "ip", strings.Fields(command)...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("run ip %s: %w: %s", command, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}
