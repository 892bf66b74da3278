package flow_test

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limeload/limeload-l4/l4"
	"github.com/limeload/limeload-l4/l4/internal/l4test"
	"github.com/limeload/limeload-l4/l4/internal/tally"
	"github.com/limeload/limeload-l4/pool"
)

// TestFlowDrain holds that a flow whose backend has answered stays with it when the operator takes the backend out of
// use, whatever the way and the flow key, while new clients go elsewhere; that one without an answer moves; and that
// all move once the backend is unhealthy.
func TestFlowDrain(t *testing.T) {
	for _, tt := range []struct {
		name string
		out  func(p *pool.Pool, id string) error
		gone bool
	}{
		{"drain", func(p *pool.Pool, id string) error { return p.SetMode(id, pool.Drain) }, false},
		{"weight 0", func(p *pool.Pool, id string) error { return p.SetWeight(id, 0) }, false},
		{"maintenance", func(p *pool.Pool, id string) error { return p.SetMode(id, pool.Maintenance) }, false},
		{"removal", (*pool.Pool).Remove, true},
	} {
		for _, key := range []l4.FlowKey{l4.ByClient, l4.ByClientIP} {
			t.Run(fmt.Sprint(tt.name, " ", key), func(t *testing.T) {
				p, a, b := movePool(t, pool.Options{})
				silent := startUDP(t, nil)
				err := p.Add(pool.Spec{ID: "silent", Addr: pool.At(netip.MustParseAddrPort(silent.Address())), Weight: 1})
				if err != nil {
					t.Fatal(err)
				}
				spec := flowSpec(p)
				spec.Flows.Key = key
				s := start(t, l4.Options{Loops: 2, DrainTimeout: time.Hour}, spec)
				old := dialUDP(t, address(s))
				want := func(backend string) {
					t.Helper()
					if got := askUDP(t, old, "x"); got != backend {
						t.Fatalf("%s answers, want %s", got, backend)
					}
				}
				want("a")
				if err := tt.out(p, a.Address()); err != nil {
					t.Fatal(err)
				}
				for range 20 {
					want("a")
				}
				other := dialUDPFrom(t, "127.0.0.2", address(s))
				if got := askUDP(t, other, "x"); got != "b" {
					t.Fatalf("a new client got %q", got)
				}
				if n := a.Got.Load(); n != 21 {
					t.Errorf("a has %d datagrams", n)
				}
				if !tt.gone {
					if err := p.SetVerdict(a.Address(), pool.Unhealthy, "test"); err != nil {
						t.Fatal(err)
					}
					want("b")
				}
				// a client that the silent backend has not answered
				if err := p.SetVerdict(b.Address(), pool.Unhealthy, "test"); err != nil {
					t.Fatal(err)
				}
				third := dialUDPFrom(t, "127.0.0.3", address(s))
				if _, err := third.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the silent one has it", func() bool { return silent.Got.Load() == 1 })
				if err := p.SetVerdict(b.Address(), pool.Healthy, "test"); err != nil {
					t.Fatal(err)
				}
				if err := tt.out(p, "silent"); err != nil {
					t.Fatal(err)
				}
				if got := askUDP(t, third, "x"); got != "b" {
					t.Fatalf("a flow without an answer got %q", got)
				}
			})
		}
	}
}

// TestFlowOfRemoved holds that nothing goes to a backend that was removed, the last one too, once drain_timeout has
// passed, however busy its flows are.
func TestFlowOfRemoved(t *testing.T) {
	for _, maintenance := range []bool{false, true} {
		var late atomic.Int64
		a := startUDP(t, func(b *l4test.UDPBackend, from netip.AddrPort, d []byte) {
			if string(d) == "late" {
				late.Add(1)
			}
			echoUDP(b, from, d)
		})
		p := newPool(t, a.Address())
		s := start(t, l4.Options{Loops: 2, DrainTimeout: 300 * time.Millisecond}, flowSpec(p))
		c := dialUDP(t, address(s))
		askUDP(t, c, "x")
		var err error
		if maintenance {
			err = p.SetMode(a.Address(), pool.Maintenance)
		} else {
			err = p.Remove(a.Address())
		}
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the flow ends", func() bool {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			return info(s).Ended[tally.BackendRemoved] == 1
		})
		before := info(s).Dropped[tally.DropNoBackend]
		for range 20 {
			if _, err := c.Write([]byte("late")); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "they are dropped", func() bool { return info(s).Dropped[tally.DropNoBackend] >= before+20 })
		if n := late.Load(); n > 0 {
			t.Errorf("%d datagrams came after the end", n)
		}
		if s.Flows() != 0 {
			t.Errorf("%d flows", s.Flows())
		}
	}
}

// TestFlowOfReturned holds that the flows of a backend that comes back in time go on.
func TestFlowOfReturned(t *testing.T) {
	p, a, b := movePool(t, pool.Options{})
	s := start(t, l4.Options{Loops: 1, DrainTimeout: 300 * time.Millisecond}, flowSpec(p))
	first := dialUDP(t, address(s))
	askUDP(t, first, "x")
	for _, mode := range []pool.Mode{pool.Maintenance, pool.Ready, pool.Drain} {
		if err := p.SetMode(a.Address(), mode); err != nil {
			t.Fatal(err)
		}
	}
	second := dialUDP(t, address(s))
	if got := askUDP(t, second, "x"); got != "b" {
		t.Fatal(got)
	}
	if err := p.Remove(b.Address()); err != nil { // its time to drain ends after that of a would have
		t.Fatal(err)
	}
	eventually(t, "the second flow ends", func() bool { return info(s).Ended[tally.BackendRemoved] == 1 })
	if got := askUDP(t, first, "x"); got != "a" || s.Flows() != 1 {
		t.Errorf("%q answers, %d flows", got, s.Flows())
	}
}

// TestFlowOfRetiredPool holds that clients of a pool that is gone go to the pool that their listener has now: at once,
// or when the backend's time to drain is over if it has answered them.
func TestFlowOfRetiredPool(t *testing.T) {
	for _, answered := range []bool{true, false} {
		answer := naming("old")
		if !answered {
			answer = nil
		}
		old, next := startUDP(t, answer), startUDP(t, naming("next"))
		retired := newPool(t, old.Address())
		spec := flowSpec(retired)
		drain := 300 * time.Millisecond
		if !answered {
			drain = time.Hour
		}
		s := start(t, l4.Options{Loops: 1, DrainTimeout: drain}, spec)
		c := dialUDP(t, address(s))
		if answered {
			askUDP(t, c, "x")
		} else if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the old one has it", func() bool { return old.Got.Load() > 0 })
		spec.Pool = newPool(t, next.Address())
		if err := s.Apply(l4.Plan{Listeners: []l4.ListenerSpec{spec}}); err != nil {
			t.Fatal(err)
		}
		if err := retired.Remove(old.Address()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the client comes to the next pool", func() bool { return askUDP(t, c, "x") == "next" })
		if info := info(s); info.Ended[tally.BackendRemoved] != 1 || info.Sessions != 1 {
			t.Errorf("%v ended, %d flows", info.Ended, info.Sessions)
		}
	}
}
