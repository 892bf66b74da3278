package daemon

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
)

const goodConfig = `
[admin]
address = ""
[listener.web]
address = "127.0.0.1:7999"
pool = "web"
[pool.web]
backends = [{ address = "127.0.0.1:7998" }]
`

// testDaemon makes a daemon of cfg whose server is ended with the test. It does not run.
func testDaemon(t *testing.T, cfg *conf.Config) *Daemon {
	t.Helper()
	for i := range cfg.Listeners {
		cfg.Listeners[i].Bind = netip.MustParseAddrPort("127.0.0.1:0")
	}
	d, err := New(Options{Config: cfg, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.server.Shutdown(context.Background()) })
	return d
}

// TestChecksFollowTheBackends adds, moves and removes backends of a checked pool while it runs: the checks go where the
// backends are, and know of none that is gone.
func TestChecksFollowTheBackends(t *testing.T) {
	listener := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	open := func() netip.AddrPort { return netip.MustParseAddrPort(listener().Addr().String()) }
	gone := listener()
	shut := gone.Addr().String()
	gone.Close()
	cfg, err := conf.Parse("lb.toml", []byte(goodConfig+`[pool.web.health]
interval = "50ms"
fast_interval = "20ms"
rise = 1
fall = 1
`))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	s := d.pools["web"]
	p, checks := s.pool, d.checks
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = checks.Run(ctx) })
	s.start()
	defer running.Wait()
	defer cancel()
	defer s.end()

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
	check, err := buildCheck(cfg, &cfg.Pools[0], newFiles(cfg.File), nil)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); checks.Add(again, check.checker, check.policy) != nil; time.Sleep(5 * time.Millisecond) {
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

// TestSuspectedIsChecked holds that a hint about a backend has it checked at once, and not when its interval is over.
func TestSuspectedIsChecked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Parse("lb.toml", []byte(strings.Replace(goodConfig, "127.0.0.1:7998", l.Addr().String(), 1)+`[pool.web.health]
interval = "1h"
fast_interval = "10ms"
rise = 1
fall = 2
`))
	if err != nil {
		t.Fatal(err)
	}
	d := testDaemon(t, cfg)
	s := d.pools["web"]
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = d.checks.Run(ctx) })
	running.Go(func() { s.pool.Run(ctx) })
	s.start()
	defer running.Wait()
	defer cancel()
	defer s.end()
	await := func(want pool.Verdict, each func()) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); s.pool.Backends()[0].Verdict != want; time.Sleep(5 * time.Millisecond) {
			if each(); time.Now().After(deadline) {
				t.Fatalf("not %v within a minute", want)
			}
		}
	}
	await(pool.Healthy, func() {})
	l.Close()
	lease, err := s.pool.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Release(pool.ICMPError)
	await(pool.Unhealthy, func() {})
}
