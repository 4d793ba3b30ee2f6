// Package handover connects a process with its successor on the same machine, over a unix socket: it passes listening
// sockets on, and carries requests with descriptors in both directions while the one takes over from the other.
//
// It knows nothing of what is handed over: a request is opaque bytes and at most one descriptor.
//
// The invariants:
//   - Until the successor has said that it serves, nothing has changed for the process that it succeeds.
//   - A listening socket is open in one of the two at every moment, so that nobody who connects is refused.
//   - Whoever asks learns for certain whether the answer has been sent: an answer that cannot be delivered any more fails
//     for the one who gives it. So what travels with a request has one owner afterwards, whoever dies meanwhile.
//   - The other side runs under the same user as this one, or not a byte of its is looked at.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Protocol numbers what is said between two processes, what the requests of those above mean included. It is raised with
// every change: two processes with different numbers have nothing to say to each other.
const Protocol = 2

// patience bounds every wait for the other process to do what takes no time.
const patience = 10 * time.Second

// startup bounds the time from the moment when a successor gets the sockets until it serves.
const startup = time.Minute

// hello is what a successor says first.
type hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

// welcome is the answer. With a Refusal, which is a sentence for people, it is the last word.
type welcome struct {
	Protocol    int      `json:"protocol"`
	Version     string   `json:"version"`
	Refusal     string   `json:"refusal,omitempty"`
	Clients     int      `json:"clients"`
	Connections int      `json:"connections"`
	Sockets     []string `json:"sockets"` // By name; their descriptors come with it, in this order.
}

// State is what a successor has to know before it begins.
type State struct {
	Clients     int // Logged in.
	Connections int // The most connections to PostgreSQL that the process may have at this moment.
}

// errProtocol says which of two processes is too old for the other.
func errProtocol(mine, theirs int, version string) error {
	which := "newer"
	if theirs < mine {
		which = "older"
	}
	return fmt.Errorf("the other process (version %s) is %s: it hands over by protocol %d, this one by protocol %d; restart instead",
		version, which, theirs, mine)
}

// checkPeer refuses a process of another user.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("ask who is there: %w", err)
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("ask who is there: %w", err)
	}
	return sameUser(credentials.Uid, uint32(unix.Geteuid()))
}

func sameUser(theirs, mine uint32) error {
	if theirs != mine {
		return fmt.Errorf("it belongs to a process of user %d, and this one is of user %d: whoever takes over has to be the same user", theirs, mine)
	}
	return nil
}

// say sends a frame of the beginning, whose body is v.
func say(conn *net.UnixConn, kind kind, v any, descriptors ...int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return writeFrame(conn, frame{kind: kind, body: body, descriptors: descriptors})
}

// hear receives a frame of the beginning, whose body becomes v. The descriptors are the caller's.
func hear(conn *net.UnixConn, within time.Duration, want kind, v any) ([]int, error) {
	if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	f, err := readFrame(conn)
	if err != nil {
		return nil, err
	}
	if f.kind != want {
		closeAll(f.descriptors)
		return nil, fmt.Errorf("%w: message %d where %d is due", errGarbage, f.kind, want)
	}
	if v == nil {
		closeAll(f.descriptors)
		return nil, nil
	}
	if err := json.Unmarshal(f.body, v); err != nil { // What a later version adds is not looked at: its number says more.
		closeAll(f.descriptors)
		return nil, fmt.Errorf("%w: %w", errGarbage, err)
	}
	return f.descriptors, nil
}
