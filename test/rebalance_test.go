package test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
	"github.com/redis/go-redis/v9"
)

// TestRebalance has clients keep their connections while a pool of two Redis servers becomes one of four, and expects
// that the new servers get their share, and that no command fails.
func TestRebalance(t *testing.T) {
	t.Parallel()
	const clients = 40
	servers := make([]*harness.Redis, 4)
	for i := range servers {
		servers[i] = harness.StartRedis(t)
	}
	b := world{
		Backends: []string{servers[0].Address, servers[1].Address}, Listener: []string{`profile = "redis"`},
		Pool: []string{`algorithm = "least_conn"`, `drain = "safe"`,
			`rebalance = { max_skew = 1.2, rate = "50%/s", min_age = "0s" }`},
	}.start(t)
	var running sync.WaitGroup
	var stop atomic.Bool
	var commands atomic.Int64
	defer running.Wait()
	defer stop.Store(true)
	for i := range clients {
		running.Go(func() {
			c := redis.NewClient(&redis.Options{Addr: b.Address(t, "main"), PoolSize: 1})
			defer c.Close()
			for turn := 0; !stop.Load(); turn++ {
				pipeline := c.TxPipeline()
				pipeline.Set(t.Context(), fmt.Sprint(i), turn, 0)
				pipeline.Get(t.Context(), fmt.Sprint(i))
				if _, err := pipeline.Exec(t.Context()); err != nil {
					t.Errorf("client %d, turn %d: %v", i, turn, err)
					return
				}
				commands.Add(2)
				time.Sleep(250 * time.Millisecond) // sessions of Redis leave in a pause
			}
		})
	}
	hasSessions(t, b, "b1", clients/2)
	hasSessions(t, b, "b2", clients/2)
	for i, s := range servers[2:] {
		b.Ask(t, "POST", "/v1/pools/all/backends",
			map[string]any{"name": fmt.Sprintf("b%d", i+3), "address": s.Address}, nil)
	}
	harness.Eventually(t, "no backend has more than 1.2 times its share", func() error {
		total := 0
		for i := range servers {
			n := sessionsOf(t, b, fmt.Sprintf("b%d", i+1))
			if total += n; n > clients/len(servers)*12/10 {
				return fmt.Errorf("b%d has %d sessions", i+1, n)
			}
		}
		if total != clients {
			return fmt.Errorf("%d sessions", total)
		}
		return nil
	})
	stop.Store(true)
	running.Wait()
	moved := 0
	for _, line := range b.Sessions() {
		if line.Reason == "moved" {
			moved++
		}
	}
	// Half of the sessions are above the old servers' shares, and some of those stay by max_skew.
	if moved < clients/2-clients/10 || moved > clients/2 {
		t.Errorf("%d sessions have moved", moved)
	}
	t.Logf("%d sessions have moved, %d commands", moved, commands.Load())
}
