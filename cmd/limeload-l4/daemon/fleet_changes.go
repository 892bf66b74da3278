package daemon

import "context"

// sharedChanges shares run-time changes with the other nodes.
type sharedChanges struct {
	membership *membership // set once, then read-only
}

func newSharedChanges(m *membership) *sharedChanges { return &sharedChanges{membership: m} }

// run works until ctx is done.
func (p *sharedChanges) run(ctx context.Context) { <-ctx.Done() }
