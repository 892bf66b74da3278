package pool

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/limeload/limeload-l4/algo"
)

// made returns a pool of these options, by default with round_robin and healthy backends.
func made(t testing.TB, o Options, specs ...Spec) *Pool {
	t.Helper()
	o.Name = "test"
	if o.Algorithm == "" {
		o.Algorithm = "round_robin"
	}
	if o.Initial == Unknown {
		o.Initial = Healthy
	}
	p, err := New(o)
	must(t, err)
	must(t, p.Add(specs...))
	return p
}

// at returns a backend of a tier and zone that takes so many sessions at once.
func at(id string, tier int, zone string, most int) Spec {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte(id))
	h := hash.Sum64()
	s := spec(id, int(h%60_000))
	s.Addr = At(netip.AddrPortFrom(s.Addr.Addr(), uint16(1+h>>32%60_000))) // no two share an address
	s.Tier, s.Zone, s.MaxSessions = tier, zone, most
	return s
}

// picks picks n times, keeping the leases, and returns the ids in their order; "busy" and "none" are the errors.
func picks(p *Pool, n int) (ids []string, leases []Lease) {
	for i := range n {
		l, err := p.Pick(PickContext{Client: client(i)})
		switch err {
		case nil:
			ids, leases = append(ids, l.Backend().ID()), append(leases, l)
		case ErrBusy:
			ids = append(ids, "busy")
		default:
			ids = append(ids, "none")
		}
	}
	return ids, leases
}

func wantIDs(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// TestTiersSpillOverAndReturn fills the tiers one after the other and empties the first again.
func TestTiersSpillOverAndReturn(t *testing.T) {
	p := made(t, Options{Algorithm: "first"}, at("low", 7, "", 1), at("b", 0, "", 1), at("a", 0, "", 1),
		at("middle", 3, "", 0))
	ids, leases := picks(p, 4)
	wantIDs(t, "as they fill", ids, "b", "a", "middle", "middle") // the unlimited tier never spills
	leases[0].Release(Served)
	ids, _ = picks(p, 1)
	wantIDs(t, "with room in the first tier again", ids, "b")

	must(t, p.SetVerdict("b", Unhealthy, "test"))
	must(t, p.SetMode("a", Drain))
	must(t, p.SetWeight("middle", 0))
	ids, _ = picks(p, 2)
	wantIDs(t, "with the better tiers ineligible", ids, "low", "busy")
	must(t, p.SetMode("a", Ready))
	must(t, p.SetMaxSessions("a", 2))
	ids, _ = picks(p, 2)
	wantIDs(t, "with one of the first tier back", ids, "a", "busy")
	must(t, p.Remove("a"))
	must(t, p.Remove("low"))
	ids, _ = picks(p, 1)
	wantIDs(t, "without any", ids, "none")
}

// TestFirstTierHasAllWhileItCan holds for every algorithm that a later tier gets nothing while the first has room,
// whatever the tiers' numbers, and gets the rest.
func TestFirstTierHasAllWhileItCan(t *testing.T) {
	for _, k := range algo.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			p := made(t, Options{Algorithm: k.Name},
				at("x", 900, "", 2), at("a", 2, "", 2), at("b", 2, "", 1), at("c", 2, "", 3), at("y", MaxTier, "", 0))
			_, leases := picks(p, 6+2+2)
			for i, l := range leases {
				want := []int{2, 2, 2, 2, 2, 2, 900, 900, MaxTier, MaxTier}[i]
				if tier := l.Backend().tier; tier != want {
					t.Errorf("pick %d went to tier %d, want %d", i, tier, want)
				}
			}
			for _, i := range []int{4, 0, 5} {
				leases[i].Release(Served)
				ids, _ := picks(p, 2)
				wantIDs(t, "with a place free in the first tier", ids, leases[i].Backend().ID(), "y")
			}
		})
	}
}

// TestTriedOnesLeadToTheNextTier holds that a retry goes to a stand-in when all of the first tier have failed.
func TestTriedOnesLeadToTheNextTier(t *testing.T) {
	p := made(t, Options{}, at("a", 0, "", 0), at("b", 0, "", 0), at("c", 1, "", 0))
	var pc PickContext
	for i := range 3 {
		l, err := p.Pick(pc)
		must(t, err)
		if tier := l.Backend().tier; tier != i/2 {
			t.Errorf("try %d went to tier %d", i, tier)
		}
		l.Release(ConnectRefused)
		pc.Tried = append(pc.Tried, l.Backend())
	}
	if _, err := p.Pick(pc); err != ErrNoBackend {
		t.Errorf("with all tried: error %v, want ErrNoBackend", err)
	}
}

