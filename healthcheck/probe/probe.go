// Package probe checks targets: it has a healthcheck.Checker for each protocol, and each has a file of its own, or a few that
// begin with its name. AllOf and AnyOf combine checkers.
//
// It decides nothing: when to check, and what the results make of a verdict, is the scheduler's part. It does not log, and
// it reads no configuration; what is wrong with a target is an error of a few words, for the operator. Each of these words
// has a row in docs/health.md, which says what it means.
//
// Checkers are plain values, except for ICMP, and may be used from any goroutine. What a target sends is bounded in bytes and in time,
// and never costs memory before it has arrived.
//
// The package is larger than most: the checks are independent of each other, but they share the connection of a check
// (talk.go) and the words of failures (failure.go), so that a refused connect reads the same whatever is checked.
package probe

import (
	"net/netip"

	"github.com/limeload/limeload-l4/healthcheck"
)

// atPort returns t's address, with port instead of its own unless that is 0 or the address is exact.
func atPort(t healthcheck.Target, port uint16) netip.AddrPort {
	if port == 0 || t.Exact {
		return t.Addr
	}
	return netip.AddrPortFrom(t.Addr.Addr(), port)
}

// addressName returns what a certificate has to be for when nothing else is said: the target's address.
func addressName(t healthcheck.Target) string { return t.Addr.Addr().WithZone("").String() }
