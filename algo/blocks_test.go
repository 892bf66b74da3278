package algo

import (
	"math/rand/v2"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestBlocksFindTheCheapest changes loads, limits and shares of enough members for several blocks, and holds each pick
// against a look at all of them.
func TestBlocksFindTheCheapest(t *testing.T) {
	for _, kind := range []string{"least_conn", "first"} {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				members := named(rapid.IntRange(1, 5*blockSize).Draw(t, "members"),
					rapid.SliceOfN(rapid.Uint32Range(1, 9), 1, 5).Draw(t, "weights")...)
				p, _ := Build(kind, members, Options{})
				r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
				limits := rapid.Int64Range(0, 3).Draw(t, "limits")
				for range 1000 {
					m := &members[r.IntN(len(members))]
					switch r.IntN(10) {
					case 0:
						m.Load.SetLimit(r.Int64N(limits + 1))
					case 1:
						m.Load.SetShare(r.Float64())
					case 2, 3, 4, 5:
						if m.Load.Leases() > 0 {
							m.Load.Release()
						}
					default:
						if i := p.Pick(0); i >= 0 {
							members[i].Load.acquire()
						}
					}
					checkCheapest(t, kind, p.Pick(0), members)
				}
			})
		})
	}
}

func checkCheapest(t rapid.TB, kind string, picked int, members []Member) {
	t.Helper()
	least, firstFree := uint32(full), -1
	for i, m := range members {
		if cost := costOf(m.Load, float32(m.Weight)); cost < least {
			least = cost
		}
		if firstFree < 0 && !m.Load.Full() {
			firstFree = i
		}
	}
	switch {
	case least == full && picked != -1:
		t.Fatalf("Pick = %d, but all are full", picked)
	case least == full:
	case picked < 0:
		t.Fatalf("Pick = %d, but %d has room", picked, firstFree)
	case kind == "first" && picked != firstFree:
		t.Fatalf("Pick = %d, but %d comes first", picked, firstFree)
	case kind == "least_conn" && costOf(members[picked].Load, float32(members[picked].Weight)) != least:
		t.Fatalf("Pick = %d with %d leases of weight %d, but there is a cheaper one",
			picked, members[picked].Load.Leases(), members[picked].Weight)
	}
}

// TestBlocksUnderContention has many threads pick, acquire and release at once. No release may be lost: when all have
// ended, a search finds the cheapest again, and no hint is above a member's cost.
func TestBlocksUnderContention(t *testing.T) {
	members := named(10*blockSize, 1, 2, 3)
	p := build(t, "least_conn", members, Options{}).(*leastConn)
	for round := range 20 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				var held []int
				for range 500 {
					if i := p.Pick(0); len(held) < 100 {
						members[i].Load.acquire()
						held = append(held, i)
					} else {
						last := held[len(held)-1]
						members[last].Load.Release()
						held = held[:len(held)-1]
					}
				}
				for _, i := range held {
					members[i].Load.Release()
				}
			})
		}
		wg.Wait()
		for i, m := range members {
			if n := m.Load.Leases(); n != 0 {
				t.Fatalf("round %d: member %d ends with %d leases", round, i, n)
			}
			if bound := uint32(p.blocks.hints[i/blockSize].bits.Load()); bound > costOf(m.Load, float32(m.Weight)) {
				t.Fatalf("round %d: the hint of block %d is above the cost of member %d", round, i/blockSize, i)
			}
		}
		checkCheapest(t, "least_conn", p.Pick(0), members)
	}
}

// TestFirstFills holds that first keeps to the order and goes on to the next member only when one is full.
func TestFirstFills(t *testing.T) {
	for _, n := range []int{3, 200} {
		members := named(n, 1, 9)
		for _, m := range members {
			m.Load.SetLimit(2)
		}
		p := build(t, "first", members, Options{})
		for i := range 2 * n {
			if got := p.Pick(uint64(i)); got != i/2 {
				t.Fatalf("pick %d of %d members with room for two each = %d, want %d", i, n, got, i/2)
			}
			members[i/2].Load.acquire()
		}
		if got := p.Pick(0); got != -1 {
			t.Errorf("all full: Pick = %d, want -1", got)
		}
		members[1].Load.Release()
		if got := p.Pick(0); got != 1 {
			t.Errorf("the second has room again: Pick = %d, want 1", got)
		}
	}
}

// TestBlocksFindTheLastPlace builds pickers over members that are all full but one, which stands in any block: a pick
// that knows nothing yet must not take the first blocks for all.
func TestBlocksFindTheLastPlace(t *testing.T) {
	members := named(20*blockSize, 1)
	for _, m := range members {
		m.Load.SetLimit(1)
		m.Load.acquire()
	}
	for _, kind := range []string{"least_conn", "first"} {
		for free := 0; free < len(members); free += blockSize - 1 {
			p := build(t, kind, members, Options{})
			members[free].Load.Release()
			for range 3 {
				if got := p.Pick(0); got != free {
					t.Errorf("%s: only member %d has room, Pick = %d", kind, free, got)
				}
			}
			members[free].Load.acquire()
			if got := p.Pick(0); got != -1 {
				t.Errorf("%s: all are full, Pick = %d", kind, got)
			}
		}
		// The same when the place was free before the picker was built.
		last := len(members) - 1
		members[last].Load.Release()
		if got := build(t, kind, members, Options{}).Pick(0); got != last {
			t.Errorf("%s: only the last member has room, Pick = %d", kind, got)
		}
		members[last].Load.acquire()
	}
}
