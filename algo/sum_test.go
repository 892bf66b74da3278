package algo

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestSum: pickers with the same sum choose alike, whatever the order of their members, and pickers that choose
// otherwise have other sums.
func TestSum(t *testing.T) {
	forEachHash(t, func(t *testing.T, kind string) {
		rapid.Check(t, func(t *rapid.T) {
			weights := rapid.SliceOfN(rapid.Uint32Range(1, 20), 1, 8).Draw(t, "weights")
			members := named(rapid.IntRange(2, 40).Draw(t, "members"), weights...)
			sumOf := func(members []Member) uint64 {
				p, err := Build(kind, members, Options{})
				if err != nil {
					t.Fatal(err)
				}
				sum, hashes := Sum(p)
				if !hashes {
					t.Fatal("it does not hash")
				}
				return sum
			}
			want := sumOf(members)
			shuffled := slices.Clone(members)
			rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 1)).Shuffle(len(shuffled), func(i, j int) {
				shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
			})
			if sumOf(shuffled) != want {
				t.Fatal("the sum depends on the order of the members")
			}
			if sumOf(shuffled[1:]) == want {
				t.Fatal("a member less, and the sum is the same")
			}
			shuffled[0].Weight++
			if sumOf(shuffled) == want {
				t.Fatal("another weight, and the sum is the same")
			}
			shuffled[0].Weight--
			shuffled[0].ID += "0"
			if sumOf(shuffled) == want {
				t.Fatal("another name, and the sum is the same")
			}
		})
	})
}

// TestSumOfTables: the sum is of the table itself, and not only of the members that it was built for.
func TestSumOfTables(t *testing.T) {
	members := named(5, 1)
	m := build(t, "maglev", members, Options{}).(*maglev)
	was, _ := Sum(m)
	m.table[17] = (m.table[17] + 1) % 5
	if is, _ := Sum(m); is == was {
		t.Error("another entry of the table of maglev has the same sum")
	}
	r := build(t, "ring_hash", members, Options{}).(*ringHash)
	was, _ = Sum(r)
	r.points[17].rank = (r.points[17].rank + 1) % 5
	if is, _ := Sum(r); is == was {
		t.Error("another point of the ring has the same sum")
	}
	bounded := build(t, "client_hash", members, Options{Balance: 1.25, Total: new(Total)})
	was, _ = Sum(build(t, "client_hash", members, Options{}))
	if is, _ := Sum(bounded); is == was {
		t.Error("a bound has the sum of none")
	}
	if _, hashes := Sum(build(t, "round_robin", members, Options{})); hashes {
		t.Error("round_robin has a sum")
	}
}

func BenchmarkSum(b *testing.B) {
	for _, kind := range []string{"maglev", "ring_hash", "client_hash"} {
		b.Run(kind, func(b *testing.B) {
			p, _ := Build(kind, named(1000, 1), Options{})
			for b.Loop() {
				_, _ = Sum(p)
			}
		})
	}
}
