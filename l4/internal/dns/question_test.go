package dns

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestDNSList holds that a list has its questions in the order in which they came, whichever are taken out, and does
// not disturb another list.
func TestDNSList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lists := [orders]list{{order: bySent}, {order: byBegun}}
		var want [orders][]*question
		all := make([]question, 5)
		for i := range all {
			all[i].began = time.Duration(i)
		}
		for range rapid.IntRange(0, 50).Draw(t, "steps") {
			q := &all[rapid.IntRange(0, len(all)-1).Draw(t, "question")]
			order := rapid.IntRange(0, orders-1).Draw(t, "order")
			if at := slices.Index(want[order], q); at >= 0 {
				want[order] = slices.Delete(want[order], at, at+1)
				lists[order].remove(q)
			} else if rapid.Bool().Draw(t, "push") {
				want[order] = append(want[order], q)
				lists[order].push(q)
			} else {
				lists[order].remove(q) // which is not in
			}
			for order := range lists {
				var there []*question
				for q := lists[order].first; q != nil; q = q.links[order].next {
					there = append(there, q)
				}
				if !slices.Equal(there, want[order]) {
					t.Fatalf("order %d: %d listed, want %d", order, len(there), len(want[order]))
				}
				if n := len(there); n > 0 && lists[order].last != there[n-1] || n == 0 && lists[order].last != nil {
					t.Fatalf("order %d: the last is another", order)
				}
			}
		}
	})
}
