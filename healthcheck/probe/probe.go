// Package probe knows how to check targets. It has a healthcheck.Checker for each protocol, in a file of that name, or
// in a few files that begin with it. AllOf and AnyOf combine checkers.
//
// It does not know when to check, nor what the results mean for the verdict: that is up to package healthcheck. It does
// not log and reads no configuration. A failure is an error of a few words for the operator, and docs/health.md
// explains each.
//
// Checkers may be used from any goroutine, and all but ICMP are plain values. A check reads a bounded number of bytes
// from a target, for a bounded time. A length that a target announces costs no memory before the bytes arrive.
//
// The package is larger than most. The checks are independent of each other, but they share the connection (conn.go)
// and the wording of failures (failure.go), so that a refused connect has the same reason whatever is checked.
package probe

import (
	"context"
	"net"
	"net/netip"
	"strconv"

	"github.com/limeload/limeload-l4/healthcheck"
)

// check is Check of an Asker.
func check(ctx context.Context, c healthcheck.Asker, t healthcheck.Target) (healthcheck.Result, error) {
	return healthcheck.Ask(ctx, c, t).Judge(c)
}

// atPort returns t's address. Its port is replaced by port, unless that is 0 or t.Exact is set. A Unix socket has none.
func atPort(t healthcheck.Target, port uint16) netip.AddrPort {
	if port == 0 || t.Exact || t.Path != "" {
		return t.Addr
	}
	return netip.AddrPortFrom(t.Addr.Addr(), port)
}

// addressName returns the name that a certificate must have by default: the target's address. A target that is a Unix
// socket is this host.
func addressName(t healthcheck.Target) string {
	if t.Path != "" {
		return "localhost"
	}
	return t.Addr.Addr().WithZone("").String()
}

// authority returns the target's host and port as HTTP has them. A Unix socket has no port.
func authority(t healthcheck.Target, port uint16) string {
	if t.Path != "" {
		return addressName(t)
	}
	return net.JoinHostPort(addressName(t), strconv.Itoa(int(atPort(t, port).Port())))
}
