package healthcheck_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
)

// A lottery is a Checker that does not connect to anything: a target is healthy if its port is odd. Package probe has
// real checkers.
type lottery struct{}

func (lottery) Check(_ context.Context, t healthcheck.Target) (healthcheck.Result, error) {
	if t.Addr.Port()%2 == 0 {
		return healthcheck.Result{}, errors.New("has an even port")
	}
	return healthcheck.Result{Detail: "has an odd port"}, nil
}

func ExampleScheduler() {
	target := healthcheck.Target{ID: "redis/b1", Addr: netip.MustParseAddrPort("192.0.2.1:6379")}

	ctx, cancel := context.WithCancel(context.Background())
	s := healthcheck.NewScheduler(healthcheck.Options{Report: func(changes []healthcheck.Change) {
		for _, c := range changes {
			fmt.Printf("%s: %v to %v: %s\n", c.Target.ID, c.From, c.To, c.Reason)
		}
		cancel() // one change is enough here
	}})
	err := s.Add(target, lottery{}, healthcheck.Policy{
		Interval: 2 * time.Second, FastInterval: 10 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 3,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := s.Run(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// redis/b1: unknown to healthy: has an odd port
}
