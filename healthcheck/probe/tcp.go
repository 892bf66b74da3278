package probe

import (
	"context"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// TCP checks that a target accepts connections. It sends nothing.
// It is a plain value; its zero value checks the target's own port.
type TCP struct {
	Port uint16 // instead of the target's; 0 = the target's
}

// Check connects to t and closes the connection again, politely: see talk.part. Its errors wrap their cause, and ErrInconclusive
// when that is ours.
func (c TCP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openTalk(ctx, t, c.Port, nil, "")
	if err != nil {
		return healthcheck.Result{}, err
	}
	latency := time.Since(k.start)
	k.part(ctx)
	return healthcheck.Result{Latency: latency, Detail: "connected"}, nil
}
