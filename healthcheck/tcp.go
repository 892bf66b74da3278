package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// partingTime is how long a TCP check waits, after its verdict, for the target to close as well. Well-behaved servers do
// so within a round trip; the others cost a slot of the scheduler for so long, and may see a reset.
const partingTime = 100 * time.Millisecond

// TCP checks that a target accepts connections. It sends nothing.
// It is a plain value; its zero value checks the target's own port.
//
// It parts politely: it closes its half and reads what the target may say until the target closes as well. To close with
// a greeting unread would make the kernel send a reset, at every check, into the log of a server that speaks first.
type TCP struct {
	Port uint16 // instead of the target's; 0 = the target's
}

// Check connects to t and closes the connection again. Its errors wrap their cause, and ErrInconclusive when that is
// ours.
func (c TCP) Check(ctx context.Context, t Target) (Result, error) {
	addr := t.Addr
	if c.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), c.Port)
	}
	d := net.Dialer{KeepAlive: -1} // it does not live long enough for keepalive
	start := time.Now()
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return Result{}, connectError(ctx, start, err)
	}
	latency := time.Since(start)
	part(ctx, conn.(*net.TCPConn))
	return Result{Latency: latency, Detail: "connected"}, nil
}

// part closes conn so that the target sees an orderly end. What goes wrong here is not the target's health.
func part(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	until := time.Now().Add(partingTime)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(until) {
		until = deadline
	}
	if conn.SetReadDeadline(until) != nil || conn.CloseWrite() != nil {
		return
	}
	// Bounded, since a target may talk faster than it takes to stop listening.
	const enough = 64 << 10
	_, _ = io.CopyN(io.Discard, conn, enough)
}

// A checkError says in words why a check failed.
type checkError struct {
	words  string
	causes []error
}

// Error returns the words alone: the cause repeats the address, which whoever reads this knows.
func (e *checkError) Error() string { return e.words }

// Unwrap returns the causes.
func (e *checkError) Unwrap() []error { return e.causes }

// connectError puts the reason of a failed connect, begun at start, into words.
func connectError(ctx context.Context, start time.Time, err error) error {
	var timeout net.Error
	words := ""
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		words = "connect refused"
	case errors.Is(err, syscall.ECONNRESET):
		words = "connect reset"
	case errors.Is(err, syscall.EHOSTUNREACH):
		words = "no route to host"
	case errors.Is(err, syscall.ENETUNREACH):
		words = "network unreachable"
	case errors.As(err, &timeout) && timeout.Timeout():
		after := time.Since(start)
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
			after = deadline.Sub(start)
		}
		words = fmt.Sprintf("connect timed out after %v", after.Round(time.Millisecond))
	}
	if words != "" {
		return &checkError{words: words, causes: []error{err}}
	}
	for _, ours := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL,
	} {
		if errors.Is(err, ours) {
			return &checkError{words: "cannot check: " + ours.Error(), causes: []error{err, ErrInconclusive}}
		}
	}
	return &checkError{words: "connect: " + err.Error(), causes: []error{err}}
}
