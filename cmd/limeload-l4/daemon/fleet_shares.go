package daemon

import "context"

// limitShares divides the rates of limits among the nodes.
type limitShares struct {
	membership *membership // set once, then read-only
}

func newLimitShares(m *membership) *limitShares { return &limitShares{membership: m} }

// run works until ctx is done.
func (p *limitShares) run(ctx context.Context) { <-ctx.Done() }
