package probe

import (
	"context"

	"github.com/limeload/limeload-l4/healthcheck"
)

// Proxied is a check of targets that expect a PROXY protocol header at the beginning of each TCP connection. The header
// says that the connection is the check's own, and on nobody's behalf. It is sent on the target's own port only: another
// port, or another address that is checked instead, is not where clients are sent. Checks without TCP ignore it.
// It is a plain value; Checker is required.
type Proxied struct {
	Checker healthcheck.Checker
	Version int // of the protocol: 1 or 2
}

// Check calls Checker.
func (c Proxied) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	// proxy-protocol.txt, 2.1 and 2.2: UNKNOWN, and the command LOCAL without addresses.
	switch {
	case t.Exact:
	case c.Version == 2:
		t.Preamble = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
	default:
		t.Preamble = "PROXY UNKNOWN\r\n"
	}
	return c.Checker.Check(ctx, t)
}
