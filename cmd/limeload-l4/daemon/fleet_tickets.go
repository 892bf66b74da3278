package daemon

import "context"

// sharedTickets shares the keys of TLS session tickets.
type sharedTickets struct {
	membership *membership // set once, then read-only
}

func newSharedTickets(m *membership) *sharedTickets { return &sharedTickets{membership: m} }

// run works until ctx is done.
func (p *sharedTickets) run(ctx context.Context) { <-ctx.Done() }
