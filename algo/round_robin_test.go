package algo

import (
	"cmp"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRoundRobinOrder(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []uint32
		want    string // of two periods or the first ten picks
	}{
		{"one", []uint32{7}, "aaaaaaaaaa"},
		{"equal", []uint32{1, 1, 1}, "abcabc"},
		{"equal and heavy", []uint32{256, 256}, "abababab"},
		{"mixed", []uint32{5, 1, 1}, "aabaacaaabaaca"},
		{"common divisor", []uint32{50, 10, 10}, "aabaacaaabaaca"},
		{"heavy last", []uint32{1, 3}, "abbbabbb"},
		{"with a zero", []uint32{1, 0, 1}, "acacac"},
		{"all zero", []uint32{0, 0}, "abab"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			members := membersOf(tt.weights...)
			p := build(t, "round_robin", members, Options{})
			var got strings.Builder
			for range tt.want {
				got.WriteString(members[p.Pick(0)].ID)
			}
			if got.String() != tt.want {
				t.Errorf("picks = %s, want %s", got.String(), tt.want)
			}
		})
	}
}

// TestRoundRobinIsEven checks what smooth means: over a period each member has exactly its share, and between two picks
// of one member each other one has its share of that distance, rounded up or down, also across the end of the period.
func TestRoundRobinIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, 30), 1, 12).Draw(t, "weights")
		table := mixedTable(candidates(membersOf(weights...)))
		var divisor int64
		for _, w := range weights {
			divisor = gcd(divisor, int64(w))
		}
		counts := make([]int64, len(weights))
		for _, i := range table {
			counts[i]++
		}
		for i, w := range weights {
			if want := int64(w) / divisor; counts[i] != want {
				t.Fatalf("member %d stands %d times in a period, want %d", i, counts[i], want)
			}
		}
		for from, i := range table {
			between := make([]uint32, len(weights))
			for at := from + 1; ; at++ {
				j := table[at%len(table)]
				if j == i {
					break
				}
				between[j]++
			}
			for j, got := range between {
				low := weights[j] / weights[i]
				high := (weights[j] + weights[i] - 1) / weights[i]
				if int32(j) != i && (got < low || got > high) {
					t.Fatalf("table %v: %d picks of %d between two of %d, want %d to %d", table, got, j, i, low, high)
				}
			}
		}
	})
}

// TestMixedTableIsInOrderOfIdealTimes compares the counting sort with a comparison sort of exact fractions.
func TestMixedTableIsInOrderOfIdealTimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.Uint32Range(1, MaxWeight), 1, 20).Draw(t, "weights")
		members := candidates(membersOf(weights...))
		var divisor int64
		for _, m := range members {
			divisor = gcd(divisor, m.weight)
		}
		type entry struct {
			due    *big.Rat
			member int32
		}
		var entries []entry
		n := int64(len(members))
		for i, m := range members {
			for k := range m.weight / divisor {
				entries = append(entries, entry{big.NewRat(k*n+int64(i), n*m.weight), int32(i)})
			}
		}
		slices.SortFunc(entries, func(a, b entry) int {
			return cmp.Or(a.due.Cmp(b.due), cmp.Compare(a.member, b.member))
		})
		var want []int32
		for _, e := range entries {
			want = append(want, e.member)
		}
		if got := mixedTable(members); !slices.Equal(got, want) {
			t.Fatalf("table = %v, want %v", got, want)
		}
	})
}

func TestRoundRobinGoesOnAfterRebuild(t *testing.T) {
	members := membersOf(1, 1, 1, 1)
	var s State
	counts := make([]int, len(members))
	for range 400 { // a membership that changes at every pick must not mean the first member at every pick
		counts[build(t, "round_robin", members, Options{State: &s}).Pick(0)]++
	}
	for i, n := range counts {
		if n != 100 {
			t.Errorf("member %d: %d of 400 picks, want 100", i, n)
		}
	}
}
