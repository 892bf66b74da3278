package session_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestRampedTimeouts has clients wait for a backend that comes back with a slow start, which is longer than the queue's
// timeout: all are served over the slow start, and none is refused. One that comes meanwhile is served behind them.
func TestRampedTimeouts(t *testing.T) {
	const slow, soon, clients = time.Second, 100 * time.Millisecond, 20
	p, mode := heldPool(t, pool.Options{
		HoldMax: 100, HoldTimeout: time.Minute, QueueTimeout: soon, SlowStart: slow,
	}, backend(t, echo))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	lines, log := newCapture()
	s := start(t, l4.Options{Loops: 2, Access: true, Log: log}, spec(p))
	mode(pool.Maintenance)
	waiting := queuedClients(t, s, p, clients)
	began := time.Now()
	mode(pool.Ready)
	for i, c := range append(waiting, dial(t, address(s))) {
		if err := ask(c); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
		if i == clients-1 {
			if took := time.Since(began); took < slow*8/10 {
				t.Errorf("%d clients were served within %v", clients, took)
			}
		}
		c.Close()
		if line := lines.Next(t); line.Reason != tally.ClientClosed.String() {
			t.Errorf("client %d ended with %s after %v s in the queue", i, line.Reason, line.QueueTime)
		}
	}
}
