package probe

import (
	"context"

	"github.com/limeload/limeload-l4/healthcheck"
)

// Proxied is a check of targets that expect a PROXY protocol header at the beginning of each TCP connection. The header
// says that the connection is the check's own, and on nobody's behalf. It is sent on the target's own port only:
// another port, or another address that is checked instead, is not where clients are sent. Checks without TCP ignore
// it. It is a plain value; Checker is required.
type Proxied struct {
	Checker healthcheck.Checker
	Version int // of the protocol: 1 or 2
}

// Check calls Checker.
func (c Proxied) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	return c.Checker.Check(ctx, c.prefix(t))
}

// Ask asks the question of Checker.
func (c Proxied) Ask(ctx context.Context, t healthcheck.Target) (any, error) {
	return healthcheck.Ask(ctx, c.Checker, c.prefix(t)), nil
}

// Judge returns what Checker makes of an answer.
func (c Proxied) Judge(answer any) (healthcheck.Result, error) {
	return answer.(healthcheck.Answer).Judge(c.Checker)
}

// Join joins Checker with that of other.
func (c Proxied) Join(other healthcheck.Checker) healthcheck.Checker {
	c.Checker = healthcheck.Join(c.Checker, other.(Proxied).Checker)
	return c
}

// Cost returns what the check costs.
func (c Proxied) Cost() (sockets, programs int) { return healthcheck.CostOf(c.Checker) }

// prefix returns t with the header in front of all that is sent to it.
func (c Proxied) prefix(t healthcheck.Target) healthcheck.Target {
	// proxy-protocol.txt, 2.1 and 2.2: UNKNOWN, and the command LOCAL without addresses.
	switch {
	case t.Exact:
	case c.Version == 2:
		t.Preamble = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	default:
		t.Preamble = "PROXY UNKNOWN\r\n"
	}
	return t
}
