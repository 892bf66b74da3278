package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// unreachable converts the failure of a call without a complete answer into an error with a remedy. If ctx has ended,
// that is the caller's own doing.
func (c *Client) unreachable(ctx context.Context, k call, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errSilent) {
		return fmt.Errorf("%s %s at %s: %w", k.method, k.path, c.address, cause)
	} else if cause != nil {
		err = cause
	}
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which has localhost for a Unix socket
	}
	path, isUnix := strings.CutPrefix(c.address, "unix:")
	var dial *net.OpError
	switch {
	case isUnix && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s; is limeload-l4 running, and is that its admin.address?",
			ErrUnreachable, path)
	case isUnix && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: no permission to connect to %s; "+
			"run this as root, as the daemon's user or as a member of the socket's group",
			ErrUnreachable, path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens at %s; is limeload-l4 running?", ErrUnreachable, c.address)
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("%w: connect to %s: %w", ErrUnreachable, c.address, &plainCause{dial.Err})
	case k.method == http.MethodGet:
		return fmt.Errorf("%w: %s %s at %s ended without an answer: %w", ErrUnreachable, k.method, k.path,
			c.address, &plainCause{err})
	}
	return fmt.Errorf("%w: %s %s at %s ended without an answer, and whether it was done is not known: %w",
		ErrUnreachable, k.method, k.path, c.address, &plainCause{err})
}

// A plainCause is the error of a connection, in words for somebody who does not know the library's.
type plainCause struct{ err error }

// Unwrap returns the cause.
func (e *plainCause) Unwrap() error { return e.err }

// Error says what happened, as far as it is known.
func (e *plainCause) Error() string {
	var call *os.SyscallError
	var errno syscall.Errno
	switch {
	case errors.Is(e.err, errSilent):
		return e.err.Error()
	case errors.As(e.err, &call):
		return call.Err.Error()
	case errors.As(e.err, &errno):
		return errno.Error()
	case errors.Is(e.err, io.EOF), errors.Is(e.err, io.ErrUnexpectedEOF), errors.Is(e.err, net.ErrClosed):
		return "the connection was closed"
	}
	return "what came is not HTTP of limeload-l4; is that its admin.address?"
}
