package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// A frame is a header, a body, and the descriptors that come with the header's first byte:
//
//	magic (4 bytes)  kind (1)  descriptors (1)  reserved (2)  id (4)  length of the body (4)

const (
	magic      = 0x70677363 // "pgsc"
	headerSize = 16

	// MaxBody bounds a request or an answer in bytes.
	MaxBody = 16 << 20
	// maxDescriptors is how many descriptors one frame may carry: the kernel takes 253 (SCM_MAX_FD).
	maxDescriptors = 64
)

// errGarbage is what does not come from a pgsidecar.
var errGarbage = errors.New("what was received is not the handover protocol")

type kind uint8

const (
	kindHello   kind = iota + 1 // from the successor: hello
	kindWelcome                 // from the other: welcome, with the listening sockets
	kindServing                 // from the successor: it accepts clients
	kindRequest                 // from both
	kindAnswer                  // to the request with the same id
	kinds
)

type frame struct {
	kind        kind
	id          uint32
	body        []byte
	descriptors []int
}

// writeFrame sends a frame. The kernel duplicates the descriptors, which stay the caller's.
func writeFrame(conn *net.UnixConn, f frame) error {
	if len(f.body) > MaxBody || len(f.descriptors) > maxDescriptors {
		return fmt.Errorf("send: %d bytes and %d descriptors are too many", len(f.body), len(f.descriptors))
	}
	message := make([]byte, headerSize, headerSize+len(f.body))
	binary.BigEndian.PutUint32(message, magic)
	message[4], message[5] = byte(f.kind), byte(len(f.descriptors))
	binary.BigEndian.PutUint32(message[8:], f.id)
	binary.BigEndian.PutUint32(message[12:], uint32(len(f.body)))
	message = append(message, f.body...)
	var rights []byte
	if len(f.descriptors) > 0 {
		rights = unix.UnixRights(f.descriptors...)
	}
	n, _, err := conn.WriteMsgUnix(message, rights, nil)
	if err == nil && n < len(message) {
		_, err = conn.Write(message[n:])
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// readFrame receives a frame. Its descriptors are the caller's, who closes them.
func readFrame(conn *net.UnixConn) (frame, error) {
	header, descriptors, err := readHeader(conn)
	if err == nil {
		err = checkHeader(header, len(descriptors))
	}
	if err != nil {
		closeAll(descriptors)
		return frame{}, err
	}
	f := frame{
		kind: kind(header[4]), id: binary.BigEndian.Uint32(header[8:]), descriptors: descriptors,
		body: make([]byte, binary.BigEndian.Uint32(header[12:])),
	}
	if _, err := io.ReadFull(conn, f.body); err != nil {
		closeAll(descriptors)
		return frame{}, fmt.Errorf("receive: %w", err)
	}
	return f, nil
}

// readHeader reads exactly a header, and what comes with it: the kernel never gives the descriptors of one message out
// with the bytes of another.
func readHeader(conn *net.UnixConn) (header []byte, descriptors []int, err error) {
	header = make([]byte, headerSize)
	rights := make([]byte, unix.CmsgSpace(4*maxDescriptors))
	for have := 0; have < headerSize; {
		n, length, flags, _, err := conn.ReadMsgUnix(header[have:], rights)
		if length > 0 {
			received, parseErr := parseRights(rights[:length])
			descriptors = append(descriptors, received...)
			err = errors.Join(err, parseErr)
		}
		switch {
		case err != nil:
			return nil, descriptors, fmt.Errorf("receive: %w", err)
		case flags&unix.MSG_CTRUNC != 0:
			return nil, descriptors, fmt.Errorf("%w: more descriptors than are allowed, or than this process may open", errGarbage)
		case n == 0 && have == 0:
			return nil, descriptors, io.EOF
		case n == 0:
			return nil, descriptors, io.ErrUnexpectedEOF
		}
		have += n
	}
	return header, descriptors, nil
}

func parseRights(control []byte) (descriptors []int, err error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errGarbage, err)
	}
	for i := range messages {
		received, parseErr := unix.ParseUnixRights(&messages[i])
		descriptors = append(descriptors, received...)
		err = errors.Join(err, parseErr)
	}
	return descriptors, err
}

func checkHeader(header []byte, descriptors int) error {
	k := kind(header[4])
	switch {
	case binary.BigEndian.Uint32(header) != magic, k == 0, k >= kinds:
		return errGarbage
	case int(header[5]) != descriptors:
		return fmt.Errorf("%w: %d descriptors where %d are announced", errGarbage, descriptors, header[5])
	case binary.BigEndian.Uint32(header[12:]) > MaxBody:
		return fmt.Errorf("%w: a message is too long", errGarbage)
	}
	return nil
}

func closeAll(descriptors []int) {
	for _, fd := range descriptors {
		_ = unix.Close(fd)
	}
}
