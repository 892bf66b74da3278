package test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/test/harness"
)

// TestAPoolsChecksAreNotDelayedByAnothers has a pool in which all checks hang, and another pool with a single healthy
// backend and clients. The healthy backend is checked in time, so that its verdict stays and no client is refused.
func TestAPoolsChecksAreNotDelayedByAnothers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		backends    int
		health      string
		descriptors int
		timeouts    float64 // hanging checks after which the test ends
	}{
		// Two rounds of all checks, with the few slots that the lowest usual limit of descriptors allows.
		"300 backends that swallow SYNs": {300, `type = "tcp"`, 1024, 600},
		"40 scripts that hang": {40,
			"type = \"exec\"\ncommand = [\"/bin/sleep\", \"600\"]\ntimeout = \"10s\"", 0, 50},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			healthy, cut := harness.Serve(t, harness.Echo), harness.SwallowEverywhere(t, harness.Echo)
			port := cut.Address()[strings.LastIndexByte(cut.Address(), ':'):]
			var hanging []string
			for i := range tt.backends {
				hanging = append(hanging, fmt.Sprintf("127.1.%d.%d%s", i/250, 1+i%250, port))
			}
			config := configOf(t,
				service{name: "other", backends: []string{healthy.Address()}, health: []string{`type = "tcp"`}},
				service{name: "cut", backends: hanging})
			b := harness.StartBalancerWith(t, harness.BalancerOptions{
				Descriptors: tt.descriptors, Config: config + "[pool.cut.health]\n" + tt.health + "\n",
			})
			awaitMetric(t, b, `limeload_pool_eligible_backends{pool="other"}`, 1)
			served, done := 0, false
			began := time.Now()
			for begun := time.Now(); !done; served++ {
				if err := tryService(b.Address(t, "other")); err != nil {
					t.Fatalf("client %d, after %v: %v", served, time.Since(began), err)
				}
				if time.Since(begun) > time.Second {
					begun = time.Now()
					done = metrics(t, b)[`limeload_checks_total{outcome="timeout",pool="cut"}`] >= tt.timeouts
				}
				if time.Since(began) > 3*harness.Patience {
					t.Fatal(errors.New("the checks of the pool that hangs come to nothing"))
				}
				<-time.After(20 * time.Millisecond) // the pace of the clients
			}
			t.Logf("%d clients served in %v", served, time.Since(began))
			b.Reload(t, config) // without checks, since pending ones have descriptors that would count as leaks
			for _, l := range b.Lines() {
				if l.Message == harness.MessageVerdict && l.Pool == "other" && l.To != "healthy" {
					t.Errorf("the healthy backend's verdict changed: %s", l.Text)
				}
			}
		})
	}
}
