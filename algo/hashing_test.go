package algo

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// forEachHash runs f for every algorithm that hashes.
func forEachHash(t *testing.T, f func(t *testing.T, kind string)) {
	for _, k := range Kinds() {
		if k.Hash {
			t.Run(k.Name, func(t *testing.T) { f(t, k.Name) })
		}
	}
}

// named returns n members called as backends without a name are, of the weights in turn.
func named(n int, weights ...uint32) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = Member{ID: fmt.Sprintf("10.0.%d.%d:5432", i/250, i%250+1), Weight: weights[i%len(weights)],
			Load: new(Load)}
	}
	return members
}

// assignment returns the name of the member for each of the keys 0 to keys-1.
func assignment(p Picker, members []Member, keys int) []string {
	ids := make([]string, keys)
	for key := range ids {
		ids[key] = members[p.Pick(uint64(key))].ID
	}
	return ids
}

// TestHashingIsFixed holds results that must never change: a fleet that is upgraded one by one has to agree.
func TestHashingIsFixed(t *testing.T) {
	for kind, want := range map[string][]int{
		"client_hash": {2, 3, 0, 2, 0, 0, 2, 4, 1, 1, 4, 1, 2, 2, 4, 2, 2, 2, 2, 4},
		"ring_hash":   {4, 4, 1, 3, 1, 4, 2, 3, 2, 3, 2, 0, 2, 4, 3, 1, 0, 0, 1, 1},
		"maglev":      {4, 0, 2, 2, 4, 4, 1, 2, 2, 3, 1, 3, 3, 2, 4, 2, 2, 2, 2, 1},
	} {
		p := build(t, kind, named(5, 1, 2, 3), Options{})
		var got []int
		for key := range uint64(20) {
			got = append(got, p.Pick(key))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: keys 0 to 19 go to %#v, want %#v", kind, got, want)
		}
	}
}

func TestHashingDoesNotDependOnTheOrder(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		members := named(50, 1, 1, 4, 9)
		want := assignment(build(t, kind, members, Options{}), members, 2000)
		for seed := range uint64(3) {
			shuffled := slices.Clone(members)
			rand.New(rand.NewPCG(seed, 1)).Shuffle(len(shuffled), func(i, j int) {
				shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
			})
			if got := assignment(build(t, kind, shuffled, Options{}), shuffled, 2000); !slices.Equal(got, want) {
				t.Fatalf("in another order of the members, keys go elsewhere")
			}
		}
	})
}

// without returns the members but one.
func without(members []Member, i int) []Member { return slices.Concat(members[:i], members[i+1:]) }

// TestRemovalMovesOnlyItsKeys is exact for rendezvous and the ring. Read backwards, that holds for an addition too.
func TestRemovalMovesOnlyItsKeys(t *testing.T) {
	for _, kind := range []string{"client_hash", "ring_hash"} {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				weights := rapid.SliceOfN(rapid.Uint32Range(1, 20), 1, 8).Draw(t, "weights")
				members := named(rapid.IntRange(2, 30).Draw(t, "members"), weights...)
				gone := rapid.IntRange(0, len(members)-1).Draw(t, "gone")
				before, _ := Build(kind, members, Options{})
				rest := without(members, gone)
				after, _ := Build(kind, rest, Options{})
				for key := range uint64(500) {
					was, is := members[before.Pick(key)].ID, rest[after.Pick(key)].ID
					if was != members[gone].ID && was != is {
						t.Fatalf("key %d moved from %s to %s when %s went", key, was, is, members[gone].ID)
					}
				}
			})
		})
	}
}

// TestTheKeysOfTheGoneSpread holds that a removed member's keys do not all fall to one neighbour.
func TestTheKeysOfTheGoneSpread(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		members := named(10, 1)
		before := assignment(build(t, kind, members, Options{}), members, 20_000)
		rest := without(members, 3)
		after := assignment(build(t, kind, rest, Options{}), rest, 20_000)
		successors := map[string]int{}
		var moved int
		for key, was := range before {
			if was == members[3].ID {
				successors[after[key]]++
				moved++
			}
		}
		for _, m := range rest {
			if n := successors[m.ID]; n < moved/9/3 || n > moved/9*3 {
				t.Errorf("of %d keys of the member that went, %s got %d, want about a ninth", moved, m.ID, n)
			}
		}
	})
}

