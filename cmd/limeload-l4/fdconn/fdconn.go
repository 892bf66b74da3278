// Package fdconn sends messages with descriptors from one process to another, over a Unix socket. A message is a kind
// and a body in JSON, and has at most MaxFDs descriptors. What the other process sends is bounded: an announced length
// costs no memory before the bytes are there, and no descriptor is left open after an error. The package does not know
// what the messages mean.
//
// A Conn is used by one goroutine at a time; Close and SetDeadline may be called from any.
package fdconn

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// MaxFDs is how many descriptors a message may have (SCM_MAX_FD of the kernel, unix(7)).
const MaxFDs = 253

// MaxBytes bounds the body of a message: the run-time changes of ten thousand backends need less than a tenth of it.
const MaxBytes = 64 << 20

// A frame begins with a header of three numbers of 32 bits: magic, the length of the rest, and how many descriptors
// come with the header.
const (
	headerBytes = 12
	magic       = 0x4c4c5531 // "LLU1"
)

// ErrMalformed is wrapped by the errors of Receive about bytes that are no message.
var ErrMalformed = errors.New("this is no message")

// A Conn is one end of the connection. Its zero value is of no use, see Pair and Take.
type Conn struct {
	socket *net.UnixConn
}

// A Message is what Receive returns.
type Message struct {
	Kind string          `json:"kind"`
	Body json.RawMessage `json:"body,omitempty"`

	FDs     []int `json:"-"` // the receiver's from now on; close-on-exec
	Missing int   `json:"-"` // how many more were sent: this process has no room for them
}

// Decode decodes the body.
func (m *Message) Decode(into any) error {
	if err := json.Unmarshal(m.Body, into); err != nil {
		return fmt.Errorf("message %q: %w", m.Kind, err)
	}
	return nil
}

// CloseFDs closes the descriptors.
func (m *Message) CloseFDs() {
	closeAll(m.FDs)
	m.FDs = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
}

// Pair makes a connection. theirs is the other process's end, in blocking mode and close-on-exec. The caller closes it
// once that process has it.
func Pair() (mine *Conn, theirs *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "upgrade")
	if mine, err = Take(fds[0]); err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return mine, theirs, nil
}

// Take makes a Conn of a descriptor, and owns it, also after an error. It must be a connected Unix stream socket.
func Take(fd int) (*Conn, error) {
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "upgrade")
	if f == nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, syscall.EBADF)
	}
	defer f.Close() // FileConn has a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	u, is := c.(*net.UnixConn)
	kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if !is || err != nil || kind != syscall.SOCK_STREAM {
		c.Close()
		return nil, fmt.Errorf("descriptor %d: it is no Unix stream socket", fd)
	}
	return &Conn{u}, nil
}

// SetDeadline bounds all calls from now on, also those under way; the zero time is no bound.
func (c *Conn) SetDeadline(t time.Time) { _ = c.socket.SetDeadline(t) } // a closed one reports that by itself

// Close closes the connection. Calls under way end.
func (c *Conn) Close() error { return c.socket.Close() }

// Send sends a message. The descriptors stay the caller's. After an error, whether it has arrived is not known.
func (c *Conn) Send(kind string, body any, fds ...int) error {
	if len(fds) > MaxFDs {
		return fmt.Errorf("send %q: %d descriptors, and a message has at most %d", kind, len(fds), MaxFDs)
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("send %q: %w", kind, err)
	}
	payload, err := json.Marshal(Message{Kind: kind, Body: encoded})
	if err != nil {
		return fmt.Errorf("send %q: %w", kind, err)
	}
	if len(payload) > MaxBytes {
		return fmt.Errorf("send %q: %d bytes, and a message has at most %d", kind, len(payload), MaxBytes)
	}
	header := binary.BigEndian.AppendUint32(nil, magic)
	header = binary.BigEndian.AppendUint32(header, uint32(len(payload)))
	header = binary.BigEndian.AppendUint32(header, uint32(len(fds)))
	var rights []byte
	if len(fds) > 0 {
		rights = syscall.UnixRights(fds...)
	}
	n, _, err := c.socket.WriteMsgUnix(header, rights, nil)
	if err == nil {
		_, err = c.socket.Write(append(header[n:], payload...))
	}
	if err != nil {
		return fmt.Errorf("send %q: %w", kind, err)
	}
	return nil
}

// Receive returns the next message. The error is io.EOF when the other process has closed its end, or has ended; it
// wraps ErrMalformed if that is not one of this program.
func (c *Conn) Receive() (m Message, err error) {
	var fds []int
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	var header [headerBytes]byte
	for got := 0; got < headerBytes; {
		n, more, err := c.receiveHeader(header[got:])
		fds = append(fds, more...)
		switch {
		case err == io.EOF && got > 0:
			return m, io.ErrUnexpectedEOF
		case err != nil:
			return m, err
		case len(fds) > MaxFDs:
			return m, fmt.Errorf("%w: it has more than %d descriptors", ErrMalformed, MaxFDs)
		}
		got += n
	}
	length, announced := binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[8:])
	switch {
	case binary.BigEndian.Uint32(header[:]) != magic:
		return m, fmt.Errorf("%w: it begins with %x", ErrMalformed, header[:4])
	case length > MaxBytes:
		return m, fmt.Errorf("%w: it has %d bytes, more than %d", ErrMalformed, length, MaxBytes)
	case announced > MaxFDs || int(announced) < len(fds):
		return m, fmt.Errorf("%w: it announces %d descriptors, and has %d", ErrMalformed, announced, len(fds))
	}
	var payload bytes.Buffer // grows with what arrives
	if _, err := io.CopyN(&payload, c.socket, int64(length)); err != nil {
		if err = ended(err); err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return m, err
	}
	if err := json.Unmarshal(payload.Bytes(), &m); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	m.FDs, m.Missing = fds, int(announced)-len(fds)
	return m, nil
}

// receiveHeader reads bytes of a header with the descriptors that come with them. Those that come with other bytes are
// closed by the kernel, since they are read without a place for them.
func (c *Conn) receiveHeader(into []byte) (n int, fds []int, err error) {
	control := make([]byte, syscall.CmsgSpace(4*MaxFDs))
	n, size, _, _, err := c.socket.ReadMsgUnix(into, control) // a truncated list shows in the header's number
	messages, failed := syscall.ParseSocketControlMessage(control[:max(size, 0)])
	for _, message := range messages {
		more, err := syscall.ParseUnixRights(&message)
		if err != nil {
			continue // no descriptors
		}
		fds = append(fds, more...)
	}
	if err == nil && failed != nil {
		err = fmt.Errorf("%w: %w", ErrMalformed, failed)
	}
	return n, fds, ended(err)
}

// ended returns io.EOF for the errors that say that the other process has closed its end. One that had something to
// read still resets the connection.
func ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return io.EOF
	}
	return err
}
