package probe_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/healthcheck/probe"
)

func Example() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer listener.Close()
	target := healthcheck.Target{ID: "redis/b1", Addr: netip.MustParseAddrPort(listener.Addr().String())}

	ctx, cancel := context.WithCancel(context.Background())
	s := healthcheck.NewScheduler(healthcheck.Options{Report: func(changes []healthcheck.Change) {
		for _, c := range changes {
			fmt.Printf("%s: %v to %v: %s\n", c.Target.ID, c.From, c.To, c.Reason)
		}
		cancel() // one change is enough here
	}})
	err = s.Add(target, probe.TCP{}, healthcheck.Policy{
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
	// redis/b1: unknown to healthy: connected
}
