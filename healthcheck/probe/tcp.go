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

// Check connects to t and ends the connection in order, see checkConn.finish. Its errors wrap their cause; if the cause
// is on this machine, they wrap ErrInconclusive as well.
func (c TCP) Check(ctx context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	k, err := openConn(ctx, t, c.Port, nil, "")
	if err != nil {
		return healthcheck.Result{}, err
	}
	latency := time.Since(k.start)
	k.finish(ctx)
	return healthcheck.Result{Latency: latency, Detail: "connected"}, nil
}
