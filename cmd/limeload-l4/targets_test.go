package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

// TestChecksFollowTheBackends adds, moves and removes backends of a checked pool while it runs: the checks go where the
// backends are, and know of none that is gone.
func TestChecksFollowTheBackends(t *testing.T) {
	open := func() netip.AddrPort {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return netip.MustParseAddrPort(l.Addr().String())
	}
	shut, err := freeAddress()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Parse("lb.toml", []byte(goodConfig+`[pool.web.health]
interval = "50ms"
fast_interval = "20ms"
rise = 1
fall = 1
`))
	if err != nil {
		t.Fatal(err)
	}
	pools, err := buildPools(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := pools["web"]
	checks, checked, err := buildChecks(cfg, pools, healthcheck.NewICMP(), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = checks.Run(ctx) })
	running.Go(func() { checked[0].follow(zerolog.Nop()) })
	defer running.Wait()
	defer checked[0].changed.Close()
	defer cancel()

	await := func(what, id string, want pool.Verdict) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			for _, b := range p.Backends() {
				if b.ID == id && b.Verdict == want {
					return
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: not within ten seconds", what)
			}
		}
	}
	await("a backend of the configuration where nobody listens", "127.0.0.1:7998", pool.Unhealthy)
	reconcile := func(addr netip.AddrPort) {
		t.Helper()
		if _, err := p.Reconcile("file", []pool.Spec{{ID: "b1", Addr: addr, Weight: 1}}); err != nil {
			t.Fatal(err)
		}
	}
	reconcile(open())
	await("an added backend", "b1", pool.Healthy)
	reconcile(netip.MustParseAddrPort(shut))
	await("the backend at another address", "b1", pool.Unhealthy)
	reconcile(open())
	await("and back", "b1", pool.Healthy)
	if _, err := p.Reconcile("file", nil); err != nil {
		t.Fatal(err)
	}
	again := healthcheck.Target{ID: targetID("web", "b1"), Addr: cfg.Pools[0].Backends[0].Addr}
	checker, policy, err := buildCheck(cfg, &cfg.Pools[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); checks.Add(again, checker, policy) != nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a removed backend is still checked")
		}
	}
}

// TestHashBalanceAgrees holds that the configuration allows hash_balance for exactly the algorithms that hash.
func TestHashBalanceAgrees(t *testing.T) {
	for _, k := range algo.Kinds() {
		_, err := conf.Parse("lb.toml", []byte(goodConfig+fmt.Sprintf("algorithm = %q\nhash_balance = 1.5\n", k.Name)))
		if (err == nil) != k.Hash {
			t.Errorf("%s hashes: %v, and hash_balance for it gives %v", k.Name, k.Hash, err)
		}
	}
}
