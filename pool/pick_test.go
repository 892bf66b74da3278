package pool

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/algo"
)

// client returns one of 50,000 clients behind a single address.
func client(port int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.7"), uint16(10_000+port))
}

func TestPickNeverRepeatsATriedOne(t *testing.T) {
	for _, k := range algo.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			p := newPool(t, k.Name, "a", "b", "c", "d", "e")
			if got, want := pickable(p), []string{"a", "b", "c", "d", "e"}; !slices.Equal(got, want) {
				t.Errorf("picks until ErrNoBackend = %v, want each once: %v", got, want)
			}
		})
	}
}

func TestPickWithAllTried(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	l, err := p.Pick(PickContext{})
	must(t, err)
	l.Release(ConnectRefused)
	if _, err := p.Pick(PickContext{Tried: []*Backend{l.Backend()}}); err != ErrNoBackend {
		t.Errorf("Pick of the only backend again: error %v, want ErrNoBackend", err)
	}
	if n := p.Backends()[0].Leases; n != 0 {
		t.Errorf("%d leases after a refused pick, want 0", n)
	}
}

// TestRetriesDoNotHerd has one client address try a backend that is always the least loaded, since it refuses everyone.
// Its sessions must spread over the other eight instead of all going to one neighbour.
func TestRetriesDoNotHerd(t *testing.T) {
	p := newPool(t, "least_conn", "dead", "a", "b", "c", "d", "e", "f", "g", "h")
	var held []Lease
	for range 9 * 10 { // nobody but the dead one will ever be without a lease
		l, err := p.Pick(PickContext{})
		must(t, err)
		held = append(held, l)
	}
	for _, l := range held {
		if l.Backend().ID() == "dead" {
			l.Release(Neutral)
		}
	}
	const sessions = 800
	counts := make(map[string]int)
	for i := range sessions {
		first, err := p.Pick(PickContext{Client: client(i)})
		must(t, err)
		if id := first.Backend().ID(); id != "dead" {
			t.Fatalf("session %d begins with %q, want the least loaded", i, id)
		}
		first.Release(ConnectRefused)
		second, err := p.Pick(PickContext{Client: client(i), Tried: []*Backend{first.Backend()}})
		must(t, err)
		counts[second.Backend().ID()]++
	}
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if n := counts[id]; n < 50 || n > 150 {
			t.Errorf("%s took %d of %d retries, want about 100", id, n, sessions)
		}
	}
}

func TestLeasesAreCounted(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	var leases []Lease
	for range 2 * numOutcomes {
		l, err := p.Pick(PickContext{})
		must(t, err)
		leases = append(leases, l)
	}
	if n := p.Backends()[0].Leases; n != 2*numOutcomes {
		t.Errorf("%d leases held, want %d", n, 2*numOutcomes)
	}
	var want [numOutcomes]uint64
	for i, l := range leases {
		l.Backend().AddBytes(10, 1)
		o := Outcome(min(i, numOutcomes-1))
		l.Release(o)
		want[o]++
	}
	b := p.Backends()[0]
	if b.Leases != 0 || b.Outcomes != want || b.BytesIn != 20*numOutcomes || b.BytesOut != 2*numOutcomes {
		t.Errorf("at the end %d leases, outcomes %v, bytes %d and %d; want 0, %v, %d and %d",
			b.Leases, b.Outcomes, b.BytesIn, b.BytesOut, want, 20*numOutcomes, 2*numOutcomes)
	}
}

func TestLeaseOutlivesItsBackend(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	old, err := p.Pick(PickContext{})
	must(t, err)
	must(t, p.Remove("a"))
	must(t, p.Add(spec("a", 1)))

	old.Release(CutEarly)
	if b := p.Backends()[0]; b.Leases != 0 || b.Outcomes != [numOutcomes]uint64{} {
		t.Errorf("the new backend of the same id has %d leases and outcomes %v of the old one", b.Leases, b.Outcomes)
	}
	if got, want := old.Backend().Addr(), spec("a", 0).Addr; got != want {
		t.Errorf("the old lease's backend has address %v, want %v", got, want)
	}
}

func TestSecondReleasePanics(t *testing.T) {
	p := newPool(t, "round_robin", "a")
	l, err := p.Pick(PickContext{})
	must(t, err)
	l.Release(Served)
	defer func() { // in a test, recover hides nothing: the panic is what is looked for
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	l.Release(Served)
}

func TestHotPathAllocatesNothing(t *testing.T) {
	const runs = 1000
	for _, k := range algo.Kinds() {
		p := newPool(t, k.Name, "a", "b", "c")
		must(t, p.SetWeight("b", 5))
		first, err := p.Pick(PickContext{Client: client(0)})
		must(t, err)
		tried := []*Backend{first.Backend()}
		leases := make([]Lease, 0, 2*(runs+1)) // AllocsPerRun runs once more than told
		pick := func(pc PickContext) func() {
			return func() {
				l, _ := p.Pick(pc)
				leases = append(leases, l)
			}
		}
		for name, f := range map[string]func(){
			"Pick":       pick(PickContext{Client: client(1)}),
			"Pick again": pick(PickContext{Client: client(1), Tried: tried}),
		} {
			if n := testing.AllocsPerRun(runs, f); n != 0 {
				t.Errorf("%s: %s allocates %v times, want 0", k.Name, name, n)
			}
		}
		i := 0
		if n := testing.AllocsPerRun(runs, func() { leases[i].Release(Served); i++ }); n != 0 {
			t.Errorf("%s: Release allocates %v times, want 0", k.Name, n)
		}
		empty := newPool(t, k.Name)
		if n := testing.AllocsPerRun(runs, func() { _, _ = empty.Pick(PickContext{}) }); n != 0 {
			t.Errorf("%s: a refused Pick allocates %v times, want 0", k.Name, n)
		}
	}
}
