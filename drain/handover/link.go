package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone is what an ask ends with that the other process has not answered, and cannot answer any more.
var ErrGone = errors.New("the other process is gone")

// errSlow ends a link whose other side has a descriptor and does not say whether it takes it.
var errSlow = fmt.Errorf("the other process has not answered within %s", patience)

// Link carries requests between the two processes. Run reads it, a goroutine of Run's writes it, and Run's end closes it:
// when the other process has ended, or does not keep to the protocol, or after Close. Its methods may be called from any
// goroutine and do not block, Run apart.
type Link struct {
	conn *net.UnixConn
	wake chan struct{} // One token: there is something to write, or the link has ended.

	mu struct { // Held for an access to what is below.
		sync.Mutex
		queue []outgoing
		asked map[uint32]*asked
		last  uint32
		fault error // Why the link ends; nil: it does not, or the other process has ended.
		ended bool  // Nothing more is sent.
	}
}

// outgoing is a frame that has not been written.
type outgoing struct {
	frame frame
	sent  func(error) // May be nil.
}

// asked is a request whose answer is outstanding.
type asked struct {
	answered func([]byte, error)
	timer    *time.Timer // Nil: it may take its time.
}

func newLink(conn *net.UnixConn) *Link {
	l := &Link{conn: conn, wake: make(chan struct{}, 1)}
	l.mu.asked = make(map[uint32]*asked)
	return l
}

// Ask sends a request, with a descriptor unless that is negative, which stays open until answered is called: once, from any
// goroutine, with the answer, or with an error when there has been and will be none. It must not block. A request with a
// descriptor has to be answered without waiting for others, or the link ends.
func (l *Link) Ask(body []byte, descriptor int, answered func([]byte, error)) {
	one := &asked{answered: answered}
	f := frame{kind: kindRequest, body: body}
	if descriptor >= 0 {
		f.descriptors = []int{descriptor}
	}
	l.mu.Lock()
	if l.mu.ended || len(body) > MaxBody {
		l.mu.Unlock()
		answered(nil, ErrGone)
		return
	}
	l.mu.last++
	f.id = l.mu.last
	l.mu.asked[f.id] = one
	if descriptor >= 0 {
		one.timer = time.AfterFunc(patience, func() { l.fail(errSlow) })
	}
	l.mu.queue = append(l.mu.queue, outgoing{frame: f})
	l.mu.Unlock()
	l.awake()
}

// Close ends the link. What has been asked and is not answered yet gets ErrGone.
func (l *Link) Close() { l.fail(nil) }

// fail ends the link from this side. The other one cannot answer from now on; what it has answered before is still read.
func (l *Link) fail(why error) {
	l.mu.Lock()
	if l.mu.fault == nil {
		l.mu.fault = why
	}
	l.mu.ended = true
	l.mu.Unlock()
	_ = l.conn.CloseRead()
	l.awake()
}

func (l *Link) awake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run serves the link until its end. serve gets the requests of the other process, one after the other, and must not block.
// The error says why it has ended; nil: the other process has ended, or Close was called.
func (l *Link) Run(serve func(*Request)) error {
	_ = l.conn.SetDeadline(time.Time{})
	var writing sync.WaitGroup
	writing.Go(l.write)
	err := l.read(serve)
	l.fail(nil)
	_ = l.conn.SetWriteDeadline(time.Unix(1, 0)) // The other side may not be reading.
	writing.Wait()
	_ = l.conn.Close()
	for _, one := range l.outstanding() {
		one.end(nil, ErrGone)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.fault != nil {
		return l.mu.fault
	}
	return err
}

func (l *Link) outstanding() []*asked {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*asked, 0, len(l.mu.asked))
	for _, one := range l.mu.asked {
		all = append(all, one)
	}
	clear(l.mu.asked)
	return all
}

func (a *asked) end(body []byte, err error) {
	if a.timer != nil {
		a.timer.Stop()
	}
	a.answered(body, err)
}

// read deals with what comes until the end.
func (l *Link) read(serve func(*Request)) error {
	for {
		f, err := readFrame(l.conn)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
			return nil
		case err != nil:
			return err
		case f.kind == kindRequest && len(f.descriptors) <= 1:
			l.requested(f, serve)
		case f.kind == kindAnswer && len(f.descriptors) == 0:
			if one := l.take(f.id); one != nil {
				one.end(f.body, nil)
			}
		default:
			closeAll(f.descriptors)
			return fmt.Errorf("%w: message %d is not due", errGarbage, f.kind)
		}
	}
}

func (l *Link) requested(f frame, serve func(*Request)) {
	r := &Request{link: l, id: f.id, body: f.body, descriptor: -1}
	if len(f.descriptors) > 0 {
		r.descriptor = f.descriptors[0]
	}
	serve(r)
	if r.descriptor >= 0 { // Nobody wanted it.
		_ = unix.Close(r.descriptor)
	}
}

func (l *Link) take(id uint32) *asked {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.mu.asked[id]
	delete(l.mu.asked, id)
	return one
}

// write is the goroutine that sends what is queued. It ends with the link.
func (l *Link) write() {
	for range l.wake {
		batch, ended := l.batch()
		failed := ended
		for _, out := range batch {
			err := ErrGone
			if !failed {
				err = l.send(out.frame)
			}
			if out.sent != nil {
				out.sent(err)
			}
			if err != nil && !failed {
				failed = true
				l.fail(nil) // Reading says why. The next round is the last one.
			}
		}
		if ended {
			return
		}
	}
}

func (l *Link) batch() (batch []outgoing, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch, l.mu.queue = l.mu.queue, nil
	return batch, l.mu.ended
}

func (l *Link) send(f frame) error {
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	return writeFrame(l.conn, f)
}

// Request is what the other process asks. It is valid while it is being served, but for Answer.
type Request struct {
	link       *Link
	id         uint32
	body       []byte
	descriptor int
}

// Body returns what is asked.
func (r *Request) Body() []byte { return r.body }

// TakeDescriptor returns the descriptor that has come with it, which is the caller's from now on; -1: there is none.
func (r *Request) TakeDescriptor() int {
	fd := r.descriptor
	r.descriptor = -1
	return fd
}

// Answer sends the answer. sent, unless nil, is called once, from any goroutine: with nil, the other process gets it unless
// it dies before it reads on; with an error, it never will. It must not block.
func (r *Request) Answer(body []byte, sent func(error)) {
	l := r.link
	l.mu.Lock()
	if l.mu.ended {
		l.mu.Unlock()
		if sent != nil {
			sent(ErrGone)
		}
		return
	}
	l.mu.queue = append(l.mu.queue, outgoing{frame{kind: kindAnswer, id: r.id, body: body}, sent})
	l.mu.Unlock()
	l.awake()
}
