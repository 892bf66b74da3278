package algo

import (
	"testing"

	"pgregory.net/rapid"
)

func TestLeastConnOrder(t *testing.T) {
	for _, tt := range []struct {
		name    string
		weights []uint32
		leases  []int
		want    int
	}{
		{"one, however busy", []uint32{1}, []int{1000}, 0},
		{"fewest", []uint32{1, 1, 1}, []int{3, 2, 4}, 1},
		{"fewest for its weight", []uint32{1, 4}, []int{2, 7}, 1}, // 3/1 against 8/4
		{"the new lease counts", []uint32{1, 4}, []int{0, 2}, 1},  // 1/1 against 3/4, though 0/1 < 2/4
		{"idle but light", []uint32{1, 256}, []int{0, 254}, 1},    // 1 against 255/256
		{"idle and heavy enough", []uint32{1, 256}, []int{0, 256}, 0},
		{"never of weight 0", []uint32{0, 1}, []int{0, 50}, 1},
		{"all of weight 0", []uint32{0, 0}, []int{5, 4}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			members := membersOf(tt.weights...)
			for i, n := range tt.leases {
				for range n {
					members[i].Load.acquire()
				}
			}
			p := build(t, "least_conn", members, Options{})
			for range 2 * len(members) { // wherever the scan starts
				if got := p.Pick(0); got != tt.want {
					t.Errorf("Pick = %d, want %d", got, tt.want)
				}
			}
		})
	}
}

func TestLeastConnPicksTheLeastLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := drawMembers(t, new(Total))
		p, err := Build("least_conn", members, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 * len(members) {
			i := p.Pick(0)
			if i < 0 {
				return // all are full
			}
			got := members[i]
			for _, m := range members {
				cost := (m.Load.Leases() + 1) * got.Load.weight(int64(got.Weight))
				gotCost := (got.Load.Leases() + 1) * m.Load.weight(int64(m.Weight))
				if m.Weight > 0 && !m.Load.Full() && cost < gotCost {
					t.Fatalf("picked %d leases of weight %d, but there is %d of %d",
						got.Load.Leases(), got.Weight, m.Load.Leases(), m.Weight)
				}
			}
			got.Load.acquire()
		}
	})
}

// TestLeastConnTiesDoNotHerd picks without acquiring, as many loops at once would see it: equal members are taken in
// turn.
func TestLeastConnTiesDoNotHerd(t *testing.T) {
	p := build(t, "least_conn", membersOf(2, 2, 2, 2), Options{})
	var counts [4]int
	for range 40 {
		counts[p.Pick(0)]++
	}
	if counts != [4]int{10, 10, 10, 10} {
		t.Errorf("40 picks of four equal members = %v, want 10 each", counts)
	}
}
