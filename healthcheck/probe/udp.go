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

// longestQuiet is the longest time that a target must be silent to count as healthy. An ICMP error arrives after one
// round trip, which takes far less than a second. To wait longer would hold a slot of the scheduler for nothing.
const longestQuiet = time.Second

// mostStrays is how many datagrams a check reads that are not the answer. A target that floods it must not keep a CPU
// busy until the deadline.
const mostStrays = 64

// UDP checks that a target takes datagrams. It is a plain value; its zero value sends an empty datagram to the target's
// own port, and accepts silence.
//
// The check sends the datagram a second time halfway through its time, since UDP may lose one, and that says nothing
// about the target. The datagram should do no harm when it arrives twice.
//
// A check that accepts silence notices that a host is gone (as late as ARP or a router says so, see ICMP) or that its
// port is closed. It does not notice a server that hangs. Linux sends about one ICMP error per second to each peer, a
// firewall may send none. A check that wants an answer is better.
type UDP struct {
	Port          uint16 // instead of the target's; 0 = the target's
	Payload       []byte // what is sent
	Expect        []byte // an answer must contain this; empty = any answer will do
	RequireAnswer bool   // an answer must come, even if Expect is empty
}

// Check sends the payload to t. It waits for the answer until ctx ends. If silence is fine, it waits for an ICMP error
// for half of that time, and for a second at most.
func (c UDP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	start := time.Now()
	needed := c.RequireAnswer || len(c.Expect) > 0
	until, _ := ctx.Deadline()
	if !needed {
		until = quietUntil(ctx, start)
	}
	var last []byte
	answers := 0
	answered, err := exchangeUDP(ctx, t, atPort(t, c.Port), c.Payload, until, func(answer []byte) bool {
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

// quietUntil returns the time at which silence since start has lasted long enough.
func quietUntil(ctx context.Context, start time.Time) time.Time {
	wait := longestQuiet
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, deadline.Sub(start)/2)
	}
	return start.Add(wait)
}

// exchangeUDP sends payload from a new port to addr, an address of t, and once more if no answer comes. It waits until the time given
// (zero = until ctx ends), and reports whether addr sent a datagram for which accept returns true. It gives up after
// mostStrays other datagrams. accept must not keep its argument.
func exchangeUDP(
	ctx context.Context, t healthcheck.Target, addr netip.AddrPort, payload []byte, until time.Time,
	accept func([]byte) bool,
) (bool, error) {
	if t.Path != "" {
		return false, notOverUDP()
	}
	d := net.Dialer{Control: reportUnreachable}
	start := time.Now()
	conn, err := dialTarget(ctx, d, "udp", t, addr)
	if said, ok := errors.AsType[*checkError](err); ok {
		return false, said
	}
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
		if ctx.Err() != nil { // if it ends later than here, AfterFunc replaces the deadline set above
			return false, nil
		}
		if _, err := conn.Write(payload); err != nil {
			return false, udpError(ctx, err)
		}
		for strays := 0; ; strays++ {
			n, err := conn.Read(buf)
			switch {
			case errors.Is(err, syscall.EMSGSIZE): // the path has a smaller MTU; the next datagram is sent with it
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

// resendDelay returns how long after start a packet that may be lost is sent again: half of the time until the wait
// ends, or a second if until is zero.
func resendDelay(start, until time.Time) time.Duration {
	if until.IsZero() {
		return time.Second
	}
	return until.Sub(start) / 2
}

// silenceError is the failure of a target from which what ("the answer") did not come.
func silenceError(ctx context.Context, start time.Time, what string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return cancelled(ctx.Err())
	}
	return timedOut(ctx, start, what, context.DeadlineExceeded)
}

// udpError puts an error of a UDP or ICMP socket into words.
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
