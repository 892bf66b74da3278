package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/limeload/limeload-l4/algo"
	"github.com/limeload/limeload-l4/conf"
	"github.com/limeload/limeload-l4/healthcheck"
	"github.com/limeload/limeload-l4/pool"
	"github.com/limeload/limeload-l4/test/harness"
)

// awaitVerdict waits until a backend has a verdict.
func awaitVerdict(t *testing.T, s *served, id string, want pool.Verdict) {
	t.Helper()
	harness.Eventually(t, fmt.Sprintf("%s is %s", id, want), func() error {
		if b, known := s.pool.Backend(id); !known || b.Verdict != want {
			return fmt.Errorf("it is %s, %t", b.Verdict, known)
		}
		return nil
	})
}

// TestChecksFollowTheBackends adds, moves and removes backends of a running pool. The checks follow to the new
// addresses, and a removed backend is not checked any more.
func TestChecksFollowTheBackends(t *testing.T) {
	gone, shut := listenLocal(t)
	gone.Close()
	open := func() netip.AddrPort {
		_, address := listenLocal(t)
		return address
	}
	d, s := checkedDaemon(t, "", `
interval = "50ms"
fast_interval = "20ms"
rise = 1
fall = 1
`)
	reconcile := func(specs ...pool.Spec) {
		t.Helper()
		if _, err := s.pool.Reconcile("file", specs); err != nil {
			t.Fatal(err)
		}
	}
	awaitVerdict(t, s, "127.0.0.1:7998", pool.Unhealthy) // nobody listens there
	for _, at := range []struct {
		address netip.AddrPort
		want    pool.Verdict
	}{{open(), pool.Healthy}, {shut, pool.Unhealthy}, {open(), pool.Healthy}} {
		reconcile(pool.Spec{ID: "b1", Addr: pool.At(at.address), Weight: 1})
		awaitVerdict(t, s, "b1", at.want)
	}
	reconcile()
	again := healthcheck.Target{ID: targetID("web", "b1"), Addr: shut}
	check, err := buildCheck(d.boot, &d.boot.Pools[0], newFiles(d.boot.File), nil)
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "a removed backend is not checked any more", func() error {
		return d.checks.Add(again, check.checker, check.policy)
	})
}

// TestHashBalanceAgrees: the configuration allows hash_balance for exactly the algorithms that hash.
func TestHashBalanceAgrees(t *testing.T) {
	for _, k := range algo.Kinds() {
		_, err := conf.Parse("lb.toml", []byte(goodConfig+fmt.Sprintf("algorithm = %q\nhash_balance = 1.5\n", k.Name)))
		if (err == nil) != k.Hash {
			t.Errorf("%s hashes: %v, and hash_balance for it gives %v", k.Name, k.Hash, err)
		}
	}
}

// TestSuspectedIsChecked: a suspected backend is checked at once, and not at the end of its interval.
func TestSuspectedIsChecked(t *testing.T) {
	l, address := listenLocal(t)
	_, s := checkedDaemon(t, address.String(), `
interval = "1h"
fast_interval = "10ms"
rise = 1
fall = 2
`)
	awaitVerdict(t, s, address.String(), pool.Healthy)
	l.Close()
	lease, err := s.pool.Pick(pool.PickContext{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Release(pool.ICMPError)
	awaitVerdict(t, s, address.String(), pool.Unhealthy)
}
