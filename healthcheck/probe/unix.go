package probe

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/limeload/limeload-l4/healthcheck"
)

// This file has what is different about targets that are Unix sockets.

// dialStream connects to t on the port that atPort says, or to its Unix socket. d is as for dialTarget. Some of its
// errors are checkErrors.
func dialStream(ctx context.Context, d net.Dialer, t healthcheck.Target, port uint16) (net.Conn, error) {
	if t.Path == "" {
		return dialTarget(ctx, d, "tcp", t, atPort(t, port))
	}
	if port != 0 {
		return nil, cannotCheckf("a Unix socket has no ports, and the check is for one")
	}
	conn, err := d.DialContext(ctx, "unix", t.Path)
	if words := socketWords(err); words != "" {
		err = unhealthyf("%s", words).because(err)
	}
	return conn, err
}

// socketWords says what an error of a connect to a Unix socket means; "" if it means the same as for TCP.
func socketWords(err error) string {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		return "there is no such Unix socket"
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return "not permitted to connect to the Unix socket"
	case errors.Is(err, syscall.EAGAIN):
		return "the Unix socket's queue of new connections is full"
	case errors.Is(err, syscall.EPROTOTYPE):
		return "not a Unix socket of streams"
	}
	return ""
}

// notOverUDP returns the error of a check that needs an IP address, and whose target has none.
func notOverUDP() error { return cannotCheckf("a Unix socket has no IP address") }
