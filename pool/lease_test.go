package pool

import (
	"testing"
	"time"
)

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

// TestLeased holds which backends somebody has a lease on.
func TestLeased(t *testing.T) {
	p := newPool(t, "first", "a", "b", "c")
	ids := func() (ids string) {
		for _, b := range p.Leased() {
			ids += b.ID()
		}
		return ids
	}
	if got := ids(); got != "" {
		t.Errorf("%q have leases before the first one", got)
	}
	one, err := p.Pick(PickContext{})
	must(t, err)
	must(t, p.SetMode("a", Drain))
	two, err := p.Pick(PickContext{})
	must(t, err)
	if got := ids(); got != "ab" {
		t.Errorf("%q have leases, want a, which drains, and b", got)
	}
	one.Release(Served)
	must(t, p.Remove("b"))
	if got := ids(); got != "" {
		t.Errorf("%q have leases, want none of those that are left", got)
	}
	two.Release(Served)
}

// TestBackend holds that Backend and Backends return the same.
func TestBackend(t *testing.T) {
	p := newPool(t, "round_robin", "a", "b")
	picks(p, 3)
	must(t, p.SetWeight("b", 9))
	for _, want := range p.Backends() {
		if got, known := p.Backend(want.ID); !known || got != want {
			t.Errorf("%s by itself is %+v, %v, and among all %+v", want.ID, got, known, want)
		}
	}
	must(t, p.Remove("a"))
	if got, known := p.Backend("a"); known {
		t.Errorf("a, which was removed, is %+v", got)
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

// TestLeastTimeGoesByItsLeases holds that times observed by leases reach least_time.
func TestLeastTimeGoesByItsLeases(t *testing.T) {
	for name, observe := range map[string]func(l *Lease, took time.Duration){
		"connect": func(l *Lease, took time.Duration) { l.ConnectTook(took, 0) },
		"byte":    func(l *Lease, took time.Duration) { l.FirstByteTook(took, 0) },
	} {
		var h hand
		p := made(t, Options{Algorithm: "least_time", Clock: h.now}, at("slow", 0, "", 0), at("quick", 0, "", 0))
		counts := make(map[string]int)
		for i := range 200 {
			h.pass(time.Millisecond)
			l, err := p.Pick(PickContext{})
			must(t, err)
			took := time.Millisecond
			if l.Backend().ID() == "slow" {
				took = time.Second
			}
			observe(&l, took)
			l.Release(Served)
			if i >= 100 {
				counts[l.Backend().ID()]++
			}
		}
		if counts["quick"] != 100 {
			t.Errorf("by the time to %s, of 100 sessions the quick one got %d", name, counts["quick"])
		}
	}
}
