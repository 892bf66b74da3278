package probe

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// longestQuiet is how long the silence of a target has to last, at most, to count as health: an ICMP error is there after
// a round trip, which is far less than a second, and whoever waits longer holds a slot of the scheduler for nothing.
const longestQuiet = time.Second

// mostStrays is how many datagrams a check reads that are not what it waits for. A target that floods it must not cost
// a CPU until the deadline.
const mostStrays = 64

// UDP checks that a target takes datagrams. It is a plain value; its zero value sends an empty datagram to the target's
// own port, and is content with silence.
//
// The datagram is sent again once, halfway: UDP may lose it, and one loss says nothing about the target. It should be one
// that does no harm when it is taken twice.
//
// A check that is content with silence finds out that a host is gone (but only as fast as ARP or a router says so, see
// ICMP) or that its port is closed, and nothing of a server that hangs. Linux sends about one ICMP error per second to
// each peer, a firewall perhaps none. To ask for an answer is the better check.
type UDP struct {
	Port          uint16 // instead of the target's; 0 = the target's
	Payload       []byte // what is sent
	Expect        []byte // an answer has to come and to have this in it; empty = any answer is fine
	RequireAnswer bool   // an answer has to come, even if Expect is empty
}

// Check sends the payload to t and waits: for the answer until ctx ends, for the absence of an ICMP error half as long
// and no longer than a second.
func (c UDP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	start := time.Now()
	needed := c.RequireAnswer || len(c.Expect) > 0
	until, _ := ctx.Deadline()
	if !needed {
		until = quietUntil(ctx, start)
	}
	var last []byte
	answers := 0
	answered, err := exchangeUDP(ctx, atPort(t, c.Port), c.Payload, until, func(answer []byte) bool {
		answers++
		last = append(last[:0], answer[:min(len(answer), 4*longestQuote)]...)
		return bytes.Contains(answer, c.Expect)
	})
	switch {
	case err != nil:
		return healthcheck.Result{}, err
	case answered:
		return healthcheck.Result{Latency: time.Since(start), Detail: "answered"}, nil
	case answers > 0:
		return healthcheck.Result{}, unhealthyf("answered %s, wanted %s", quoted(last), quoted(c.Expect))
	case needed || ctx.Err() != nil:
		return healthcheck.Result{}, silenceError(ctx, start, "the answer")
	}
	return healthcheck.Result{Detail: "no answer, and no objection"}, nil // without a latency: nothing came back
}

// quietUntil returns when silence that began at start has lasted long enough.
func quietUntil(ctx context.Context, start time.Time) time.Time {
	wait := longestQuiet
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, deadline.Sub(start)/2)
	}
	return start.Add(wait)
}

// exchangeUDP sends payload from a fresh port to addr, twice if need be, and reports whether a datagram came from there
// that accept takes, until the time given (zero = until ctx ends). An answer of more than mostStrays that are not taken
// ends it as silence does. accept may not keep its argument.
func exchangeUDP(ctx context.Context, addr netip.AddrPort, payload []byte, until time.Time, accept func([]byte) bool) (bool, error) {
	d := net.Dialer{Control: reportUnreachable}
	start := time.Now()
	conn, err := d.DialContext(ctx, "udp", addr.String())
	if err != nil {
		return false, udpError(ctx, err)
	}
	defer conn.Close()
	release := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer release()
	again := start.Add(resendDelay(start, until))
	buf := make([]byte, 1<<16) // more than any datagram
	for _, wait := range []time.Time{again, until} {
		if err := conn.SetReadDeadline(wait); err != nil {
			return false, udpError(ctx, err)
		}
		if ctx.Err() != nil { // seen here, or else what AfterFunc does comes after that deadline
			return false, nil
		}
		if _, err := conn.Write(payload); err != nil {
			return false, udpError(ctx, err)
		}
		for strays := 0; ; strays++ {
			n, err := conn.Read(buf)
			switch {
			case errors.Is(err, syscall.EMSGSIZE): // the way is narrower than thought: the kernel knows now, for the next one
				continue
			case err == nil && accept(buf[:n]):
				return true, nil
			case err == nil && strays < mostStrays:
				continue
			case err == nil:
				return false, nil
			case !errors.Is(err, os.ErrDeadlineExceeded):
				return false, udpError(ctx, err)
			}
			break
		}
	}
	return false, nil
}

// resendDelay returns after what time something is sent again that may be lost on its way: halfway to the end of the wait,
// and after a second when there is none.
func resendDelay(start, until time.Time) time.Duration {
	if until.IsZero() {
		return time.Second
	}
	return until.Sub(start) / 2
}

// silenceError says that what ("the answer") did not come.
func silenceError(ctx context.Context, start time.Time, what string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cancelled(ctx.Err())
	}
	return timedOut(ctx, start, what, context.DeadlineExceeded)
}

// udpError puts an error of a socket for datagrams into words.
func udpError(ctx context.Context, err error) error {
	if common := commonFailure(ctx, err); common != nil {
		return common
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return unhealthyf(portUnreachable).because(err)
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unhealthyf("exchange: %s", errno.Error()).because(err)
	}
	return unhealthyf("exchange: %s", escaped(err.Error())).because(err)
}
