package daemon

import "context"

// members tells the fleet about this node.
type members struct {
	membership *membership // set once, then read-only
}

func newMembers(m *membership) *members { return &members{membership: m} }

// run works until ctx is done.
func (p *members) run(ctx context.Context) { <-ctx.Done() }