// TestMaglevMovesFewKeys measures what docs/algorithms.md states: keys that move although their member stays. The first
// two rows are the setting of the paper's figure on resilience: 1,000 backends in a small and in a large table.
func TestMaglevMovesFewKeys(t *testing.T) {
	longTest(t)
	for _, tt := range []struct {
		name    string
		members []Member
		size    int
		most    float64 // of all keys, in percent
	}{
		{"1000 in 65537 entries", named(1000, 1), 65537, 0.7},
		{"1000 in 655373 entries", named(1000, 1), 655373, 0.45},
		{"1000", named(1000, 1), 0, 0.6},
		{"1000 of weight 1 to 10", named(1000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0, 0.2},
		{"10", named(10, 1), 0, 0.4},
		{"10 of weight 1 to 10", named(10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), 0, 0.4},
		{"3", named(3, 1), 0, 0.1},
	} {
		maglevOf := func(members []Member) *maglev {
			p := build(t, "maglev", members, Options{}).(*maglev)
			if tt.size != 0 {
				p.fill(tt.size)
			}
			return p
		}
		before := maglevOf(tt.members)
		const trials = 5
		var moved, own int
		for trial := range trials {
			gone := trial * len(tt.members) / trials
			rest := without(tt.members, gone)
			after := maglevOf(rest)
			for slot, rank := range before.table {
				was, is := before.members[rank].id, after.members[after.table[slot]].id
				switch {
				case was == tt.members[gone].ID:
					own++
				case was != is:
					moved++
				}
			}
		}
		all := float64(trials * len(before.table))
		percent := 100 * float64(moved) / all
		t.Logf("%-24s table %6d: %.2f %% of the keys had to move, %.2f %% more did",
			tt.name, len(before.table), 100*float64(own)/all, percent)
		if percent > tt.most {
			t.Errorf("%s: %.2f %% of the keys moved although their member stayed, want at most %v %%",
				tt.name, percent, tt.most)
		}
	}
}

// TestMaglevIsEven holds the paper's promise for tables of 100 entries for each member: shares within one entry of each
// other, which is 1 %.
func TestMaglevIsEven(t *testing.T) {
	for _, n := range []int{1, 2, 3, 100, 655, 656, 3000} {
		m := build(t, "maglev", named(n, 1), Options{}).(*maglev)
		counts := make([]int, n)
		for _, rank := range m.table {
			counts[rank]++
		}
		if least, most := slices.Min(counts), slices.Max(counts); most-least > 1 || least < 100 && n > 1 {
			t.Errorf("%d members have %d to %d entries of %d", n, least, most, len(m.table))
		}
	}
}

// TestBoundedLoads fills members with leases, releases some, and holds each pick to ceil(balance x mean).
func TestBoundedLoads(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		rapid.Check(t, func(t *rapid.T) {
			weights := rapid.SliceOfN(rapid.Uint32Range(1, 10), 1, 12).Draw(t, "weights")
			balance := rapid.SampledFrom([]float64{1.01, 1.1, 1.25, 2, 3}).Draw(t, "balance")
			keys := rapid.SampledFrom([]uint64{1, 3, 1000}).Draw(t, "keys") // one client, few, many
			var total Total
			members := membersOf(weights...)
			var sum int64
			for _, m := range members {
				total.Join(m.Load)
				sum += int64(m.Weight)
			}
			p, _ := Build(kind, members, Options{Balance: balance, Total: &total})
			var held []int
			for step := range 300 {
				if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "release") == 0 {
					i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
					members[held[i]].Load.Release()
					held = slices.Delete(held, i, i+1)
					continue
				}
				i := p.Pick(uint64(step) % keys)
				n := members[i].Load.acquire()
				held = append(held, i)
				mean := float64(len(held)) * float64(members[i].Weight) / float64(sum)
				if float64(n) > math.Ceil(balance*mean) {
					t.Fatalf("a lease made %d on a member of weight %d; %d on all, of weight %d: more than %v times the mean",
						n, members[i].Weight, len(held), sum, balance)
				}
			}
			if total.Leases() != int64(len(held)) {
				t.Fatalf("the total is %d, want %d", total.Leases(), len(held))
			}
		})
	})
}

