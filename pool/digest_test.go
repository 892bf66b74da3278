package pool

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// hashing lists the algorithms that choose alike on all nodes of a fleet.
func hashing() []string { return []string{"maglev", "ring_hash", "client_hash"} }

// choices returns the backends of the first clients.
func choices(t require, p *Pool, clients int) []string {
	all := make([]string, clients)
	for i := range all {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		l, err := p.Pick(PickContext{Client: netip.AddrPortFrom(addr, 1000)})
		if err != nil {
			t.Fatal(err)
		}
		all[i] = l.Backend().ID()
		l.Release(Neutral)
	}
	return all
}

// require is what fails a test, or one case of a property.
type require interface{ Fatal(args ...any) }

// arrive makes a pool that ends with these backends, by some history: they are added one by one in a drawn order, of
// other weights first, and with others among them that leave again; checks and operators take some out and back.
func arrive(t *rapid.T, name, algorithm string, specs []Spec) *Pool {
	p, err := New(Options{Name: "test", Algorithm: algorithm, Initial: Healthy, ConnectTimeout: time.Second})
	may := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	may(err)
	draw := func(what string, most int) int { return rapid.IntRange(0, most).Draw(t, name+" "+what) }
	var passing []string
	for i, s := range rapid.Permutation(specs).Draw(t, name+" order") {
		final := s.Weight
		s.Weight = uint32(draw("first weight", 9) + 1)
		may(p.Add(s))
		switch draw("what happens", 4) {
		case 0:
			other := spec(fmt.Sprintf("passing%d", i), 1000+i)
			may(p.Add(other))
			passing = append(passing, other.ID)
		case 1:
			may(p.SetVerdict(s.ID, Unhealthy, "test"))
			may(p.SetVerdict(s.ID, Healthy, "test"))
		case 2:
			may(p.SetMode(s.ID, Drain))
			may(p.SetMode(s.ID, Ready))
		}
		may(p.SetWeight(s.ID, final))
	}
	for _, id := range passing {
		may(p.Remove(id))
	}
	return p
}

// TestChoosingAlike: pools with the same backends choose alike, whatever the order in which they arrived and whatever
// happened before, and have the same digest.
func TestChoosingAlike(t *testing.T) {
	most := 12
	if testing.Short() {
		most = 4 // each one is a table of maglev more to fill, twice
	}
	for _, algorithm := range hashing() {
		t.Run(algorithm, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				specs := make([]Spec, rapid.IntRange(1, most).Draw(t, "backends"))
				for i := range specs {
					specs[i] = spec(fmt.Sprintf("b%d", i), i)
					specs[i].Weight = uint32(rapid.IntRange(1, 10).Draw(t, "weight"))
					specs[i].Tier = rapid.IntRange(0, 1).Draw(t, "tier")
				}
				one, other := arrive(t, "one", algorithm, specs), arrive(t, "other", algorithm, specs)
				a, b := one.Digest(), other.Digest()
				if fmt.Sprint(a) != fmt.Sprint(b) {
					t.Fatalf("digests %+v and %+v", a, b)
				}
				if !slices.Equal(choices(t, one, 200), choices(t, other, 200)) {
					t.Fatal("they choose differently")
				}
			})
		})
	}
}

// TestDigest: each change of what a pool chooses changes its digest, in the sum that says why.
func TestDigest(t *testing.T) {
	for _, algorithm := range append(hashing(), "round_robin") {
		p := newPool(t, algorithm, "a", "b", "c")
		was := p.Digest()
		hashes := algorithm != "round_robin"
		if was.Backends != 3 || was.Eligible != 3 || was.Ineligible != nil || (was.Choices != 0) != hashes {
			t.Errorf("%s: %+v", algorithm, was)
		}
		must(t, p.SetWeight("b", 2))
		heavier := p.Digest()
		if heavier.Members != was.Members || heavier.Weights == was.Weights ||
			(heavier.Choices != was.Choices) != hashes {
			t.Errorf("%s: another weight changes %+v to %+v", algorithm, was, heavier)
		}
		must(t, p.SetWeight("b", 1))
		must(t, p.SetMode("c", Drain))
		less := p.Digest()
		if less.Members == was.Members || less.Eligible != 2 || !slices.Equal(less.Ineligible, []string{"c"}) {
			t.Errorf("%s: a drained backend changes %+v to %+v", algorithm, was, less)
		}
		must(t, p.SetMode("c", Ready))
		if again := p.Digest(); fmt.Sprint(again) != fmt.Sprint(was) {
			t.Errorf("%s: %+v is %+v once it is back", algorithm, was, again)
		}
		must(t, p.Remove("a"))
		moved := spec("a", 99)
		must(t, p.Add(moved))
		if elsewhere := p.Digest(); elsewhere.Members == was.Members {
			t.Errorf("%s: another address has the same digest", algorithm)
		}
	}
	byPort := newPool(t, "maglev", "a", "b")
	was := byPort.Digest()
	o := byPort.settings().Options
	o.HashPort = true
	must(t, byPort.Reconfigure(o))
	if is := byPort.Digest(); is.Choices == was.Choices || is.Members != was.Members {
		t.Errorf("another key changes %+v to %+v", was, is)
	}
}

// TestDigestOfMany: a digest names few backends that are not eligible.
func TestDigestOfMany(t *testing.T) {
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("b%02d", i))
	}
	p := newPool(t, "round_robin", all...)
	for _, id := range all[:50] {
		must(t, p.SetMode(id, Maintenance))
	}
	if d := p.Digest(); d.Backends != 100 || d.Eligible != 50 || !slices.Equal(d.Ineligible, all[:maxNamed]) {
		t.Errorf("%+v", d)
	}
}

func BenchmarkDigest(b *testing.B) {
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf("b%03d", i))
	}
	p := newPool(b, "maglev", all...)
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			p.Digest()
		}
	})
	b.Run("changed", func(b *testing.B) {
		for b.Loop() {
			p.snap.Load().tiers[0].summed.Store(nil)
			p.Digest()
		}
	})
}