// TestRetriesOfFirstKeepTheOrder holds that a stand-in is the next in the file, for every client.
func TestRetriesOfFirstKeepTheOrder(t *testing.T) {
	p := made(t, Options{Algorithm: "first"}, at("a", 0, "", 0), at("b", 0, "", 1), at("c", 0, "", 0),
		at("d", 0, "", 0))
	for i := range 20 {
		pc := PickContext{Client: client(i)}
		var ids []string
		for range 3 {
			l, err := p.Pick(pc)
			must(t, err)
			ids = append(ids, l.Backend().ID())
			pc.Tried = append(pc.Tried, l.Backend())
			l.Release(ConnectRefused)
		}
		wantIDs(t, "retries", ids, "a", "b", "c")
	}
}

// TestZoneIsPreferredWithinATier holds the order of zones, which never beats a tier.
func TestZoneIsPreferredWithinATier(t *testing.T) {
	p := made(t, Options{Algorithm: "first", Zone: "here"},
		at("far", 0, "there", 0), at("near", 0, "here", 1), at("standin", 1, "here", 0), at("nowhere", 0, "", 0))
	ids, leases := picks(p, 3)
	wantIDs(t, "as the zone fills", ids, "near", "far", "far")
	leases[0].Release(Served)
	must(t, p.SetVerdict("near", Unhealthy, "test"))
	must(t, p.SetMode("far", Maintenance))
	ids, _ = picks(p, 1)
	wantIDs(t, "without the zone and one other", ids, "nowhere")
	must(t, p.SetVerdict("near", Healthy, "test"))
	ids, _ = picks(p, 1)
	wantIDs(t, "with the zone back", ids, "near")

	p = made(t, Options{Zone: "unknown"}, at("a", 0, "x", 0), at("b", 0, "y", 0))
	ids, _ = picks(p, 4)
	slices.Sort(ids)
	wantIDs(t, "with nobody in the zone", ids, "a", "a", "b", "b")

	p = made(t, Options{}, at("a", 0, "x", 0), at("b", 0, "", 0))
	ids, _ = picks(p, 4)
	slices.Sort(ids)
	wantIDs(t, "of a pool in no zone", ids, "a", "a", "b", "b")

	p = made(t, Options{Zone: "here"}, at("far", 0, "there", 0), at("near", 0, "here", 0), at("standin", 1, "here", 0))
	var pc PickContext
	ids = nil
	for range 3 {
		l, err := p.Pick(pc)
		must(t, err)
		ids, pc.Tried = append(ids, l.Backend().ID()), append(pc.Tried, l.Backend())
	}
	wantIDs(t, "as they fail", ids, "near", "far", "standin")
}

// TestWhenNoneIsHealthy holds the effect of TryAllWhenNone, on and off, and that the first healthy backend ends it.
func TestWhenNoneIsHealthy(t *testing.T) {
	drained := at("drained", 0, "", 0)
	drained.Mode = Drain
	light := at("light", 0, "", 0)
	light.Weight = 0
	for _, all := range []bool{false, true} {
		p := made(t, Options{TryAllWhenNone: all}, at("a", 0, "", 0), at("b", 1, "", 0), at("replica", 0, "", 0),
			drained, light)
		must(t, p.SetVerdicts(Judgement{"a", Unhealthy, ""}, Judgement{"b", Lagging, ""},
			Judgement{"replica", WrongRole, ""}))
		want := []string(nil)
		if all {
			want = []string{"a", "b"}
		}
		if got := pickable(p); !slices.Equal(got, want) || p.TriesAll() != all || p.Eligible() != len(want) {
			t.Errorf("when none is healthy, all = %v: pickable are %v, want %v; TriesAll %v, Eligible %d",
				all, got, want, p.TriesAll(), p.Eligible())
		}
		must(t, p.SetVerdict("b", Healthy, "test"))
		if got := pickable(p); !slices.Equal(got, []string{"b"}) || p.TriesAll() {
			t.Errorf("with b healthy again: pickable are %v, TriesAll %v", got, p.TriesAll())
		}
	}
}

