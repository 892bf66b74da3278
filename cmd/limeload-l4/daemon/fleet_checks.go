package daemon

import "context"

// sharedChecks divides the checks among the nodes, and shares their verdicts.
type sharedChecks struct {
	membership *membership // set once, then read-only
}

func newSharedChecks(m *membership) *sharedChecks { return &sharedChecks{membership: m} }

// run works until ctx is done.
func (p *sharedChecks) run(ctx context.Context) { <-ctx.Done() }
