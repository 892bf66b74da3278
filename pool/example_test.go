package pool_test

import (
	"fmt"
	"net/netip"

	"github.com/limeload/limeload-l4/pool"
)

// newPool returns a pool of two backends whose health nothing checks.
func newPool() *pool.Pool {
	p, err := pool.New(pool.Options{Name: "redis", Algorithm: "round_robin", Initial: pool.Healthy})
	if err != nil {
		panic(err)
	}
	err = p.Add(
		pool.Spec{ID: "b1", Addr: pool.At(netip.MustParseAddrPort("10.0.0.11:6379")), Weight: 1},
		pool.Spec{ID: "b2", Addr: pool.At(netip.MustParseAddrPort("10.0.0.12:6379")), Weight: 1},
	)
	if err != nil {
		panic(err)
	}
	return p
}

func ExamplePool_Pick() {
	p := newPool()
	pc := pool.PickContext{Client: netip.MustParseAddrPort("192.0.2.1:40000")}

	lease, _ := p.Pick(pc)
	fmt.Println("connect to", lease.Backend().Addr())

	lease.Release(pool.ConnectRefused) // then another one
	pc.Tried = append(pc.Tried, lease.Backend())
	lease, _ = p.Pick(pc)
	fmt.Println("connect to", lease.Backend().Addr())
	lease.Release(pool.Served)
	// Output:
	// connect to 10.0.0.11:6379
	// connect to 10.0.0.12:6379
}

func ExamplePool_Subscribe() {
	p := newPool()
	events := p.Subscribe(16)

	_ = p.SetVerdict("b2", pool.Unhealthy, "connect refused")
	_ = p.SetMode("b1", pool.Drain)
	events.Close()

	for e := range events.C() {
		switch e := e.(type) {
		case pool.VerdictChanged:
			fmt.Printf("%s/%s: %v to %v: %s\n", e.Pool, e.Backend.ID, e.From, e.To, e.Reason)
		case pool.ModeChanged:
			fmt.Printf("%s/%s: %v to %v\n", e.Pool, e.Backend.ID, e.From, e.To)
		}
	}
	// Output:
	// redis/b2: healthy to unhealthy: connect refused
	// redis/b1: ready to drain
}

func ExamplePool_Add() {
	p := newPool()
	err := p.Add(pool.Spec{ID: "b3", Addr: pool.At(netip.MustParseAddrPort("10.0.0.13:6379")), Weight: 1000})
	fmt.Println(err)
	// Output:
	// pool redis: add backend "b3": invalid weight "1000": want 0 to 256
}
