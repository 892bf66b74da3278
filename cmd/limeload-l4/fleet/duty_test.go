package fleet

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestDutiesFixed: the nodes of another version of the program must agree with this one.
func TestDutiesFixed(t *testing.T) {
	t.Parallel()
	nodes := []string{"lb1", "lb2", "lb3", "lb4", "lb5"}
	for key, want := range map[string][]string{
		"":                   {"lb5", "lb4", "lb3"},
		"checks/main/redis1": {"lb3", "lb1", "lb5"},
		"checks/main/redis2": {"lb3", "lb5", "lb1"},
	} {
		if got := Duties(nodes, key, 3); !slices.Equal(got, want) {
			t.Errorf("duties of %q: %v, want %v", key, got, want)
		}
	}
	for _, s := range []string{"", "a", "foobar"} {
		h := fnv.New64a()
		h.Write([]byte(s))
		if got, want := fnv1a(s), h.Sum64(); got != want {
			t.Errorf("fnv1a(%q) = %x, want %x", s, got, want)
		}
	}
}

// TestDutiesProperties: the choice does not depend on the order, has no node twice, and moves as little as possible.
func TestDutiesProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SliceOfNDistinct(rapid.StringN(1, 8, -1), 1, 12, rapid.ID).Draw(t, "nodes")
		key := rapid.String().Draw(t, "key")
		k := rapid.IntRange(-1, 14).Draw(t, "k")
		chosen := Duties(nodes, key, k)
		if want := max(0, min(k, len(nodes))); len(chosen) != want {
			t.Fatalf("%d nodes, want %d", len(chosen), want)
		}
		shuffled := rapid.Permutation(nodes).Draw(t, "shuffled")
		if got := Duties(append(shuffled, shuffled[0]), key, k); !slices.Equal(got, chosen) {
			t.Fatalf("%v in another order and with one twice, want %v", got, chosen)
		}
		if len(chosen) == 0 {
			return
		}
		gone := rapid.SampledFrom(nodes).Draw(t, "gone")
		rest := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == gone })
		stay := slices.DeleteFunc(slices.Clone(chosen), func(n string) bool { return n == gone })
		if got := Duties(rest, key, k); !slices.Equal(got[:len(stay)], stay) {
			t.Fatalf("%v without %s, want %v first", got, gone, stay)
		}
	})
}

// TestDutiesBalance: each node has about the same number of duties, also when names and keys differ in few characters.
func TestDutiesBalance(t *testing.T) {
	t.Parallel()
	const keys, k = 10_000, 2
	for _, n := range []int{2, 3, 5, 9, 100} {
		nodes := make([]string, n)
		for i := range nodes {
			nodes[i] = fmt.Sprintf("lb%d", i+1)
		}
		count := make(map[string]int)
		for i := range keys {
			for _, node := range Duties(nodes, fmt.Sprintf("main/10.0.%d.%d:6379", i>>8, i&255), k) {
				count[node]++
			}
		}
		mean := float64(keys*k) / float64(n)
		// the counts are binomial: five standard deviations are exceeded by chance once in two million
		most := 5 * math.Sqrt(mean*(1-float64(k)/float64(n)))
		for _, node := range nodes {
			if off := math.Abs(float64(count[node]) - mean); off > most {
				t.Errorf("%d nodes: %s has %d duties, want %.0f ± %.0f", n, node, count[node], mean, most)
			}
		}
	}
}

func BenchmarkDuties(b *testing.B) {
	nodes := make([]string, 100)
	for i := range nodes {
		nodes[i] = fmt.Sprintf("lb%d", i+1)
	}
	b.ReportAllocs()
	for b.Loop() {
		Duties(nodes, "main/10.0.0.1:6379", 2)
	}
}
