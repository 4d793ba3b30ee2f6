package handover

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// pair makes two processes whose links run.
func pair(t *testing.T, serveOld, serveNew func(*Request)) (ours, theirs *Link, await func() (error, error)) {
	t.Helper()
	o := newOld(t)
	p, sockets, err := join(t, o.path)
	require.NoError(t, err)
	sockets.CloseUnclaimed()
	theirs = p.Link
	require.NoError(t, p.Serving())
	require.NoError(t, <-o.offered)
	ours = <-o.links
	errs := make([]error, 2)
	var running sync.WaitGroup
	running.Go(func() { errs[0] = ours.Run(serveOld) })
	running.Go(func() { errs[1] = theirs.Run(serveNew) })
	return ours, theirs, func() (error, error) {
		running.Wait()
		return errs[0], errs[1]
	}
}

func refuseAll(*Request) {}

// result is what came of an ask.
type result struct {
	body string
	err  error
}

func asking(l *Link, body string, descriptor int) <-chan result {
	done := make(chan result, 1)
	l.Ask([]byte(body), descriptor, func(answer []byte, err error) { done <- result{string(answer), err} })
	return done
}

func TestLink_answersInBothDirections(t *testing.T) {
	echo := func(r *Request) { r.Answer(append([]byte("re: "), r.Body()...), nil) }
	ours, theirs, await := pair(t, echo, echo)
	long := strings.Repeat("x", 3<<20)
	first, second := asking(ours, long, -1), asking(theirs, "b", -1)
	require.Equal(t, result{"re: " + long, nil}, <-first)
	require.Equal(t, result{"re: b", nil}, <-second)
	theirs.Close()
	ourErr, theirErr := await()
	require.NoError(t, ourErr)
	require.NoError(t, theirErr)
	require.Equal(t, ErrGone, (<-asking(ours, "too late", -1)).err)
}

// TestLink_descriptor_isTheOtherSidesWhenItHasAnswered passes the one end of a connection on.
func TestLink_descriptor_isTheOtherSidesWhenItHasAnswered(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer unix.Close(fds[1])
	taken := make(chan int, 1)
	ours, _, await := pair(t, refuseAll, func(r *Request) {
		fd := r.TakeDescriptor()
		require.Equal(t, -1, r.TakeDescriptor())
		r.Answer(nil, func(err error) {
			require.NoError(t, err)
			taken <- fd
		})
	})
	require.NoError(t, (<-asking(ours, "client", fds[0])).err)
	require.NoError(t, unix.Close(fds[0]))
	theirs := <-taken
	_, err = unix.Write(theirs, []byte("alive"))
	require.NoError(t, err)
	buf := make([]byte, 9)
	n, err := unix.Read(fds[1], buf)
	require.NoError(t, err)
	require.Equal(t, "alive", string(buf[:n]))
	require.NoError(t, unix.Close(theirs))
	n, err = unix.Read(fds[1], buf)
	require.NoError(t, err)
	require.Zero(t, n, "nobody else has it")
	ours.Close()
	_, _ = await()
}

// TestLink_ended_exactlyOneSideHasIt ends links at random moments while requests are answered: what one side has been told,
// the other must know, or both must know that it is not so.
func TestLink_ended_exactlyOneSideHasIt(t *testing.T) {
	for i := range 30 {
		const requests = 100
		var mu sync.Mutex
		took := make(map[string]bool)
		ours, theirs, await := pair(t, refuseAll, func(r *Request) {
			name := string(r.Body())
			r.Answer([]byte("yes"), func(err error) {
				mu.Lock()
				defer mu.Unlock()
				took[name] = err == nil
			})
		})
		var all []<-chan result
		for n := range requests {
			if n == i*3 {
				if i%2 == 0 {
					ours.Close()
				} else {
					theirs.Close()
				}
			}
			all = append(all, asking(ours, string(rune('0'+n)), -1))
		}
		if i%3 == 0 {
			ours.Close()
		}
		theirs.Close()
		_, _ = await()
		for n, one := range all {
			r := <-one
			require.Equal(t, r.err == nil, took[string(rune('0'+n))], "%d of link %d: %v", n, i, r.err)
		}
	}
}

// TestLink_slow_isGivenUp is about a process that has a client and neither takes nor refuses it.
func TestLink_slow_isGivenUp(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	ours, _, await := pair(t, refuseAll, refuseAll)
	fd, err := unix.Dup(0)
	require.NoError(t, err)
	defer unix.Close(fd)
	since := time.Now()
	require.Equal(t, ErrGone, (<-asking(ours, "client", fd)).err)
	require.GreaterOrEqual(t, time.Since(since), patience)
	ourErr, _ := await()
	require.Equal(t, errSlow, ourErr)
}