// TestUnreachedBoundMovesNoKeys holds that a bound which is not reached changes nothing.
func TestUnreachedBoundMovesNoKeys(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		var total Total
		members := named(20, 1, 2)
		for _, m := range members {
			total.Join(m.Load)
		}
		free, bound := build(t, kind, members, Options{}), build(t, kind, members, Options{Balance: 50, Total: &total})
		for key := range uint64(1000) {
			if a, b := free.Pick(key), bound.Pick(key); a != b {
				t.Fatalf("key %d goes to %d, with a bound far away to %d", key, a, b)
			}
		}
	})
}

// TestFullMembersKeysComeBack holds that a limit moves only the keys it must, and only while the member is full.
func TestFullMembersKeysComeBack(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		members := named(20, 1)
		p := build(t, kind, members, Options{})
		before := assignment(p, members, 1000)
		l := members[7].Load
		l.SetLimit(1)
		l.acquire()
		for key, id := range assignment(p, members, 1000) {
			if id == members[7].ID || id != before[key] && before[key] != members[7].ID {
				t.Fatalf("key %d went from %s to %s while %s was full", key, before[key], id, members[7].ID)
			}
		}
		l.Release()
		if got := assignment(p, members, 1000); !slices.Equal(got, before) {
			t.Error("keys did not come back when their member had room again")
		}
	})
}

// TestGrowingShareIsSteady holds that a key that falls on a growing member stays there while it grows.
func TestGrowingShareIsSteady(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		members := named(5, 1)
		p := build(t, kind, members, Options{})
		came := map[int]bool{}
		for _, share := range []float64{0.1, 0.3, 0.6, 1} {
			members[2].Load.SetShare(share)
			here := map[int]bool{}
			for key, id := range assignment(p, members, 2000) {
				here[key] = id == members[2].ID
				if came[key] && !here[key] {
					t.Fatalf("key %d left a member that grew to %v of its weight", key, share)
				}
			}
			came = here
		}
	})
}

// TestNegLog holds the table against the library's logarithm, and the bound against the table.
func TestNegLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := rapid.OneOf(rapid.Uint64(),
			rapid.Map(rapid.Uint64Range(0, 1<<30), func(x uint64) uint64 { return ^x })).Draw(t, "h")
		got := float64(negLog(h)) / (1 << 32)
		want := 64 - math.Log2(float64(max(h, 1)))
		if got < want-1e-9 || got > want+0x1p-22 {
			t.Fatalf("negLog(%#x) = %v, want %v", h, got, want)
		}
		if atLeast(h) > negLog(h) {
			t.Fatalf("atLeast(%#x) = %d above negLog, %d", h, atLeast(h), negLog(h))
		}
	})
}

// TestClientHashScoresAreIndependent counts the upper bits of two members' scores for the same keys against each other:
// 255 degrees of freedom, so a sum of squares beyond 400 comes by chance once in a hundred million.
func TestClientHashScoresAreIndependent(t *testing.T) {
	const keys = 1 << 20
	for _, pair := range [][2]string{{"a", "b"}, {"10.0.0.1:5432", "10.0.0.2:5432"}, {"b1", "b10"}} {
		a, b := hashString(pair[0]), hashString(pair[1])
		var joint [256]float64
		for key := range uint64(keys) {
			k := Mix(key)
			joint[fold(k^a)>>60<<4|fold(k^b)>>60]++
		}
		var chi float64
		for _, n := range joint {
			chi += (n - keys/256) * (n - keys/256) / (keys / 256)
		}
		if chi > 400 {
			t.Errorf("scores of %v: chi-squared %.0f, expected about 255", pair, chi)
		}
	}
}

func TestHashString(t *testing.T) {
	seen := map[uint64]string{}
	for i := range 20 {
		for _, s := range []string{"abcdefghijklmnopqrst"[:i],
			"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"[:i]} {
			if other, is := seen[hashString(s)]; is && other != s {
				t.Errorf("%q and %q have one hash", s, other)
			}
			seen[hashString(s)] = s
		}
	}
	if got, want := hashString("10.0.0.11:6379"), uint64(0x3d0cd8a746aa8b7c); got != want {
		t.Errorf("hashString = %#x, want %#x: a fleet has to agree", got, want)
	}
}