// TestTryingAllKeepsTheRest holds that tiers, limits and the queue's error stay the same while all backends are tried,
// that unchecked ones are tried too, and that a new backend ends it.
func TestTryingAllKeepsTheRest(t *testing.T) {
	p, err := New(Options{Name: "test", Algorithm: "first", TryAllWhenNone: true})
	must(t, err)
	must(t, p.Add(at("low", 1, "", 1), at("a", 0, "", 1), at("b", 0, "", 1)))
	must(t, p.SetVerdict("b", Unhealthy, "test"))
	ids, leases := picks(p, 4)
	wantIDs(t, "with none known to be healthy", ids, "a", "b", "low", "busy")
	leases[0].Release(Served)
	must(t, p.SetMode("a", Drain))
	ids, _ = picks(p, 1)
	wantIDs(t, "with the only place drained", ids, "busy")
	must(t, p.SetMaxSessions("b", 2))
	must(t, p.SetVerdict("low", Healthy, "test"))
	ids, _ = picks(p, 1)
	wantIDs(t, "with a full stand-in healthy", ids, "busy")
	must(t, p.SetMaxSessions("low", 2))
	ids, _ = picks(p, 2)
	wantIDs(t, "with room there", ids, "low", "busy")
	must(t, p.Remove("low"))
	ids, _ = picks(p, 2)
	wantIDs(t, "without it", ids, "b", "busy")
	if !p.TriesAll() {
		t.Error("the last healthy one is gone, and not all are tried")
	}
}

// TestOneRebuildForManyVerdicts holds that verdicts given together take effect together, even if some are invalid.
func TestOneRebuildForManyVerdicts(t *testing.T) {
	var specs []Spec
	var judgements []Judgement
	for i := range 100 {
		id := fmt.Sprint("b", i)
		specs = append(specs, spec(id, i))
		judgements = append(judgements, Judgement{id, Unhealthy, "test"})
	}
	specs = append(specs, at("standin", 1, "", 0))
	p := made(t, Options{}, specs...)
	events := p.Subscribe(1000)
	defer events.Close()
	before, standin := p.generation, p.snap.Load().tiers[1]
	judgements = append(judgements, Judgement{"unknown", Healthy, ""}, Judgement{"b0", Unhealthy + 7, ""},
		Judgement{"b1", Healthy, "back"})
	err := p.SetVerdicts(judgements...)
	var invalid *InvalidBackendError
	if !errors.Is(err, ErrUnknownBackend) || !errors.As(err, &invalid) || invalid.Field != "verdict" {
		t.Errorf("with an unknown backend and an undefined verdict: error %v", err)
	}
	if p.generation != before+1 || p.snap.Load().tiers[1] != standin {
		t.Errorf("%d snapshots were made of one call; its own tier made anew: %v",
			p.generation-before, p.snap.Load().tiers[1] != standin)
	}
	if n := len(events.C()); n != 101 {
		t.Errorf("%d events, want one for each that was judged, and two for b1", n)
	}
	last := Verdict(Unknown)
	for _, e := range drain(events) {
		if v := e.(VerdictChanged); v.Backend.ID == "b1" {
			if v.From == last || v.Backend.Verdict != Healthy { // what is shown is how it is after the call
				t.Errorf("b1 was judged %v after %v and is shown %v", v.From, last, v.Backend.Verdict)
			}
			last = v.From
		}
	}
	must(t, p.SetMode("standin", Drain))
	if got := pickable(p); !slices.Equal(got, []string{"b1"}) {
		t.Errorf("pickable are %v, want only the one whose last verdict is healthy", got)
	}
}

// TestBoundedLoadsFollowEligibility holds the bound over the eligible backends while they change under load.
func TestBoundedLoadsFollowEligibility(t *testing.T) {
	var specs []Spec
	for i := range 6 {
		specs = append(specs, spec(fmt.Sprint("b", i), i))
	}
	p := made(t, Options{Algorithm: "maglev", HashBalance: 1.5}, specs...)
	r := rand.New(rand.NewPCG(1, 1))
	var held []Lease
	for step := range 4000 {
		switch {
		case step%97 == 0:
			must(t, p.SetVerdict(fmt.Sprint("b", r.IntN(6)), Verdict(1+r.IntN(2)), "test"))
		case len(held) > 50 || len(held) > 0 && r.IntN(3) == 0:
			i := r.IntN(len(held))
			held[i].Release(Served)
			held = slices.Delete(held, i, i+1)
		default:
			l, err := p.Pick(PickContext{Client: client(r.IntN(5))})
			if err != nil {
				continue
			}
			held = append(held, l)
			var sum, n int64
			for _, b := range p.snap.Load().tiers[0].backends {
				sum, n = sum+b.load.Leases(), n+1
			}
			mean := (sum + n - 1) / n // rounded up: at least the mean
			if got := l.Backend().load.Leases(); got > (mean*3+1)/2 {
				t.Fatalf("a pick made %d leases on one of %d eligible backends with %d: more than 1.5 times the mean",
					got, n, sum)
			}
		}
	}
	for _, l := range held {
		l.Release(Served)
	}
	for _, g := range p.groups {
		if n := g.total.Leases(); n != 0 {
			t.Errorf("at the end the total of a tier is %d", n)
		}
	}
}
